"""How rows are computed: by a tape over the model as it is, or by rules over its rewritten graph."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from keras import ops

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Graph, Value
from augnet.engine.graph.linearize import Linearized, linearize
from augnet.engine.graph.shapes import declared_shapes, shapes_of
from augnet.engine.kernels import Kernels
from augnet.engine.rewrites.coloring import Coloring, coloring
from augnet.engine.rewrites.cut import Cut, narrowest_cut
from augnet.engine.rewrites.folding import fold_affine
from augnet.engine.rewrites.fusing import fuse_elementwise
from augnet.engine.rewrites.resolution import move_convolutions
from augnet.engine.rewrites.rule_lookup import with_rules
from augnet.engine.rules.base import split
from augnet.engine.types import Tensor

Cotangents = Callable[[Tensor], Tensor]
"""Outputs (batch, K) -> cotangents (row, batch, K)."""

CONSTANT_BYTES = 64 * 1024**2
"""Weights up to here are constants of the compiled program; more take too long to compile, as TensorFlow's
graph optimizer copies them many times, and no program may hold 2 GiB."""

UNROLLED_TAPE = 16
"""Backward passes of a tape that are written out: faster than a loop, but each is traced by itself."""


class Rows(ABC):
    """A way to compute rows of a Jacobian, for tensors; what it returns is part of a compiled program."""

    @abstractmethod
    def factors(
        self, x: Tensor, cotangents: Cotangents, chunk: int, kernels: Kernels
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Outputs (batch, K) at x (batch, ...), and the rows (batch, row, inputs) or two factors of them.

        With `chunk` rows in each backward pass.
        """

    def rows(self, x: Tensor, cotangents: Cotangents, chunk: int, kernels: Kernels) -> tuple[Tensor, Tensor]:
        """Outputs (batch, K) and rows (batch, row, inputs)."""
        outputs, factors = self.factors(x, cotangents, chunk, kernels)
        return outputs, product(factors)

    def all_rows(self, x: Tensor, chunk: int, kernels: Kernels) -> Tensor:
        """Rows (batch, K, inputs) of every output."""
        return self.rows(x, identity, chunk, kernels)[1]


@dataclass(frozen=True)
class TapeRows(Rows):
    """One tape over one forward pass of any function.

    With one row per pass there is a backward pass for each; with more, TensorFlow makes one pass for them
    all.

    Attributes:
        function: of as many tensors as there are inputs -> outputs (batch, K), flat.
    """

    function: Callable[..., Tensor]

    def factors(
        self, x: Tensor | Sequence[Tensor], cotangents: Cotangents, chunk: int, kernels: Kernels
    ) -> tuple[Tensor, tuple[Tensor]]:
        """As `Rows`; of several inputs (batch, ...) the rows are side by side, in the outputs' dtype."""
        inputs: list[Tensor] = list(x) if isinstance(x, list | tuple) else [x]
        (outputs,), vjp = backend.linearize(
            lambda *tensors: (self.function(*tensors),), inputs, vectorized=chunk > 1
        )

        def flat(g: Tensor) -> Tensor:
            """Cotangents (row, batch, K) -> (row, batch, inputs)."""
            parts = []
            for given, part in zip(inputs, vjp(g), strict=True):
                shape = (g.shape[0], given.shape[0], math.prod(given.shape[1:]))
                zero = part is None
                parts.append(
                    ops.zeros(shape, g.dtype) if zero else ops.cast(ops.reshape(part, shape), g.dtype)
                )
            return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

        return outputs, (_batch_first(backend.rows_of(flat, cotangents(outputs), chunk, UNROLLED_TAPE)),)


