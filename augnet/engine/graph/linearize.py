"""A graph differentiated node by node: one forward pass, then any number of rows or tangents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keras import ops, tree

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Node, Value
from augnet.engine.rules.base import Jvp, Kernels, Tensor, Vjp

Rows = dict[Value, Tensor]
"""Cotangents or tangents (row, batch, ...) of some values."""

TapeVjp = Callable[[list[Any]], Sequence[Any]]
"""Cotangents (row, batch, ...), or None, of each output -> of each input, or None."""


@dataclass(frozen=True)
class Linearized:
    """A stretch of a graph at one batch of images.

    Attributes:
        tensors: every value's tensor.
        vjp: cotangents of the stretch's ends -> cotangents of its starts.
        jvp: tangents of its starts -> tangents of its ends, the values that no node of it reads; None where a
            node has no rule for it.
    """

    tensors: dict[Value, Tensor]
    vjp: Callable[[Rows], Rows]
    jvp: Callable[[Rows], Rows] | None


def linearize(nodes: list[Node], starts: dict[Value, Tensor], kernels: Kernels) -> Linearized:
    """The nodes, in topological order, run and differentiated at the given tensors of their starts."""
    tensors = dict(starts)
    depends = set(starts)
    steps: list[tuple[Node, TapeVjp, Jvp | None]] = []
    for node in nodes:
        if not any(value in depends for value in node.inputs):
            tensors.update(zip(node.outputs, node.call(tensors), strict=True))
            continue
        depends.update(node.outputs)
        given = [tensors[value] for value in node.inputs]
        if node.rule is not None:
            output, vjp, jvp = node.rule.linearize(kernels, *given)
            tensors[node.outputs[0]] = output
            steps.append((node, _of_one_output(vjp), jvp))
        else:
            outputs, tape_vjp = backend.linearize(function_of(node), given)
            tensors.update(zip(node.outputs, outputs, strict=True))
            steps.append((node, tape_vjp, None))
    read = {value for node, *_ in steps for value in node.inputs}

    def vjp_of_all(cotangents: Rows) -> Rows:
        rows = dict(cotangents)
        count = next(part.shape[0] for part in cotangents.values())
        for node, vjp, _ in reversed(steps):
            given = [rows.pop(value, None) for value in node.outputs]
            if all(part is None for part in given):
                continue
            for value, part in zip(node.inputs, vjp(given), strict=True):
                if part is not None and value in depends:
                    rows[value] = part if value not in rows else rows[value] + part
        return {value: rows[value] if value in rows else _zeros(count, tensors[value]) for value in starts}

    def jvp_of_all(tangents: Rows) -> Rows:
        rows: dict[Value, Tensor | None] = dict(tangents)
        count = next(part.shape[0] for part in tangents.values())
        for node, _, jvp in steps:
            given = [rows.get(value) for value in node.inputs]
            nothing = jvp is None or all(part is None for part in given)
            rows[node.outputs[0]] = None if jvp is None or nothing else jvp(*given)
        ends = [value for node, *_ in steps for value in node.outputs if value not in read]
        return {
            value: _zeros(count, tensors[value]) if rows[value] is None else rows[value] for value in ends
        }

    forward = all(jvp is not None for *_, jvp in steps)
    return Linearized(tensors, vjp_of_all, jvp_of_all if forward else None)


def _zeros(count: int, tensor: Tensor) -> Tensor:
    """(row, batch, ...) of what nothing flows to."""
    return ops.zeros((count, *tensor.shape), tensor.dtype)


def _of_one_output(vjp: Vjp) -> TapeVjp:
    return lambda given: vjp(given[0])


def function_of(node: Node) -> Callable[..., tuple[Tensor, ...]]:
    """The node as a function of its input tensors."""

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        # A value may be read twice by one node: then each place is a tensor of its own.
        queue = iter(tensors)
        args, kwargs = tree.map_structure(
            lambda leaf: next(queue) if isinstance(leaf, Value) else leaf, (node.args, node.kwargs)
        )
        return tuple(tree.flatten(node.op(*args, **kwargs)))

    return function
