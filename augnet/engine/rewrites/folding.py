"""Scale and shift folded into the convolution or dense layer beside them, and dense layers into each other.

BatchNormalization at inference, Rescaling and Normalization are x * scale + shift per channel. Folded away
they cost nothing, neither in the forward pass nor in any backward pass. All sums are made in float64.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from augnet.engine.graph.graph import Graph, Node, Shapes, Value
from augnet.engine.rules.convolution import Convolution, Depthwise
from augnet.engine.rules.elementwise import Chain, Clip, Elementwise
from augnet.engine.rules.linear import Affine, Dense
from augnet.engine.rules.pooling import MaxPool
from augnet.engine.rules.shaping import Pad


def fold_affine(graph: Graph, shapes: Shapes) -> Graph:
    """The graph with as many pairs of neighbours folded as can be.

    Args:
        shapes: every value's shape without the batch; those of new values are added.
    """
    nodes = list(graph.nodes)
    while True:
        made = _fold_one(Graph(graph.input, graph.output, nodes), shapes)
        if made is None:
            return Graph(graph.input, graph.output, nodes)
        nodes = made


def _fold_one(graph: Graph, shapes: Shapes) -> list[Node] | None:
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
        steps = _pair(first.op, second.op, shapes[first.inputs[0]], shapes[middle])
        if steps is None:
            continue
        made = []
        value = first.inputs[0]
        for i, step in enumerate(steps):
            output = second.outputs[0] if i == len(steps) - 1 else Value((), middle.dtype, middle.name)
            if output is not second.outputs[0]:
                shapes[output] = shapes[value]  # only shifts and scales are put in between
            made.append(Node(step, (value,), {}, (output,), second.name))
            value = output
        at = nodes.index(second)
        nodes[at : at + 1] = made
        nodes.remove(first)
        gone.update((first, second))
        changed = True
    return nodes if changed else None


def _pair(first: Any, second: Any, shape: tuple[int, ...], middle: tuple[int, ...]) -> list[Any] | None:
    """What to put in place of the two, or None. shape is that of first's input, middle that between them."""
    if isinstance(second, Affine):
        if second.scale is None and second.shift is None:
            return [first]
        if isinstance(first, Affine):
            return [_composed(first, second)]
        if isinstance(first, Convolution | Depthwise | Dense):
            return _scaled_after(first, second, middle[-1])
    if isinstance(first, Affine):
        if first.scale is None and first.shift is None:
            return [second]
        if isinstance(second, Convolution | Depthwise | Dense):
            return _scaled_before(first, second, middle)
    if isinstance(first, Dense) and isinstance(second, Dense):
        inner = first.kernel.shape[1]
        if (
            inner * (first.kernel.shape[0] + second.kernel.shape[1])
            >= first.kernel.shape[0] * second.kernel.shape[1]
        ):
            return [_product(first, second)]
    if isinstance(first, Pad) and isinstance(second, Convolution | Depthwise):
        return _padded(first, second)
    return None


def _per_channel(array: np.ndarray | None, channels: int, default: float) -> np.ndarray | None:
    """The array as (channels,), or None where it varies over more than channels."""
    if array is None:
        return np.full(channels, default)
    if any(size != 1 for size in array.shape[:-1]) or array.shape[-1:] not in ((), (1,), (channels,)):
        return None
    return np.broadcast_to(np.asarray(array, np.float64).reshape(-1), (channels,))


def _composed(first: Affine, second: Affine) -> Affine:
    scales = [np.asarray(op.scale, np.float64) for op in (first, second) if op.scale is not None]
    shift = None if first.shift is None else np.asarray(first.shift, np.float64)
    if shift is not None and second.scale is not None:
        shift = shift * second.scale
    if second.shift is not None:
        shift = np.asarray(second.shift, np.float64) if shift is None else shift + second.shift
    return Affine(np.multiply(*scales) if len(scales) == 2 else scales[0] if scales else None, shift)


