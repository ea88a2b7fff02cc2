"""How the rows are computed: by a tape over the model as it is, or by rules over its rewritten graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.backends import tensorflow as backend
from augnet.engine.graph.graph import Graph, Value
from augnet.engine.graph.linearize import linearize
from augnet.engine.rewrites.coloring import Coloring, coloring
from augnet.engine.rewrites.cut import Cut, narrowest_cut
from augnet.engine.rewrites.folding import fold_affine
from augnet.engine.rewrites.fusing import fuse_elementwise
from augnet.engine.rewrites.resolution import move_convolutions
from augnet.engine.rewrites.rule_lookup import with_rules
from augnet.engine.rules.base import Kernels, split

Cotangents = Callable[[Any], Any]
"""Outputs (batch, K) -> cotangents (row, batch, K)."""

CONSTANT_BYTES = 64 * 1024**2
"""Weights up to here are constants of the compiled program; more take too long to compile, as TensorFlow's
graph optimizer copies them many times, and no program may hold 2 GiB."""


@dataclass(frozen=True)
class Plain:
    """One tape over one forward pass, and one backward pass per row."""

    function: Callable[[Any], Any]

    def rows(self, x: Any, cotangents: Cotangents, chunk: int, paths: Kernels) -> tuple[Any, Any]:
        """Outputs (batch, K) and rows (batch, row, inputs) at x (batch, ...)."""
        outputs, pull = backend.linearize(self.function, x)
        rows = backend.rows_of(pull, cotangents(outputs), chunk)
        return outputs, _batch_first(rows)


@dataclass(frozen=True)
class Rewritten:
    """Rules over the rewritten graph, parted at its narrowest cut where that is narrower than the rows.

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

    def all_rows(self, x: Any, chunk: int, paths: Kernels) -> Any:
        """Rows (batch, K, inputs) of every output."""
        if self.coloring is not None:
            _, sums = self.rows(x, self.coloring.cotangents, chunk, paths)
            return self.coloring.split(sums, x.shape[1:])
        return self.rows(x, identity, chunk, paths)[1]

    def forward(self, x: Any, paths: Kernels) -> Any:
        """The output as rows() computes it, for timing it."""
        return linearize(self.graph.nodes, {self.graph.input: x}, paths).tensors[self.graph.output]

    def rows(
        self, x: Any, cotangents: Cotangents, chunk: int, paths: Kernels, only: int | None = None
    ) -> tuple[Any, Any]:
        """Outputs (batch, K) and rows (batch, row, inputs) at x (batch, ...).

        With `only` no more than so many backward passes are done, for timing them.
        """
        graph, batch = self.graph, x.shape[0]
        if self.cut is None:
            whole = linearize(graph.nodes, {graph.input: x}, paths)
            output = whole.tensors[graph.output]
            outputs = ops.reshape(output, (batch, self.output_count))

            def pull(g: Any) -> Any:
                g = ops.reshape(g, (g.shape[0], *output.shape))
                return whole.vjp({graph.output: g})[graph.input]

            return outputs, _batch_first(backend.rows_of(pull, cotangents(outputs)[:only], chunk))
        trunk = linearize(self.cut.trunk, {graph.input: x}, paths)
        at_cut = {value: trunk.tensors[value] for value in self.cut.values}
        head = linearize(self.cut.head, at_cut, paths)
        output = head.tensors[graph.output]
        outputs = ops.reshape(output, (batch, self.output_count))
        left = self._head_rows(head, at_cut, output, cotangents(outputs))
        if not self.cut.trunk:
            return outputs, left
        basis = _basis(at_cut, x.dtype)

        def pull_trunk(g: Any) -> Any:
            return trunk.vjp(_parted(g, at_cut))[graph.input]

        right = _batch_first(backend.rows_of(pull_trunk, basis[:only], chunk))
        return outputs, ops.matmul(left, right) if only is None else right

    def _head_rows(self, head: Any, at_cut: dict[Value, Any], output: Any, wanted: Any) -> Any:
        """d output / d cut, (batch, row, width)."""
        batch = output.shape[0]
        if head.jvp is not None and self.cut is not None and self.cut.width < wanted.shape[0]:
            made = head.jvp(_parted(_basis(at_cut, output.dtype), at_cut))[self.graph.output]
            made = ops.reshape(made, (made.shape[0], batch, self.output_count))
            # (width, batch, K) and cotangents (row, batch, K)
            return ops.matmul(ops.transpose(wanted, (1, 0, 2)), ops.transpose(made, (1, 2, 0)))
        given = ops.reshape(wanted, (wanted.shape[0], *output.shape))
        made = head.vjp({self.graph.output: given})
        parts = [ops.cast(_batch_first(made[value]), output.dtype) for value in at_cut]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    @property
    def ruled(self) -> bool:
        """Whether every operation has a rule, so that a pass of many rows is one operation each."""
        return self.graph.ruled

    @property
    def fuses(self) -> bool:
        """Whether XLA may gain something: on a CPU its convolutions are slower than TensorFlow's own."""
        whole = all(node.rule is not None and node.rule.fuses_on_cpu for node in self.graph.nodes)
        return self.ruled and (whole or backend.device_kind() == "gpu")

    @property
    def heavy(self) -> bool:
        """Whether its weights are too many to be constants of a program, see backend.compiled."""
        return self.graph.weight_bytes > CONSTANT_BYTES

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


