"""Scale and shift folded into the convolution or dense layer beside them, and dense layers into each other.

BatchNormalization at inference, Rescaling and Normalization are x * scale + shift per channel. Folded away
they cost nothing, neither in the forward pass nor in any backward pass. All sums are made in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from augnet.engine.graph.graph import Graph, Node, Shapes, Value
from augnet.engine.rules.affine import Affine
from augnet.engine.rules.base import Rule, Shape
from augnet.engine.rules.dense import Dense
from augnet.engine.rules.shaping import Pad
from augnet.engine.rules.weighted import Weighted, Windowed
from augnet.engine.types import Op


def fold_affine(graph: Graph, shapes: Shapes) -> Graph:
    """The graph with as many pairs of neighbours folded as can be.

    Args:
        shapes: every value's shape without the batch; those of new values are added.
    """
    nodes = list(graph.nodes)
    while True:
        folded = _fold_once(Graph(graph.input, graph.output, nodes), shapes)
        if folded is None:
            return Graph(graph.input, graph.output, nodes)
        nodes = folded


def _fold_once(graph: Graph, shapes: Shapes) -> list[Node] | None:
    """The nodes after one sweep over all pairs of neighbours; None where none folds."""
    users = graph.users()
    producers = {value: node for node in graph.nodes for value in node.outputs}
    nodes, changed = list(graph.nodes), False
    gone: set[Node] = set()
    for second in graph.nodes:
        if len(second.inputs) != 1 or second in gone:
            continue
        middle = second.inputs[0]
        first = producers.get(middle)
        if first is None or first in gone or len(users[middle]) != 1 or middle is graph.output:
            continue
        if len(first.inputs) != 1 or len(first.outputs) != 1:
            continue
        steps = _pair(first.op, second.op, shapes[middle])
        if steps is None:
            continue
        instead = []
        value = first.inputs[0]
        for i, step in enumerate(steps):
            output = second.outputs[0] if i == len(steps) - 1 else Value((), middle.dtype, middle.name)
            if output is not second.outputs[0]:
                shapes[output] = shapes[value]  # only shifts and scales are put in between
            instead.append(Node(step, (value,), {}, (output,), second.name))
            value = output
        at = nodes.index(second)
        nodes[at : at + 1] = instead
        nodes.remove(first)
        gone.update((first, second))
        changed = True
    return nodes if changed else None


def _pair(first: Op, second: Op, middle: Shape) -> Sequence[Rule] | None:
    """What to put in place of two operations, of any kind, with this shape between them; or None."""
    if isinstance(second, Affine):
        if not (second.scales or second.shifts):
            return [first]
        if isinstance(first, Affine):
            return [_composed(first, second)]
        if isinstance(first, Weighted):
            after = _per_channel(second, middle[-1])
            return None if after is None else [first.affine_after(*after)]
    if isinstance(first, Affine):
        if not (first.scales or first.shifts):
            return [second]
        if isinstance(second, Weighted):
            before = _per_channel(first, middle[-1])
            return None if before is None else second.affine_before(*before)
    if isinstance(first, Dense) and isinstance(second, Dense):
        inputs, inner = first.kernel.shape
        outputs = second.kernel.shape[1]
        return [_product(first, second)] if inner * (inputs + outputs) >= inputs * outputs else None
    if isinstance(first, Pad) and isinstance(second, Windowed):
        padded = second.padded_before((first.rows, first.columns))
        return None if padded is None else [padded]
    return None


def _per_channel(affine: Affine, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift (channels,), or None where one varies over more than channels."""
    found = []
    for array in (affine.scale, affine.shift):
        if array.size not in (1, channels) or array.shape[-1:] not in ((), (array.size,)):
            return None
        found.append(np.broadcast_to(np.asarray(array, np.float64).reshape(-1), (channels,)))
    return found[0], found[1]


def _composed(first: Affine, second: Affine) -> Affine:
    scale, shift = (np.asarray(array, np.float64) for array in (first.scale, first.shift))
    return Affine(scale * second.scale, shift * second.scale + second.shift)


def _product(first: Dense, second: Dense) -> Dense:
    kernel = first.kernel.astype(np.float64) @ second.kernel
    bias = second.bias
    if first.bias is not None:
        moved = first.bias.astype(np.float64) @ second.kernel
        bias = moved if bias is None else bias + moved
    return Dense(kernel, bias)
