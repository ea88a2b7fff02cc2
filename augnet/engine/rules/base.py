"""What a rule is, and what several of them need."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from keras import ops

Vjp = Callable[[Any], tuple[Any, ...]]
"""Vector-Jacobian product: cotangents (row, batch, *output) -> one (row, batch, *input) per input tensor."""

Jvp = Callable[..., Any]
"""Jacobian-vector product: tangents (row, batch, *input), one per input, None for 0 -> (row, batch, *output)."""


class Kernels(Protocol):
    """Chooses among kernels that compute the same thing; see tuning.py."""

    def choose(
        self, key: str, candidates: dict[str, Callable[[Any], Any]], shape: tuple[int, ...], dtype: str, /
    ) -> Callable[[Any], Any]:
        """The candidate to use for an argument of this shape and dtype.

        Args:
            key: what the computation is, the batch aside. It is stored with what was chosen.
            candidates: functions of one tensor by name, the likeliest first. They hold arrays, shapes and
                dtypes and never a tensor of the program that is being traced, so they may be kept, and be
                timed in a program of their own, after that trace has ended.
        """


class Rule(Protocol):
    """An operation of one output tensor."""

    def __call__(self, *tensors: Any) -> Any:
        """The output (batch, ...)."""

    def linearize(self, kernels: Kernels, *tensors: Any) -> tuple[Any, Vjp, Jvp | None]:
        """The output, and at these tensors the vjp and, where there is one, the jvp."""


def merge_rows(rows: Any) -> Any:
    """(row, batch, ...) -> (row * batch, ...)."""
    return ops.reshape(rows, (rows.shape[0] * rows.shape[1], *rows.shape[2:]))


def split_rows(rows: Any, count: int) -> Any:
    """(row * batch, ...) -> (row, batch, ...)."""
    return ops.reshape(rows, (count, rows.shape[0] // count, *rows.shape[1:]))


def on_rows(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a batch, applied to (row, batch, ...)."""

    def apply(rows: Any) -> Any:
        return split_rows(function(merge_rows(rows)), rows.shape[0])

    return apply


def reduced_to(rows: Any, shape: tuple[int, ...]) -> Any:
    """Cotangents (row, batch, *output) of a broadcast tensor, summed to (row, *shape) of its own."""
    lead = len(rows.shape) - 1 - len(shape)
    if lead:  # the tensor had fewer axes: those in front, after the row, were added
        rows = ops.sum(rows, axis=tuple(range(1, 1 + lead)))
    axes = tuple(i + 1 for i, size in enumerate(shape) if size == 1 and rows.shape[i + 1] != 1)
    return ops.sum(rows, axis=axes, keepdims=True) if axes else rows


def split(x: Any, sizes: list[int], axis: int) -> list[Any]:
    """Consecutive parts of these sizes along an axis."""
    if len(sizes) == 1:
        return [x]
    # As a table of lines with what is split at their ends: slices of few axes are copied faster.
    axis %= len(x.shape)
    inner = math.prod(x.shape[axis + 1 :])
    table = ops.reshape(x, (math.prod(x.shape[:axis]), x.shape[axis] * inner))
    parts, start = [], 0
    for size in sizes:
        part = table[:, start * inner : (start + size) * inner]
        parts.append(ops.reshape(part, (*x.shape[:axis], size, *x.shape[axis + 1 :])))
        start += size
    return parts
