"""Convolutions moved to where there are fewer pixels.

A pointwise convolution commutes with upsampling and with means over pixels. A larger one that reads an
upsampled tensor, alone or beside others, is joined with the upsampling.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from augnet.engine.graph.graph import Graph, Node, Shapes, Value
from augnet.engine.rules.combining import Add, Concatenate
from augnet.engine.rules.convolution import Convolution
from augnet.engine.rules.dense import Dense
from augnet.engine.rules.global_pooling import GlobalAverage
from augnet.engine.rules.pooling import AveragePool
from augnet.engine.rules.upsampling import Upsample, UpsampledConvolution
from augnet.engine.types import Op


def move_convolutions(graph: Graph, shapes: Shapes) -> Graph:
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
        sources, instead = [source], None if source is None else _swapped(source, node)
        if instead is None and _is_plain(node.op):
            beside = source if source is not None and _joins_channels(source.op) else None
            parts = (beside or node).inputs
            made = {part: up for part in parts if (up := only_source(part)) is not None}
            upsampled = {part: up for part, up in made.items() if isinstance(up.op, Upsample)}
            if upsampled:
                sources, instead = [*upsampled.values(), beside], _joined(node, parts, upsampled, shapes)
        if instead is not None:
            nodes = [other for other in nodes if other not in sources]
        for added in instead or [node]:
            nodes.append(added)
            producers.update(dict.fromkeys(added.outputs, added))
    return Graph(graph.input, graph.output, nodes)


def _joins_channels(op: Op) -> bool:
    return isinstance(op, Concatenate) and op.axis == 3


def _is_plain(op: Op) -> bool:
    return isinstance(op, Convolution) and op.strides == (1, 1) == op.dilation


def _is_pointwise(op: Op) -> bool:
    return isinstance(op, Convolution) and op.pointwise


def _swapped(first: Node, second: Node) -> list[Node] | None:
    """The two in the other order, or None."""
    op: Op = first.op
    after: Op = second.op
    averages = isinstance(after, AveragePool | GlobalAverage)
    if not ((_is_pointwise(op) and averages) or (isinstance(op, Upsample) and _is_pointwise(after))):
        return None
    if isinstance(after, GlobalAverage) and not after.keepdims:
        op = Dense(op.kernel[0, 0], op.bias)
    middle = Value((), first.outputs[0].dtype, first.name)
    return [
        Node(after, first.inputs, {}, (middle,), second.name),
        Node(op, (middle,), {}, second.outputs, first.name),
    ]


def _joined(
    node: Node, parts: tuple[Value, ...], upsampled: dict[Value, Node], shapes: Shapes
) -> list[Node] | None:
    """The convolution of these parts as the sum of one of each upsampled part and one of the rest."""
    op: Op = node.op
    if min(map(min, op.pads_back(shapes[parts[0]][:2]))) < 0:
        return None
    kernels = np.split(op.kernel, np.cumsum([shapes[part][2] for part in parts])[:-1], axis=2)
    bias, nodes = op.bias, []
    rest, rest_kernels = [], []
    for part, kernel in zip(parts, kernels, strict=True):
        if part in upsampled:
            up: Op = upsampled[part]
            own = UpsampledConvolution(up.op, replace(op, kernel=kernel, bias=bias))
            nodes.append(Node(own, up.inputs, {}, (_like(node),), node.name))
            bias = None
        else:
            rest.append(part)
            rest_kernels.append(kernel)
    terms = [term.outputs[0] for term in nodes]
    if rest:
        if len(rest) > 1:
            nodes.append(Node(Concatenate(3), tuple(rest), {}, (_like(node),), node.name))
            rest = list(nodes[-1].outputs)
        own = replace(op, kernel=np.concatenate(rest_kernels, axis=2), bias=None)
        terms.append(_like(node))
        nodes.append(Node(own, tuple(rest), {}, (terms[-1],), node.name))
    if len(terms) == 1:
        return [replace(nodes[0], outputs=node.outputs)]
    return [*nodes, Node(Add((1,) * len(terms)), tuple(terms), {}, node.outputs, node.name)]


def _like(node: Node) -> Value:
    """A new value of the dtype that the node makes."""
    return Value((), node.outputs[0].dtype, node.name)