@dataclass(frozen=True)
class RuleRows(Rows):
    """Rules over the rewritten graph, in two parts at its narrowest cut where that is narrower than the rows.

    Attributes:
        output_count: K.
        cut: None for backward passes from the outputs.
        coloring: of the outputs, where fewer backward passes than rows give all of them.
        widest: elements of the largest tensor of an image.
        work: elements of all tensors of an image.
    """

    graph: Graph
    output_count: int
    cut: Cut | None
    widest: int = 0
    work: int = 0
    coloring: Coloring | None = None

    def all_rows(self, x: Tensor, chunk: int, kernels: Kernels) -> Tensor:
        """Rows (batch, K, inputs) of every output."""
        if self.coloring is not None:
            _, sums = self.rows(x, self.coloring.cotangents, chunk, kernels)
            return self.coloring.split(sums, x.shape[1:])
        return super().all_rows(x, chunk, kernels)

    def forward(self, x: Tensor, kernels: Kernels) -> Tensor:
        """The output as rows() computes it, for timing it."""
        return linearize(self.graph.nodes, {self.graph.input: x}, kernels).tensors[self.graph.output]

    def factors(
        self, x: Tensor, cotangents: Cotangents, chunk: int, kernels: Kernels, only: int | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As `Rows`; behind a cut d output / d cut (batch, row, width), d cut / d x (batch, width, inputs).

        With `only` no more than so many backward passes are done, for timing them.
        """
        graph, batch = self.graph, x.shape[0]
        if self.cut is None:
            whole = linearize(graph.nodes, {graph.input: x}, kernels)
            output = whole.tensors[graph.output]
            outputs = ops.reshape(output, (batch, self.output_count))

            def vjp(g: Tensor) -> Tensor:
                g = ops.reshape(g, (g.shape[0], *output.shape))
                return whole.vjp({graph.output: g})[graph.input]

            return outputs, (_batch_first(backend.rows_of(vjp, cotangents(outputs)[:only], chunk)),)
        trunk = linearize(self.cut.trunk, {graph.input: x}, kernels)
        at_cut = {value: trunk.tensors[value] for value in self.cut.values}
        head = linearize(self.cut.head, at_cut, kernels)
        output = head.tensors[graph.output]
        outputs = ops.reshape(output, (batch, self.output_count))
        left = self._head_rows(head, at_cut, output, cotangents(outputs))
        if not self.cut.trunk:
            return outputs, (left,)
        basis = _basis(at_cut, x.dtype)

        def trunk_vjp(g: Tensor) -> Tensor:
            return trunk.vjp(_split_at_cut(g, at_cut))[graph.input]

        right = _batch_first(backend.rows_of(trunk_vjp, basis[:only], chunk))
        return outputs, (left, right)

    def _head_rows(
        self, head: Linearized, at_cut: dict[Value, Tensor], output: Tensor, wanted: Tensor
    ) -> Tensor:
        """d output / d cut, (batch, row, width)."""
        batch = output.shape[0]
        if head.jvp is not None and self.cut is not None and self.cut.width < wanted.shape[0]:
            columns = head.jvp(_split_at_cut(_basis(at_cut, output.dtype), at_cut))[self.graph.output]
            columns = ops.reshape(columns, (columns.shape[0], batch, self.output_count))
            # (width, batch, K) and cotangents (row, batch, K)
            return ops.matmul(ops.transpose(wanted, (1, 0, 2)), ops.transpose(columns, (1, 2, 0)))
        given = ops.reshape(wanted, (wanted.shape[0], *output.shape))
        rows = head.vjp({self.graph.output: given})
        parts = [ops.cast(_batch_first(rows[value]), output.dtype) for value in at_cut]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    @property
    def complete(self) -> bool:
        """Whether every operation has a rule, so that a pass of many rows is one operation each."""
        return all(node.rule is not None for node in self.graph.nodes)

    @property
    def fuses(self) -> bool:
        """Whether XLA may gain something: on a CPU its convolutions are slower than TensorFlow's own."""
        fusing = all(node.rule is not None and node.rule.fuses_on_cpu for node in self.graph.nodes)
        return self.complete and (fusing or backend.device_kind() == "gpu")

    @property
    def heavy(self) -> bool:
        """Whether its weights are too many to be constants of a program, see backend.compiled."""
        arrays = (array for node in self.graph.nodes if node.rule for array in node.rule.arrays())
        return sum(array.nbytes for array in arrays) > CONSTANT_BYTES

    @property
    def summary(self) -> str:
        """What the program is, in words."""
        ruled = sum(node.rule is not None for node in self.graph.nodes)
        parts = f"{len(self.graph.nodes)} operations after rewriting, {ruled} with rules"
        return parts if self.cut is None else f"{parts}, cut at {self.cut.width} numbers"

    @property
    def passes(self) -> int | None:
        """Backward passes through the trunk, or None for one per row."""
        return None if self.cut is None else self.cut.width


def product(factors: tuple[Tensor, ...]) -> Tensor:
    """Rows (batch, row, inputs), of themselves or of two factors."""
    return factors[0] if len(factors) == 1 else ops.matmul(*factors)


def identity(outputs: Tensor) -> Tensor:
    """The cotangents (K, batch, K) of all outputs (batch, K)."""
    count = outputs.shape[1]
    return ops.broadcast_to(ops.eye(count, dtype=outputs.dtype)[:, None], (count, *outputs.shape))


def _batch_first(rows: Tensor) -> Tensor:
    """(row, batch, ...) -> (batch, row, inputs)."""
    flat = ops.reshape(rows, (*ops.shape(rows)[:2], -1))  # a signature may hide its batch size
    return ops.transpose(flat, (1, 0, 2))


def _split_at_cut(rows: Tensor, at_cut: dict[Value, Tensor]) -> dict[Value, Tensor]:
    """Rows (row, batch, width) over all numbers at the cut -> rows of each value there, in its own dtype."""
    parts = split(rows, [math.prod(tensor.shape[1:]) for tensor in at_cut.values()], -1)
    return {
        value: ops.cast(ops.reshape(part, (part.shape[0], *tensor.shape)), tensor.dtype)
        for (value, tensor), part in zip(at_cut.items(), parts, strict=True)
    }


def _basis(at_cut: dict[Value, Tensor], dtype: str) -> Tensor:
    """(width, batch, width): the identity for every image."""
    tensors = list(at_cut.values())
    width = sum(math.prod(tensor.shape[1:]) for tensor in tensors)
    eye = np.broadcast_to(np.eye(width)[:, None, :], (width, tensors[0].shape[0], width))
    return backend.constant(eye, dtype)


def rewrite(graph: Graph, input_shape: tuple[int, ...], dtype: str, row_count: int) -> RuleRows:
    """The graph rewritten for this many rows of every image (*input_shape)."""
    shapes = declared_shapes(graph, input_shape) or shapes_of(graph, input_shape, dtype)
    ruled = with_rules(graph, shapes)
    shapes = shapes_of(ruled, input_shape, dtype, shapes)
    final = fuse_elementwise(move_convolutions(fold_affine(ruled, shapes), shapes))
    shapes = shapes_of(final, input_shape, dtype, shapes)
    outputs = math.prod(shapes[final.output])
    sizes = [math.prod(shapes[value]) for node in final.nodes for value in node.outputs]
    sizes.append(math.prod(input_shape))
    colors = coloring(final, shapes) if row_count == outputs else None
    if colors is not None and colors.count < row_count:
        row_count = colors.count
    else:
        colors = None
    cut = narrowest_cut(final, shapes, row_count)
    return RuleRows(final, outputs, cut, max(sizes), sum(sizes), colors if cut is None else None)
