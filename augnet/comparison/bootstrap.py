"""Confidence intervals of what is measured over images, by resampling them."""

from __future__ import annotations

import math

import numpy as np

from augnet.statistics.intervals import CONFIDENCE, Interval

RESAMPLES = 10_000
GROUPS = 1024
"""Images are drawn in at most this many groups, so that a resample costs the same whatever their number."""
GRID = 128
"""Values at which a resample's distribution is looked up around a quantile."""
GRID_DEVIATIONS = 6.0
"""How far that grid reaches, in standard deviations of the quantile's rank."""


class Bootstrap:
    """Seeded resamples of n images, with replacement; the same ones for every figure asked for.

    Figures of two audits that are asked of one Bootstrap are of the same resampled images, so their
    differences are paired, and those of equal values are exactly zero.

    Above GROUPS images, whole random groups of images are drawn instead of single ones (the method of random
    groups, Wolter 2007, Introduction to Variance Estimation, ch. 2): for means, and for whatever is smooth in
    the distribution, the spread is that of drawing images, known to 1 / sqrt(2 GROUPS) = 2 % of itself.
    Quantiles are looked up on GRID values, 0.1 standard errors apart.

    Args:
        images: n.
        seed: of groups and resamples.
    """

    def __init__(self, images: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        groups = max(1, min(images, GROUPS))
        few = images <= GROUPS
        self.group = np.arange(images) if few else rng.permutation(images) % groups
        drawn = rng.integers(0, groups, (RESAMPLES, groups))
        drawn += groups * np.arange(RESAMPLES)[:, None]
        times = np.bincount(drawn.ravel(), minlength=drawn.size).reshape(RESAMPLES, groups)
        self._weights = times.astype(np.float32)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """(RESAMPLES,) means of (n,) values; a NaN is an image without a value."""
        return self.means(values, np.zeros(len(values), np.intp), 1)[:, 0]

    def means(self, values: np.ndarray, slices: np.ndarray, count: int) -> np.ndarray:
        """(RESAMPLES, count) means of (n,) values in each slice, NaN where a resample has none of it.

        `slices` (n,) says which of `count` slices an image is in; one that is `count` or more is in none.
        """
        known = np.flatnonzero(np.isfinite(values) & (slices < count))
        cell = self.group[known] * count + slices[known]
        # A mean in float32 is exact to 1e-7 of the spread, not of the level.
        level = float(values[known].mean()) if len(known) else 0.0
        groups = self._weights.shape[1]
        size = np.bincount(cell, minlength=groups * count).reshape(groups, count)
        total = np.bincount(cell, values[known] - level, minlength=groups * count).reshape(groups, count)
        drawn = self._weights @ size.astype(np.float32)
        sums = self._weights @ total.astype(np.float32)
        with np.errstate(invalid="ignore", divide="ignore"):
            return level + sums.astype(np.float64) / drawn

    def quantile(self, values: np.ndarray, q: float) -> np.ndarray:
        """(RESAMPLES,) q-quantiles of (n,) values; a NaN is an image without a value."""
        known = np.flatnonzero(~np.isnan(values))
        n = len(known)
        if not n:
            return np.full(RESAMPLES, np.nan)
        reach = GRID_DEVIATIONS * math.sqrt(n * q * (1 - q)) + 3
        ranks = np.rint(np.linspace(q * n - reach, q * n + reach, GRID)).clip(0, n - 1).astype(np.intp)
        grid = np.unique(np.partition(values[known], np.unique(ranks))[ranks])
        cell = self.group[known] * (len(grid) + 1) + np.searchsorted(grid, values[known])
        groups = self._weights.shape[1]
        counts = np.bincount(cell, minlength=groups * (len(grid) + 1)).reshape(groups, -1)
        below = self._weights @ counts.cumsum(axis=1).astype(
            np.float32
        )  # the last column is all that is drawn
        reached = below[:, :-1] >= q * below[:, -1:]
        reached[:, -1] = True
        return grid[reached.argmax(axis=1)]


def interval(resampled: np.ndarray) -> Interval | None:
    """The middle CONFIDENCE of resampled figures; None where a resample has none."""
    if not len(resampled) or not np.isfinite(resampled).all():
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail)).tolist()
    return low, high


def intervals(resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low and high ends (k,) of resampled figures (RESAMPLES, k); NaN where a resample has none."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail), axis=0)
    return low, high
