"""A graph differentiated node by node: one forward pass, then any number of rows or tangents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from keras import ops

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Node, Value
from augnet.engine.kernels import Kernels
from augnet.engine.rules.base import Jvp
from augnet.engine.types import Tensor

Rows = dict[Value, Tensor]
"""Cotangents or tangents (row, batch, ...) of some values."""


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


@dataclass(frozen=True)
class _Step:
    """A node at the tensors of its inputs: `vjp` takes a cotangent, or None, of each of its outputs."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    vjp: Callable[..., Sequence[Tensor | None]]
    jvp: Jvp | None


def linearize(nodes: list[Node], starts: dict[Value, Tensor], kernels: Kernels) -> Linearized:
    """The nodes, in topological order, run and differentiated at the given tensors of their starts."""
    tensors = dict(starts)
    depends = set(starts)
    steps: list[_Step] = []
    for node in nodes:
        if not any(value in depends for value in node.inputs):
            node.run(tensors)
            continue
        depends.update(node.outputs)
        if node.rule is not None:
            output, vjp, jvp = node.rule.linearize(kernels, *(tensors[value] for value in node.inputs))
            tensors[node.outputs[0]] = output
            steps.append(_Step(node.inputs, node.outputs, vjp, jvp))
        else:
            inputs = tuple(dict.fromkeys(node.inputs))  # a tape gives the gradient of all places of a tensor
            function = partial(_called, node, inputs)
            outputs, tape_vjp = backend.linearize(function, [tensors[value] for value in inputs])
            tensors.update(zip(node.outputs, outputs, strict=True))
            steps.append(_Step(inputs, node.outputs, tape_vjp, None))
    read = {value for step in steps for value in step.inputs}

    def vjp_of_all(cotangents: Rows) -> Rows:
        rows = dict(cotangents)
        count = next(part.shape[0] for part in cotangents.values())
        for step in reversed(steps):
            given = [_typed(rows.pop(value, None), tensors[value]) for value in step.outputs]
            if all(part is None for part in given):
                continue
            for value, part in zip(step.inputs, step.vjp(*given), strict=True):
                if part is not None and value in depends:
                    part = _typed(part, tensors[value])
                    rows[value] = part if value not in rows else rows[value] + part
        return {value: rows[value] if value in rows else _zeros(count, tensors[value]) for value in starts}

    def jvp_of_all(tangents: Rows) -> Rows:
        rows: dict[Value, Tensor | None] = dict(tangents)
        count = next(part.shape[0] for part in tangents.values())
        for step in steps:
            given = [_typed(rows.get(value), tensors[value]) for value in step.inputs]
            nothing = step.jvp is None or all(part is None for part in given)
            rows[step.outputs[0]] = None if step.jvp is None or nothing else step.jvp(*given)
        ends = [value for step in steps for value in step.outputs if value not in read]
        return {
            value: _zeros(count, tensors[value]) if rows[value] is None else rows[value] for value in ends
        }

    forward = all(step.jvp is not None for step in steps)
    return Linearized(tensors, vjp_of_all, jvp_of_all if forward else None)


def _called(node: Node, values: tuple[Value, ...], *tensors: Tensor) -> tuple[Tensor, ...]:
    """The node on the tensors of these values, each of which it may read several times."""
    return node(*(tensors[values.index(value)] for value in node.inputs))


def _typed(rows: Tensor | None, tensor: Tensor) -> Tensor | None:
    """The rows in the dtype of their tensor: layers convert what they are given, and say so nowhere."""
    return rows if rows is None or rows.dtype == tensor.dtype else ops.cast(rows, tensor.dtype)


def _zeros(count: int, tensor: Tensor) -> Tensor:
    """(row, batch, ...) of what nothing flows to."""
    return ops.zeros((count, *tensor.shape), tensor.dtype)
