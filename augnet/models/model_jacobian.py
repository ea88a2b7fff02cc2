"""The Jacobian of a Keras model at the weights of the moment, for as many samples as are given."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from augnet.engine.backends import backend
from augnet.engine.batching import BatchedProgram, padded
from augnet.engine.graph.graph import Graph, trace
from augnet.engine.graph.precision import computes_in
from augnet.engine.graph.shapes import declared_shapes
from augnet.engine.inspection.samples import mixes_samples
from augnet.engine.row_program import RowProgram
from augnet.engine.rules.base import split
from augnet.engine.tuning import Choice, choose
from augnet.engine.types import Tensor

log = logging.getLogger(__name__)

MOST_PROGRAMS = 8
"""Compiled programs that are kept; each holds copies of the weights."""
TUNED_AFTER_SECONDS = 20.0
"""Of computing, before programs are timed to find a faster one: a few calls do not wait for it."""
TUNING_SHARE = 0.1
"""Of the time spent computing, which timing programs may take."""
COMPARED_BYTES = 2**20
"""Weights are compared in blocks that stay in the caches."""

Blocks = list[Tensor]
"""Of each output, for each input: (batch, outputs..., inputs...); of chosen rows (batch, row, inputs...)."""


@dataclass(frozen=True)
class Shapes:
    """The shapes of one sample.

    Attributes:
        inputs, outputs: one each.
        dtype: that holds all of them; rows are computed in it.
    """

    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    dtype: str

    @property
    def output_count(self) -> int:
        """K, of all outputs together."""
        return sum(math.prod(shape) for shape in self.outputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input, or of several side by side."""
        return self.inputs[0] if len(self.inputs) == 1 else (sum(map(math.prod, self.inputs)),)


