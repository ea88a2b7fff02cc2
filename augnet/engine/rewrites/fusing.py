"""Elementwise operations that follow each other, as one.

Their slopes are multiplied once, and not with every cotangent.
"""

from __future__ import annotations

from augnet.engine.graph.graph import Graph, Node, Value
from augnet.engine.rules.base import Elementwise, Rule
from augnet.engine.rules.elementwise import Chain


def fuse_elementwise(graph: Graph) -> Graph:
    """The graph with chains of elementwise operations, and what can take one in, joined."""
    users = graph.users()
    chains: dict[Value, Node] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        before = chains.get(node.inputs[0]) if len(node.inputs) == 1 else None
        if before is not None and len(users[node.inputs[0]]) == 1 and node.inputs[0] is not graph.output:
            fused = _fused(before.rule, node.rule)
            if fused is not None:
                nodes.remove(before)
                node = Node(fused, before.inputs, {}, node.outputs, node.name)
        if isinstance(node.op, Elementwise):
            chains[node.outputs[0]] = node
        nodes.append(node)
    return Graph(graph.input, graph.output, nodes)


def _fused(before: Rule | None, rule: Rule | None) -> Rule | None:
    if rule is None or not isinstance(before, Elementwise):
        return None
    if isinstance(rule, Elementwise):
        return Chain((*_steps(before), *_steps(rule)))
    return rule.fused_after(before)


def _steps(rule: Elementwise) -> tuple[Elementwise, ...]:
    return rule.steps if isinstance(rule, Chain) else (rule,)
