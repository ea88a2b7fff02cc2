"""Rows measured a block at a time: what is made of a block stays in the caches."""

from __future__ import annotations

from collections.abc import Callable

from keras import ops

from augnet.engine.backends import backend
from augnet.engine.types import Tensor

BLOCK_ELEMENTS = 2**21
"""Of the rows, in a block."""

Block = Callable[[Tensor, int], tuple[Tensor, ...]]
"""Where a block begins, a tensor, and its length -> tensors."""


def fitting(total: int, elements: int) -> int:
    """How many of `total` parts, of so many elements each, go into a block; one at least."""
    return max(1, min(total, BLOCK_ELEMENTS // elements))


def joined(function: Block, total: int, length: int) -> tuple[Tensor, ...]:
    """What the function returns for 0 .. total, in blocks of so many, one behind the other along axis 0."""
    whole = backend.mapped(lambda step: function(step * length, length), total // length)
    parts = [ops.reshape(part, (-1, *part.shape[2:])) for part in whole]
    if rest := total % length:
        last = function(total - rest, rest)
        parts = [ops.concatenate(pair, axis=0) for pair in zip(parts, last, strict=True)]
    return tuple(parts)


def summed(function: Block, total: int, length: int) -> tuple[Tensor, ...]:
    """The sum of what the function returns for 0 .. total, in blocks of so many."""
    sums = backend.summed(lambda step: function(step * length, length), total // length)
    if rest := total % length:
        sums = tuple(map(ops.add, sums, function(total - rest, rest)))
    return sums
