"""Per-pixel moments on the host: from a batch's device results, and of two batches together."""

from __future__ import annotations

from typing import Any

import numpy as np

from augnet.engine.batch import MapMoments


def densify(parts: list[tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]], groups: int) -> MapMoments:
    """All groups' moments from parts: group numbers, counts, (mean, m2, mean_abs, max_abs)."""
    shape = parts[0][2][0].shape[1:]
    count = np.zeros(groups, np.int64)
    maps = [np.zeros((groups, *shape)) for _ in range(4)]
    for numbers, counts, tensors in parts:
        count[numbers] = counts
        for target, tensor in zip(maps, tensors, strict=True):
            target[numbers] = tensor
            target[numbers[counts == 0]] = 0
    return MapMoments(count, *maps)


def merged(first: MapMoments, second: MapMoments) -> MapMoments:
    """Moments of both together (parallel variance, Chan et al. 1979)."""
    total = first.count + second.count

    def column(values: Any) -> np.ndarray:
        return np.asarray(values, np.float64).reshape(-1, *(1,) * (first.mean.ndim - 1))

    share = column(second.count / np.maximum(total, 1))
    shift = second.mean - first.mean
    return MapMoments(
        count=total,
        mean=first.mean + shift * share,
        m2=first.m2 + second.m2 + np.square(shift) * column(first.count) * share,
        mean_abs=first.mean_abs + (second.mean_abs - first.mean_abs) * share,
        max_abs=np.maximum(first.max_abs, second.max_abs),
    )
