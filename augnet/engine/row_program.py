"""The core that everything computes by: one model, one shape of image, a number of rows -> compiled rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.agreement import Agreement, compare
from augnet.engine.backends import backend
from augnet.engine.graph.graph import Graph
from augnet.engine.graph.precision import in_precision
from augnet.engine.inspection.probes import PROBES, probe_images
from augnet.engine.kernels import Kernels
from augnet.engine.rows import Cotangents, Rows, RuleRows, TapeRows, product, rewrite
from augnet.engine.tuning import SMALL_WORK, Choice
from augnet.engine.types import Tensor, Tensors

log = logging.getLogger(__name__)

BATCH_ELEMENTS = 10**7
"""Elements of the largest tensor of a batch: more gain nothing on a CPU (benchmarks/engine.py)."""
MEMORY_SHARE = 0.5
"""Of the memory that is free: decoding, writing and Beam need room beside the engine."""
AUTO_BATCH = (64, 256)
"""Images of an automatic batch at most: of any model, and of one so small that a call costs more than it
computes (SMALL_WORK)."""
ROWS_BYTES = 512 * 1024**2
"""Rows of one batch: they are copied to the host together, where a shard waits for them."""
GRAM_BYTES = 8
"""Of a product of two rows, which is float64."""
COMPARED = 2
"""Probe images that rules and tape are compared on, where the model is so large that all would take long."""


class RowProgram:
    """Rows of the Jacobian of one function of an image batch, by the fastest program that is right.

    The rules are compared with the tape before they are used; where they differ, or an operation cannot be
    traced, the tape computes. `Engine` adds the selection of rows and what is measured of them, `AugNet`
    follows the weights of a model that is being trained; both compute by this alone.

    Args:
        function: as many tensors (batch, ...) as there are inputs -> outputs (batch, K).
        graph: the same as a graph, for a function of one input; None where there is none.
        input_shape: of an image, without batch; of several inputs, of all of them as one flat vector.
        dtype: of the rows, and of the image.
        output_count: K.
        row_count: R, rows of each image.
        memory_bytes: what a batch may take; None: half of what is free.
        raw_pixels: whether the function takes pixels in 0..255, for the probe images.
        rounding: of one product in a coarse arithmetic (bfloat16, TF32), else 0.0.
        quick: whether to compare on fewer images, and tell kinks from faults by what noise changes and not by
            float64.

    Attributes:
        tape: rows by a tape over `function`.
        rules: rows by rules over the rewritten graph, or None.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        graph: Graph | None,
        input_shape: tuple[int, ...],
        dtype: str,
        output_count: int,
        row_count: int,
        *,
        memory_bytes: int | None = None,
        raw_pixels: bool = False,
        rounding: float = 0.0,
        quick: bool = False,
    ):
        self._graph, self._raw_pixels, self._rounding = graph, raw_pixels, rounding
        self._quick = quick
        self.input_shape, self.dtype = input_shape, dtype
        self.output_count, self.row_count = output_count, row_count
        self.memory_bytes = memory_bytes or int(MEMORY_SHARE * backend.free_bytes())
        self.tape = TapeRows(function)
        self.rules = None if graph is None else rewrite(graph, input_shape, dtype, row_count)
        if self.rules is not None and not any(node.rule for node in self.rules.graph.nodes):
            self.rules = None  # one tape over the whole is simpler

    @cached_property
    def agreement(self) -> Agreement | None:
        """How the rules agree with the tape; None where there are none."""
        if self.rules is None:
            return None
        large = self.rules.work * PROBES > SMALL_WORK
        few = (1 if self._quick else COMPARED) if large else PROBES
        wide = None if self._quick or self.dtype == "float64" else self.float64
        found = compare(self.rules, self.tape, wide, self.probe(few), self._rounding)
        if not found.words:
            log.warning("engine: the rules disagree with a tape over the model; going by the tape")
        return found

    @property
    def trusted_rules(self) -> RuleRows | None:
        """The rules, if they agree with the tape; None where there are none."""
        return self.rules if self.agreement and self.agreement.words else None

    @property
    def report(self) -> dict[str, Any]:
        """What the comparison found, as plain JSON values, see tuning.Choice."""
        found = self.agreement
        if found is None:
            return {}
        if found.words:
            return {"agreement": found.words, "error": found.error, "error_against": found.against}
        known = {} if found.tape_error is None else {"error": found.tape_error, "error_against": "float64"}
        return {"rules": "disagree with the tape"} | known

    @property
    def pass_seconds(self) -> float:
        """About how long one pass through the graph takes for an image, uncompiled: rather too long."""
        return self.agreement.seconds / 2 if self.agreement else 0.0

    def float64(self) -> tuple[RuleRows, TapeRows]:
        """The rules and the tape in float64, for a function with a graph."""
        assert self._graph is not None
        graph = in_precision(self._graph, "float64")
        rules = rewrite(graph, self.input_shape, "float64", self.row_count)
        return rules, TapeRows(lambda x: ops.reshape(graph(x), (x.shape[0], self.output_count)))

    @property
    def complete(self) -> bool:
        """Whether every operation has a rule."""
        return self.rules is not None and self.rules.complete

    @property
    def passes(self) -> int:
        """Backward passes that give all rows."""
        return (None if self.rules is None else self.rules.passes) or self.row_count

    @property
    def image_bytes(self) -> int:
        """Of one image, and so of one row."""
        return math.prod(self.input_shape) * np.dtype(self.dtype).itemsize

    def likely_batch_size(self) -> int:
        """As many images as fill the device, and as the rows, what is made of them, and G leave room for."""
        rows_bytes, gram_bytes = self.row_count * self.image_bytes, self.row_count**2 * GRAM_BYTES
        needed = 8 * rows_bytes + 4 * gram_bytes
        if needed > self.memory_bytes:
            log.warning(
                "engine: the %d rows of one image may take %.1f GB, more than the %.1f GB that it may; "
                "choose fewer rows (`outputs`)",
                self.row_count,
                needed / 1e9,
                self.memory_bytes / 1e9,
            )
        most = min(self.memory_bytes // needed, ROWS_BYTES // rows_bytes)
        rules = self.rules
        if rules is None:
            most = min(most, AUTO_BATCH[0])
        else:
            small = int(np.clip(SMALL_WORK // rules.work, *AUTO_BATCH))
            most = min(most, BATCH_ELEMENTS // rules.widest, small)
        return 2 ** int(math.log2(max(1, most)))

    def rows(self, x: Tensor, cotangents: Cotangents, choice: Choice) -> tuple[Tensor, Tensor]:
        """Outputs (batch, K) and rows (batch, R, inputs), for tensors, as part of a compiled program.

        Args:
            x: (batch, *input_shape).
            cotangents: outputs (batch, K) -> (R, batch, K).
        """
        outputs, factors = self.factors(x, cotangents, choice)
        return outputs, product(factors)

    def factors(self, x: Tensor, cotangents: Cotangents, choice: Choice) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `rows`, but behind a cut two factors of the rows, see `RuleRows.factors`."""
        return self._by(choice).factors(x, cotangents, choice.rows_per_pass, Kernels(choice.kernels))

    def all_rows(self, x: Tensor, choice: Choice) -> Tensor:
        """Rows (batch, K, inputs) of every output, by fewer passes where outputs see separate parts of x."""
        return self._by(choice).all_rows(x, choice.rows_per_pass, Kernels(choice.kernels))

    def _by(self, choice: Choice) -> Rows:
        return self.rules if choice.program == "rules" and self.rules is not None else self.tape

    def compile(self, function: Callable[..., Tensors], signature: backend.Signature) -> backend.Program:
        """A function that computes rows, of images and other arguments, as a program."""
        heavy = self.rules is not None and self.rules.heavy
        return backend.compiled(function, signature, weights_as_arguments=heavy)

    def trial(
        self, function: Callable[[Tensor], Tensors], batch_size: int, xla: bool = False
    ) -> backend.Program:
        """A function of an image batch as a program that is only to be timed, and so is compiled quickly."""
        signature = [((batch_size, *self.input_shape), self.dtype)]
        return backend.compiled(function, signature, xla, weights_as_arguments=True)

    def probe(self, count: int) -> np.ndarray:
        """Noise images (count, *input_shape), in [0, 1] or in 0..255; the same every time, repeated."""
        return np.resize(
            probe_images(self.input_shape, self._raw_pixels, self.dtype), (count, *self.input_shape)
        )

    def rule_rows(self, x: Tensor, chunk: int, kernels: Kernels, only: int) -> tuple[Tensor, Tensor]:
        """What a trial computes: outputs, and the first `only` backward passes of all."""
        assert self.rules is not None
        outputs, factors = self.rules.factors(x, self._first(self.row_count), chunk, kernels, only)
        return outputs, factors[-1]

    def tape_rows(self, x: Tensor, count: int, chunk: int = 1) -> tuple[Tensor, Tensor]:
        """Outputs, and the first `count` rows by the tape."""
        return self.tape.rows(x, self._first(count), chunk, Kernels())

    def _first(self, count: int) -> Cotangents:
        eye = np.eye(self.output_count)[:count, None, :]

        def cotangents(outputs: Tensor) -> Tensor:
            return backend.constant(np.broadcast_to(eye, (count, *outputs.shape)), outputs.dtype)

        return cotangents
