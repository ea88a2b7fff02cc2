"""Per-pixel moments on the host: from a batch's device results, and of two batches together."""

from __future__ import annotations

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


def merge_moments(into: MapMoments, other: MapMoments) -> None:
    """Takes the rows of `other` into `into`, in place (parallel variance, Chan, Golub and LeVeque 1979).

    Maps go one group at a time: temporaries of one map stay in the caches, and groups without rows cost
    nothing. Moments of numbers, whose arrays are (group,), go all at once.
    """
    seen = np.flatnonzero(other.count)
    numbers = into.mean.ndim == 1
    for part in [seen] if numbers else [slice(group, group + 1) for group in seen]:
        before, added = into.count[part].copy(), other.count[part]
        into.count[part] += added
        if not before.any():
            for name in ("mean", "m2", "mean_abs", "max_abs"):
                getattr(into, name)[part] = getattr(other, name)[part]
            continue
        weight = (added / (before + added)).reshape(-1, *(1,) * (into.mean.ndim - 1))
        shift = other.mean[part] - into.mean[part]
        into.m2[part] += np.square(shift) * (before.reshape(weight.shape) * weight)
        into.m2[part] += other.m2[part]
        shift *= weight
        into.mean[part] += shift
        into.mean_abs[part] += (other.mean_abs[part] - into.mean_abs[part]) * weight
        into.max_abs[part] = np.maximum(into.max_abs[part], other.max_abs[part])
