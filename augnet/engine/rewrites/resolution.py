"""Convolutions moved to where there are fewer pixels.

A pointwise convolution commutes with upsampling and with means over pixels. A larger one that reads an
upsampled tensor, alone or beside others, is joined with the upsampling.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from augnet.engine.graph import Graph, Node, Value
from augnet.engine.rules.combining import Add, Concatenate
from augnet.engine.rules.convolution import Convolution
from augnet.engine.rules.linear import Dense
from augnet.engine.rules.pooling import AveragePool, GlobalAverage
from augnet.engine.rules.upsampling import Upsample, UpsampledConvolution

Shapes = dict[Value, tuple[int, ...]]


def at_fewer_pixels(graph: Graph, shapes: Shapes) -> Graph:
    """The graph with convolutions moved past what changes the number of pixels, or joined with it."""
    users = graph.users()
    producers: dict[Value, Node] = {}
    nodes: list[Node] = []

    def only_source(value: Value) -> Node | None:
        """The node that makes the value, if a single node reads it."""
        shared = value is graph.output or len(users.get(value, ())) > 1
        return None if shared else producers.get(value)

    for node in graph.nodes:
        source = only_source(node.inputs[0]) if node.inputs else None
        sources, made = [source], None if source is None else _swapped(source, node)
        if made is None and _is_plain(node.op):
            beside = source if source is not None and _joins_channels(source) else None
            parts = (beside or node).inputs
            upsampled = {value: up for value in parts if (up := only_source(value)) and _upsamples(up)}
            if upsampled and min(map(min, node.op.pads_back(shapes[parts[0]][:2]))) >= 0:
                sources = [*upsampled.values(), beside]
                made = _joined(node, parts, upsampled, shapes)
        if made is not None:
            nodes = [other for other in nodes if other not in sources]
        for added in made or [node]:
            nodes.append(added)
            producers.update(dict.fromkeys(added.outputs, added))
    return Graph(graph.input, graph.output, nodes)


def _upsamples(node: Node) -> bool:
    return isinstance(node.op, Upsample)


def _joins_channels(node: Node) -> bool:
    return isinstance(node.op, Concatenate) and node.op.axis == 3


def _is_plain(op: Any) -> bool:
    return isinstance(op, Convolution) and op.strides == (1, 1) == op.dilation


def _is_pointwise(op: Any) -> bool:
    return _is_plain(op) and op.kernel.shape[:2] == (1, 1) and op.padding in ("same", "valid")


def _swapped(first: Node, second: Node) -> list[Node] | None:
    """The two in the other order, or None."""
    op, after = first.op, second.op
    if isinstance(op, Upsample) and _is_pointwise(after):
        steps = [after, op]
    elif _is_pointwise(op) and isinstance(after, AveragePool) and max(after.strides) > 1:
        steps = [after, op]
    elif _is_pointwise(op) and isinstance(after, GlobalAverage):
        steps = [after, op if after.keepdims else Dense(op.kernel[0, 0], op.bias)]
    else:
        return None
    middle = Value((), first.outputs[0].dtype, first.name)
    return [
        Node(steps[0], first.inputs, {}, (middle,), second.name),
        Node(steps[1], (middle,), {}, second.outputs, first.name),
    ]


def _joined(
    node: Node, parts: tuple[Value, ...], upsampled: dict[Value, Node], shapes: Shapes
) -> list[Node]:
    """The convolution of these parts, side by side, as a sum of one of each upsampled part and of the rest."""
    kernels = np.split(node.op.kernel, np.cumsum([shapes[part][2] for part in parts])[:-1], axis=2)
    rest = [(part, kernel) for part, kernel in zip(parts, kernels, strict=True) if part not in upsampled]
    bias, made, terms = node.op.bias, [], []

    def term(op: Any, inputs: tuple[Value, ...]) -> None:
        terms.append(Value((), node.outputs[0].dtype, node.name))
        made.append(Node(op, inputs, {}, (terms[-1],), node.name))

    for part, kernel in zip(parts, kernels, strict=True):
        if part in upsampled:
            up = upsampled[part]
            term(UpsampledConvolution(up.op, replace(node.op, kernel=kernel, bias=bias)), up.inputs)
            bias = None
    if rest:
        values, own = zip(*rest, strict=True)
        if len(values) > 1:
            beside = Value((), values[0].dtype, node.name)
            made.append(Node(Concatenate(3), values, {}, (beside,), node.name))
            values = (beside,)
        term(replace(node.op, kernel=np.concatenate(own, axis=2), bias=None), values)
    if len(terms) == 1:
        return [*made[:-1], Node(made[-1].op, made[-1].inputs, {}, node.outputs, node.name)]
    return [*made, Node(Add((1,) * len(terms)), tuple(terms), {}, node.outputs, node.name)]