def _scaled_after(first: Any, second: Affine, channels: int) -> list[Any] | None:
    scale, shift = _per_channel(second.scale, channels, 1), _per_channel(second.shift, channels, 0)
    if scale is None or shift is None:
        return None
    kernel = first.kernel.astype(np.float64)
    kernel = kernel * (scale.reshape(kernel.shape[2:]) if isinstance(first, Depthwise) else scale)
    bias = shift if first.bias is None else first.bias * scale + shift
    return [_with(first, kernel, bias)]


def _scaled_before(first: Affine, second: Any, shape: tuple[int, ...]) -> list[Any] | None:
    channels = shape[-1]
    scale, shift = _per_channel(first.scale, channels, 1), _per_channel(first.shift, channels, 0)
    if scale is None or shift is None:
        return None
    axis = 0 if isinstance(second, Dense) else 2
    kernel = second.kernel.astype(np.float64)
    size = [1] * kernel.ndim
    size[axis] = channels
    scaled = kernel * scale.reshape(size)
    if not shift.any():
        return [_with(second, scaled, second.bias)]
    if isinstance(second, Dense) or second.padding == "valid" or not np.any(_pads(second)):
        spatial = kernel * shift.reshape(size)
        if isinstance(second, Dense):
            more = spatial.sum(axis=0)
        elif isinstance(second, Depthwise):
            more = spatial.sum(axis=(0, 1)).reshape(-1)
        else:
            more = spatial.sum(axis=(0, 1, 2))
        return [_with(second, scaled, more if second.bias is None else second.bias + more)]
    if first.scale is None or not scale.all():
        return None  # the shift has to stay: the zeros round the image do not get it
    return [Affine(None, shift / scale), _with(second, scaled, second.bias)]


def _pads(op: Any) -> Any:
    return (1,) if op.padding == "same" else op.padding


def _with(op: Any, kernel: np.ndarray, bias: np.ndarray | None) -> Any:
    if isinstance(op, Dense):
        return Dense(kernel, bias)
    return type(op)(kernel, bias, op.strides, op.padding, op.dilation)


def _product(first: Dense, second: Dense) -> Dense:
    kernel = first.kernel.astype(np.float64) @ second.kernel
    bias = second.bias
    if first.bias is not None:
        moved = first.bias.astype(np.float64) @ second.kernel
        bias = moved if bias is None else bias + moved
    return Dense(kernel, bias)


def _padded(first: Pad, second: Any) -> list[Any] | None:
    if second.padding == "same" or min(*first.rows, *first.columns) < 0:
        return None
    own = ((0, 0), (0, 0)) if second.padding == "valid" else second.padding
    pads = tuple((a + c, b + d) for (a, b), (c, d) in zip((first.rows, first.columns), own, strict=True))
    return [type(second)(second.kernel, second.bias, second.strides, pads, second.dilation)]


def fuse_elementwise(graph: Graph) -> Graph:
    """Elementwise operations that follow each other, and a max-pool after them, joined.

    Their slopes are multiplied once, and not with every cotangent.
    """
    users = graph.users()
    joined: dict[Value, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node.op, Affine | Clip | Elementwise | MaxPool) and len(node.inputs) == 1:
            before = joined.get(node.inputs[0])
            if before is not None and len(users[node.inputs[0]]) == 1 and node.inputs[0] is not graph.output:
                nodes.remove(before)
                if isinstance(node.op, MaxPool):
                    op: Any = replace(node.op, before=Chain(_steps(before.op)))
                else:
                    op = Chain((*_steps(before.op), *_steps(node.op)))
                node = Node(op, before.inputs, {}, node.outputs, node.name)
            if not isinstance(node.op, MaxPool):
                joined[node.outputs[0]] = node
        nodes.append(node)
    return Graph(graph.input, graph.output, nodes)


def _steps(op: Any) -> tuple[Any, ...]:
    return op.steps if isinstance(op, Chain) else (op,)
