"""Rows by the outputs that they are of."""

from __future__ import annotations

from keras import ops

from augnet.engine.types import Tensor
from augnet.selection import ALL, RowSelection

__all__ = ["ALL", "RowSelection", "position", "taken"]


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


def taken(rows: Tensor, places: Tensor) -> Tensor:
    """Of each image's R rows (batch * R, ...) those at places (batch,) or (batch, S): (batch, [S,] ...).

    Of many rows one is taken, and the others are not copied.
    """
    batch, *chosen = places.shape
    first = ops.arange(batch, dtype="int32") * (rows.shape[0] // batch)
    return ops.take(rows, ops.reshape(first, (batch, *[1] * len(chosen))) + places, axis=0)
