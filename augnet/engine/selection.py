"""Rows by the outputs that they are of."""

from __future__ import annotations

from keras import ops

from augnet.engine.types import Tensor
from augnet.selection import ALL, RowSelection

__all__ = ["ALL", "RowSelection", "position"]


def position(selected: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where each wanted output stands among the selected.

    Args:
        selected: (batch, R) int32 tensor.
        wanted: (batch, S) int32 tensor.

    Returns:
        positions (batch, S) int32, 0 where absent, and found (batch, S) bool.
    """
    same = ops.equal(selected[:, None, :], wanted[:, :, None])
    return ops.cast(ops.argmax(ops.cast(same, "int32"), axis=-1), "int32"), ops.any(same, axis=-1)
