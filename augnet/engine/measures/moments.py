"""Per-pixel moments on the host: from a batch's device results, and of two batches together."""

from __future__ import annotations

import numpy as np

from augnet.engine.batch import MapMoments


def empty_moments(groups: int, *shape: int) -> MapMoments:
    """Moments of no rows, to gather others in: of maps (height, width, channel), or of numbers ()."""
    return MapMoments(np.zeros(groups, np.int64), *(np.zeros((groups, *shape)) for _ in range(4)))


def densify(parts: list[tuple[np.ndarray, np.ndarray, tuple[np.ndarray, ...]]], groups: int) -> MapMoments:
    """All groups' moments from parts: group numbers, counts, (mean, m2, mean_abs, max_abs).

    They may be the parts' own memory, and are zero where a group has no rows.
    """
    numbers = np.concatenate([part[0] for part in parts])
    count = np.zeros(groups, np.int64)
    count[numbers] = np.concatenate([part[1] for part in parts])
    tensors = zip(*(part[2] for part in parts), strict=True)
    maps = [each[0] if len(parts) == 1 else np.concatenate(each) for each in tensors]
    if not np.array_equal(numbers, np.arange(groups)):
        maps = [_scattered(part, numbers, groups) for part in maps]
    return MapMoments(count, *maps)


def _scattered(maps: np.ndarray, numbers: np.ndarray, groups: int) -> np.ndarray:
    """Maps (m, ...) as those of the groups `numbers` (m,) among (groups, ...), zero for others."""
    found = np.zeros((groups, *maps.shape[1:]), maps.dtype)
    found[numbers] = maps
    return found


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
