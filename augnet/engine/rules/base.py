"""What a rule is, and what several of them need."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from keras import ops

Pull = Callable[[Any], tuple[Any, ...]]
"""Cotangents (row, batch, *output) -> one (row, batch, *input) per input tensor."""

Push = Callable[..., Any]
"""Tangents (row, batch, *input), one per input, None for zero -> (row, batch, *output)."""


class Paths(Protocol):
    """Chooses among ways to compute the same thing; see tuning.py."""

    def choose(
        self, key: str, ways: dict[str, Callable[[Any], Any]], shape: tuple[int, ...], dtype: str
    ) -> Callable:
        """The way to use for an argument of this shape."""


class Rule(Protocol):
    """An operation of one output tensor."""

    def __call__(self, *tensors: Any) -> Any:
        """The output (batch, ...)."""

    def linearize(self, paths: Paths, *tensors: Any) -> tuple[Any, Pull, Push | None]:
        """The output, its pull-back and, where there is one, its push-forward at these tensors."""


def folded(rows: Any) -> Any:
    """(row, batch, ...) -> (row * batch, ...)."""
    return ops.reshape(rows, (rows.shape[0] * rows.shape[1], *rows.shape[2:]))


def unfolded(rows: Any, count: int) -> Any:
    """(row * batch, ...) -> (row, batch, ...)."""
    return ops.reshape(rows, (count, rows.shape[0] // count, *rows.shape[1:]))


def through(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a batch, applied to (row, batch, ...)."""

    def apply(rows: Any) -> Any:
        return unfolded(function(folded(rows)), rows.shape[0])

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
