"""Per-pixel moments of Jacobian rows, kept over blocks of pixels; `engine.measures.moments` merges them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from augnet.engine.batch import MapMoments, pool_to

FLOAT64_MAPS = ("mean", "m2", "mean_abs", "max_abs")
"""The (group, height, width, channel) arrays of MapMoments."""

MOMENTS = ("count", *FLOAT64_MAPS)
"""The arrays of MapMoments."""


def without_nonfinite(moments: MapMoments) -> MapMoments:
    """The moments without the groups that hold a NaN or Inf: better a few rows less than no dataset map."""
    axes = (1, 2, 3)
    finite = np.isfinite(moments.mean).all(axes) & np.isfinite(moments.m2).all(axes)
    return replace(moments, count=np.where(finite, moments.count, 0))


def choose_map_pool(groups: int, height: int, width: int, channels: int, budget_bytes: int) -> int:
    """The smallest block side, in pixels, with which the maps of one MapMoments fit in `budget_bytes`.

    The budget is for the four float64 maps of every group, an output or a label. When not even one block for
    the whole image fits, that is what comes back.
    """
    per_block = len(FLOAT64_MAPS) * np.dtype(np.float64).itemsize * groups * channels
    longest = max(height, width)
    for pool in range(1, longest):
        if per_block * -(-height // pool) * -(-width // pool) <= budget_bytes:
            return pool
    return longest


def shrunk(images: np.ndarray, cells: int) -> np.ndarray:
    """`block_mean` over the smallest blocks of which at most so many lie along a side."""
    return block_mean(images, pool_to(cells, *images.shape[-3:-1]))


def block_mean(images: np.ndarray, pool: int) -> np.ndarray:
    """Means over blocks of pool x pool pixels; the last block of a side holds what is left.

    Args:
        images: (..., height, width, channel), any real type.

    Returns:
        (..., ceil(height / pool), ceil(width / pool), channel) float64.
    """
    if pool == 1:
        return images.astype(np.float64)
    height, width = images.shape[-3:-1]
    tops, lefts = np.arange(0, height, pool), np.arange(0, width, pool)
    sums = np.add.reduceat(images, lefts, axis=-2, dtype=np.float64)
    sums = np.add.reduceat(sums, tops, axis=-3)
    sizes = np.diff(tops, append=height)[:, None] * np.diff(lefts, append=width)
    return sums / sizes[:, :, None]
