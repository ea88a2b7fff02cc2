"""Rules in place of the Keras layers and operations that they serve, see rules/registry.py.

Only what a layer certainly means is replaced; every other layer stays what it is and is differentiated by a
tape. Weights are copied into the rules: an audit's model does not change while it is audited.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from augnet.engine.graph.final_activation import WithoutActivation
from augnet.engine.graph.graph import Graph, Node, Shapes, is_altered
from augnet.engine.rules.affine import Affine
from augnet.engine.rules.base import Rule
from augnet.engine.rules.registry import Builder, Call, activation_rules, builder_of
from augnet.engine.types import Op

ARGUMENTS = frozenset(["training", "query", "value", "key"])
"""Of a layer's call, beside its tensors: others change what it computes."""


def with_rules(graph: Graph, shapes: Shapes) -> Graph:
    """The graph with rules in place of the layers and operations that have them.

    Args:
        shapes: every value's shape without the batch.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        nodes.extend(_replacement(Call(node, shapes)) or [node])
    return Graph(graph.input, graph.output, nodes)


def _replacement(call: Call) -> Sequence[Node] | None:
    """Nodes of rules that stand for the call, or None."""
    source = call.node.source
    builder = _builder(source)
    if builder is None:
        return None
    is_layer = isinstance(source, keras.layers.Layer)
    if is_layer and not _is_plain(source, call.node):
        return None
    built = builder(source, call)
    if built is None or isinstance(next(iter(built), None), Node):
        return built  # type: ignore[return-value]
    rules: list[Rule] = list(built)  # type: ignore[arg-type]
    activation = getattr(source, "activation", None) if is_layer else None
    if activation is not None and not isinstance(call.node.op, WithoutActivation):
        ending = activation_rules(activation, call)
        if ending is None:
            return None
        rules.extend(ending)
    return _in_line(call, rules or [Affine()])


def _builder(source: Op) -> Builder | None:
    is_own = isinstance(source, keras.Operation) and type(source).__module__.startswith("keras.")
    return builder_of(type(source)) or (builder_of(type(source).__name__) if is_own else None)


def _is_plain(layer: Op, node: Node) -> bool:
    """Whether the layer is called for its one result, and its weights are what they seem."""
    given = {name for name, value in node.kwargs.items() if value is not None}
    return (
        len(node.outputs) == 1
        and given <= ARGUMENTS
        and not is_altered(layer)
        and getattr(layer, "data_format", None) != "channels_first"
    )


def _in_line(call: Call, rules: Sequence[Rule]) -> list[Node]:
    """The rules one after the other; the first reads all of the call's inputs."""
    given = call.node.inputs
    for rule in rules:
        given = (call.put(rule, *given),)
    return call.replacement()