class ModelJacobian:
    """The rows of one model, by the core that an Engine computes by, kept true to weights that may change.

    The rules hold copies of the weights, which are compared with the model's, bit for bit, at every
    call. While the weights stay, rules compute. After they changed, a tape does what is asked for once, as
    it refers to the model's own variables; rules are made again for what is asked for a second time.

    It is an object of its own, which neither Keras nor the backend tracks, so that a model with one is saved,
    exported and pickled like one without. Threads may share it.

    Raises:
        ValueError: at the first call: the model mixes the samples of a batch.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._graph = _graph_of(model)
        self._lock = threading.Lock()
        self._shapes: dict[tuple[tuple[int, ...], ...], Shapes] = {}
        self._weights: list[np.ndarray] = []
        self._changed = False
        self._asked: set[Any] = set()
        self._independent: set[tuple[tuple[int, ...], ...]] = set()
        self._programs: dict[Any, CompiledRows] = {}

    def __call__(
        self, arrays: list[Any], rows: np.ndarray | None, batch_size: int
    ) -> Iterator[tuple[Blocks, int]]:
        """The Jacobian, batch by batch, each with how many samples are in it; the rest of a block is padding.

        Args:
            arrays: (n, inputs...) per input, n at least 1.
            rows: numbers of the values of the one flattened output; None for all values of all outputs.
            batch_size: samples of a batch, at most.
        """
        with self._lock:
            shapes = self._shapes_of(arrays)
            program = self._program(shapes, rows, min(batch_size, len(arrays[0])), arrays)
        for found, count in program.batches(arrays, rows):
            yield _blocks(found, shapes, rows), count

    def prepare(self, shapes: list[tuple[int, ...]], rows: np.ndarray | None, batch_size: int) -> None:
        """Choose the fastest program for batches of this size by timing, and compile it.

        Args:
            shapes: of a sample, per input.
        """
        arrays = [np.zeros((1, *shape), np.float32) for shape in shapes]
        with self._lock:
            program = self._program(self._shapes_of(arrays), rows, batch_size, arrays, asked_again=True)
            program.tune()
        for _ in program.batches(arrays, rows):
            pass

    def _shapes_of(self, arrays: list[Any]) -> Shapes:
        """The shapes of inputs and outputs, which the first call for inputs of these shapes finds out."""
        key = tuple(tuple(array.shape[1:]) for array in arrays)
        if key not in self._shapes:
            known = declared_shapes(self._graph, key[0]) if self._graph else None
            if self._graph is not None and known is not None:
                outputs: tuple[tuple[int, ...], ...] = (known[self._graph.output],)
            else:
                outputs = tuple(tuple(y.shape[1:]) for y in self._call(self._samples(arrays, 1)))
            kinds = [spec.dtype for spec in (*self._model.inputs, *self._model.outputs)]
            self._shapes[key] = Shapes(key, outputs, keras.backend.result_type(*kinds))
        return self._shapes[key]

    def _refuse_mixed_samples(self, arrays: list[Any]) -> None:
        """Raise ValueError where an output of one sample depends on the input of another."""
        samples = self._samples(arrays, 3)
        if len(samples[0]) > 1 and mixes_samples(self._call, samples):
            raise ValueError(
                "AugNet: this model mixes the samples of a batch: an output of one depends on the input "
                "of another, even in inference mode, so that no sample has a Jacobian of its own; take "
                "out the layer that mixes them"
            )

    def _samples(self, arrays: list[Any], count: int) -> list[np.ndarray]:
        """So many samples (count, inputs...) of every input, or as many as the model wants; all finite."""
        size = _fixed_batch(self._model) or count
        return [padded(np.nan_to_num(np.asarray(array[:size], np.float32)), size) for array in arrays]

    def _call(self, tensors: list[Tensor]) -> list[Tensor]:
        inputs = [ops.cast(x, spec.dtype) for x, spec in zip(tensors, self._model.inputs, strict=True)]
        return _outputs_of(self._model, self._graph, inputs)

    def _program(
        self,
        shapes: Shapes,
        rows: np.ndarray | None,
        size: int,
        arrays: list[Any],
        asked_again: bool = False,
    ) -> CompiledRows:
        """What computes batches of about this size."""
        self._follow_weights()
        row_count = None if rows is None else len(rows)
        request = (shapes.inputs, row_count)
        by_tape = self._changed and not asked_again and (request, size) not in self._asked
        self._asked.add((request, size))
        fitting = [
            (program.batch_size, key)
            for key, program in self._programs.items()
            if key[:2] == (request, by_tape) and size <= program.batch_size <= 2 * size
        ]
        if fitting:
            program = self._programs[min(fitting)[1]]
            if program.pays_to_tune:
                program.tune()
            return program
        graph = None if by_tape else self._graph
        program = CompiledRows(self._model, graph, shapes, row_count, size)
        if shapes.inputs not in self._independent:
            if not program.independent:
                self._refuse_mixed_samples(arrays)
            self._independent.add(shapes.inputs)
        while len(self._programs) >= MOST_PROGRAMS:
            del self._programs[next(iter(self._programs))]
        self._programs[request, by_tape, program.batch_size] = program
        return program

    def _follow_weights(self) -> None:
        """Forget the programs that hold copies of weights that are no more."""
        variables = self._model.weights
        if self._weights and _equal(self._weights, variables):
            return
        self._changed = bool(self._weights)
        self._weights = [backend.values_of(variable).copy() for variable in variables]
        self._asked.clear()
        self._programs = {
            key: program for key, program in self._programs.items() if not program.holds_weights
        }


class CompiledRows:
    """Rows of samples of one shape, compiled for one batch size.

    Args:
        graph: the model's, for rules; None for a tape.
        row_count: rows of every sample; None for all.
        size: samples of a batch, at most; fewer where they would not fit into memory, and as many as the
            model wants where it was made with a batch size.
    """

    def __init__(
        self,
        model: keras.Model,
        graph: Graph | None,
        shapes: Shapes,
        row_count: int | None,
        size: int,
    ):
        self._shapes, self._row_count = shapes, row_count
        self._kinds = [spec.dtype for spec in model.inputs]

        def function(*tensors: Tensor) -> Tensor:
            outputs = _outputs_of(model, graph, list(tensors))
            flat = [ops.cast(ops.reshape(y, (y.shape[0], -1)), shapes.dtype) for y in outputs]
            return flat[0] if len(flat) == 1 else ops.concatenate(flat, axis=-1)

        count = shapes.output_count
        self._program = RowProgram(
            function, graph, shapes.input_shape, shapes.dtype, count, row_count or count, quick=True
        )
        size = _fixed_batch(model) or math.ceil(size / math.ceil(size / self._program.likely_batch_size()))
        self._choice: Choice = choose(self._program, size, seconds=0)
        self._batched = self._batched_for(size)
        self._compile_seconds, self._tuned = 0.0, False
        self.spent_seconds = 0.0
        """That calls have taken so far."""

    @property
    def batch_size(self) -> int:
        """Samples of a batch."""
        return self._batched.batch_size

    @property
    def independent(self) -> bool:
        """Whether samples cannot influence each other: every operation has a rule, and rules act on each."""
        return self._choice.program == "rules" and self._program.complete

    @property
    def holds_weights(self) -> bool:
        """Whether it computes by copies of the weights."""
        return self._choice.program == "rules"

    @property
    def pays_to_tune(self) -> bool:
        """Whether so much was computed that finding a faster program may pay."""
        cost = 3 * self._compile_seconds
        return not self._tuned and self.spent_seconds > max(TUNED_AFTER_SECONDS, cost / TUNING_SHARE)

    def tune(self) -> None:
        """Time programs, and go on with the fastest; of several inputs there is only one."""
        self._tuned = True
        if len(self._kinds) > 1:
            return
        seconds = max(TUNED_AFTER_SECONDS, self.spent_seconds) * TUNING_SHARE
        choice = choose(self._program, self.batch_size, seconds=seconds)
        if replace(choice, report=self._choice.report, busy=self._choice.busy) != self._choice:
            self._choice, self._batched = choice, self._batched_for(choice.batch_size)

    def batches(self, arrays: list[Any], rows: np.ndarray | None) -> Iterator[tuple[Tensor, int]]:
        """Rows (batch, row, inputs) of samples (n, inputs...), batch by batch, each with its sample count."""
        numbers = np.zeros(0, np.int32) if rows is None else rows
        began = time.monotonic()
        for found in self._batched(arrays, numbers):
            backend.wait(found[0])
            log.debug("augnet: Jacobian of %d samples by %s", found[1], self._choice.program)
            self.spent_seconds += time.monotonic() - began
            yield found
            began = time.monotonic()

    def _batched_for(self, size: int) -> BatchedProgram:
        return BatchedProgram(self._compile, self._kinds, size, shared_dtypes=["int32"])

    def _compile(self, size: int) -> backend.Program:
        """Samples (size, inputs...) per input, their count and row numbers -> rows (size, row, inputs)."""
        began = time.monotonic()
        shapes, dtype = self._shapes, self._shapes.dtype

        def program(*arguments: Tensor) -> Tensor:
            *inputs, _, numbers = arguments

            def cotangents(outputs: Tensor) -> Tensor:
                chosen = ops.one_hot(numbers, shapes.output_count, dtype=outputs.dtype)
                return ops.broadcast_to(chosen[:, None], (chosen.shape[0], *outputs.shape))

            finite = ops.all(ops.stack([_finite(x) for x in inputs]), axis=0)
            # A NaN could spoil more than its own sample: an operation may refuse it.
            safe = [ops.where(_column(finite, x), x, ops.zeros_like(x)) for x in inputs]
            x = safe if len(safe) > 1 else safe[0]
            if self._row_count is None:
                rows = self._program.all_rows(x, self._choice)
            else:
                rows = self._program.rows(x, cotangents, self._choice)[1]
            # The rare sample that is not finite has no row; the copy is made only then.
            nothing = ops.cast(math.nan, dtype)
            return ops.cond(
                ops.all(finite), lambda: rows, lambda: ops.where(finite[:, None, None], rows, nothing)
            )

        batches = [((size, *shape), kind) for shape, kind in zip(shapes.inputs, self._kinds, strict=True)]
        signature = [*batches, ((), "int32"), ((self._row_count or 0,), "int32")]
        compiled = self._program.compile(program, signature)
        self._compile_seconds = time.monotonic() - began
        return compiled


def _fixed_batch(model: keras.Model) -> int | None:
    """The batch size that the model was made with, if any."""
    return model.inputs[0].shape[0]


def _finite(x: Tensor) -> Tensor:
    """(batch,) bool: whether all numbers of a sample of x (batch, ...) are finite."""
    return ops.all(ops.isfinite(ops.reshape(x, (x.shape[0], -1))), axis=1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(batch,) -> (batch, 1, ...), of as many axes as `like` has."""
    return ops.reshape(values, (-1, *[1] * (len(like.shape) - 1)))


