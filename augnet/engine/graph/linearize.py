"""A graph differentiated node by node: one forward pass, then any number of rows or tangents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import tree

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Node, Value
from augnet.engine.rules.base import Kernels

Rows = dict[Value, Any]
"""Cotangents or tangents (row, batch, ...) of some values."""


@dataclass(frozen=True)
class Linearized:
    """A stretch of a graph at one batch of images.

    Attributes:
        tensors: every value's tensor.
        vjp: cotangents of the stretch's ends -> cotangents of its starts.
        jvp: tangents of its starts -> tangents of its ends; None where a node has no rule for it.
    """

    tensors: dict[Value, Any]
    vjp: Callable[[Rows], Rows]
    jvp: Callable[[Rows], Rows] | None


def linearize(nodes: list[Node], starts: dict[Value, Any], kernels: Kernels) -> Linearized:
    """The nodes, in topological order, run and differentiated at the given tensors of their starts."""
    tensors = dict(starts)
    depends = set(starts)
    vjps: list[tuple[Node, tuple[Value, ...], Any, Any]] = []
    for node in nodes:
        inputs = node.inputs
        if not any(value in depends for value in inputs):
            tensors.update(zip(node.outputs, node.call(tensors), strict=True))
            continue
        depends.update(node.outputs)
        given = [tensors[value] for value in inputs]
        if hasattr(node.op, "linearize"):
            made, vjp, jvp = node.op.linearize(kernels, *given)
            tensors[node.outputs[0]] = made
            vjps.append((node, inputs, _one_output(vjp), jvp))
        else:
            made, vjp = backend.linearize(function_of(node), given)
            tensors.update(zip(node.outputs, made, strict=True))
            vjps.append((node, inputs, vjp, None))

    def vjp_of_all(cotangents: Rows) -> Rows:
        rows = dict(cotangents)
        for node, inputs, vjp, _ in reversed(vjps):
            given = [rows.pop(value, None) for value in node.outputs]
            if all(part is None for part in given):
                continue
            for value, part in zip(inputs, vjp(given), strict=True):
                if part is not None and value in depends:
                    rows[value] = part if value not in rows else rows[value] + part
        return {value: rows[value] for value in starts if value in rows}

    def jvp_of_all(tangents: Rows) -> Rows:
        rows = dict(tangents)
        for node, inputs, _, jvp in vjps:
            rows[node.outputs[0]] = jvp(*(rows.get(value) for value in inputs))
        return rows

    jvps = all(jvp is not None for *_, jvp in vjps)
    return Linearized(tensors, vjp_of_all, jvp_of_all if jvps else None)


def _one_output(vjp: Any) -> Any:
    return lambda given: vjp(given[0])


def function_of(node: Node) -> Callable[..., tuple[Any, ...]]:
    """The node as a function of its input tensors."""

    def function(*tensors: Any) -> tuple[Any, ...]:
        # A value may be read twice by one node: then each place is a tensor of its own.
        queue = iter(tensors)
        args, kwargs = tree.map_structure(
            lambda leaf: next(queue) if isinstance(leaf, Value) else leaf, (node.args, node.kwargs)
        )
        return tuple(tree.flatten(node.op(*args, **kwargs)))

    return function