def identity(outputs: Any) -> Any:
    """The cotangents (K, batch, K) of all outputs (batch, K)."""
    count = outputs.shape[1]
    return ops.broadcast_to(ops.eye(count, dtype=outputs.dtype)[:, None], (count, *outputs.shape))


def _batch_first(rows: Any) -> Any:
    """(row, batch, ...) -> (batch, row, inputs)."""
    flat = ops.reshape(rows, (rows.shape[0], rows.shape[1], -1))
    return ops.transpose(flat, (1, 0, 2))


def _parted(rows: Any, at_cut: dict[Value, Any]) -> dict[Value, Any]:
    """Rows (row, batch, width) over all numbers at the cut -> rows of each value there, in its own dtype."""
    parts = split(rows, [math.prod(tensor.shape[1:]) for tensor in at_cut.values()], -1)
    return {
        value: ops.cast(ops.reshape(part, (part.shape[0], *tensor.shape)), tensor.dtype)
        for (value, tensor), part in zip(at_cut.items(), parts, strict=True)
    }


def _basis(at_cut: dict[Value, Any], dtype: Any) -> Any:
    """(width, batch, width): the identity for every image."""
    tensors = list(at_cut.values())
    width = sum(math.prod(tensor.shape[1:]) for tensor in tensors)
    eye = np.broadcast_to(np.eye(width)[:, None, :], (width, tensors[0].shape[0], width))
    return backend.constant(eye, dtype)


def rewritten(graph: Graph, model_input: tuple[int, ...], dtype: str, rows: int) -> Rewritten:
    """The graph rewritten for this many rows per image."""
    shapes = backend.shapes_of(graph, model_input, dtype)
    low = with_rules(graph, shapes)
    shapes = backend.shapes_of(low, model_input, dtype)
    final = fuse_elementwise(move_convolutions(fold_affine(low, shapes), shapes))
    shapes = backend.shapes_of(final, model_input, dtype)
    outputs = math.prod(shapes[final.output])
    sizes = [math.prod(shapes[value]) for node in final.nodes for value in node.outputs]
    sizes.append(math.prod(model_input))
    colors = coloring(final, shapes) if rows == outputs else None
    if colors is not None and colors.count < rows:
        rows = colors.count
    else:
        colors = None
    cut = narrowest_cut(final, shapes, rows)
    return Rewritten(final, outputs, cut, max(sizes), sum(sizes), colors if cut is None else None)