def _outputs_of(model: keras.Model, graph: Graph | None, inputs: list[Tensor]) -> list[Tensor]:
    """The model's outputs at inference, flat."""
    if graph is not None:
        return [graph(inputs[0])]
    return keras.tree.flatten(model(keras.tree.pack_sequence_as(model.input, inputs), training=False))


def _blocks(rows: Tensor, shapes: Shapes, chosen: np.ndarray | None) -> Blocks:
    """Rows (batch, row, inputs) of all outputs and inputs, as one block for each of both."""
    outputs = shapes.outputs if chosen is None else ((len(chosen),),)
    by_output = split(rows, [math.prod(shape) for shape in outputs], 1)
    return [
        ops.reshape(block, (rows.shape[0], *output, *given))
        for output, part in zip(outputs, by_output, strict=True)
        for given, block in zip(
            shapes.inputs, split(part, [math.prod(g) for g in shapes.inputs], 2), strict=True
        )
    ]


def _graph_of(model: keras.Model) -> Graph | None:
    """The flat graph of a model that one is enough for: one input, one output, one precision; else None."""
    if len(model.inputs) != 1 or len(model.outputs) != 1 or _fixed_batch(model):
        return None
    dtype = model.inputs[0].dtype
    if dtype not in ("float32", "float64") or model.outputs[0].dtype != dtype:
        return None
    graph = trace(model)
    return graph if graph and all(computes_in(node, dtype) for node in graph.nodes) else None


def _equal(arrays: list[np.ndarray], variables: list[Any]) -> bool:
    """Whether the variables hold these values, bit for bit: a NaN equals itself."""

    def same(array: np.ndarray, now: np.ndarray) -> bool:
        if (array.shape, array.dtype) != (now.shape, now.dtype):
            return False
        before, after = (part.reshape(-1).view(np.uint8) for part in (array, np.ascontiguousarray(now)))
        starts = range(0, before.size, COMPARED_BYTES)
        return all(
            np.array_equal(before[i : i + COMPARED_BYTES], after[i : i + COMPARED_BYTES]) for i in starts
        )

    return len(arrays) == len(variables) and all(
        same(array, backend.values_of(variable)) for array, variable in zip(arrays, variables, strict=True)
    )
