"""Confidence intervals by closed forms: of means, and of shares of images and their differences."""

from __future__ import annotations

import math
from statistics import NormalDist

NORMAL = NormalDist()
CONFIDENCE = 0.95
Z = NORMAL.inv_cdf(0.5 + CONFIDENCE / 2)
"""Half the width of an interval at CONFIDENCE, in standard errors."""

Interval = tuple[float, float]


def mean_interval(mean: float, error: float) -> Interval:
    """The normal interval around a mean with this standard error."""
    return mean - Z * error, mean + Z * error


def share_interval(count: int, images: int) -> Interval:
    """Of the share of images that `count` of them are (Wilson 1927): wide where images are few, also at 0."""
    if not images:
        return 0.0, 1.0
    share, spread = count / images, Z**2 / images
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * share * (1 - share) + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def paired_share_interval(gained: int, lost: int, images: int) -> Interval:
    """Of the difference of two shares of the same images (Agresti and Min 2005, Statistics in Medicine 24).

    Args:
        gained, lost: images that only the second share, and only the first, counts.
    """
    if not images:
        return -1.0, 1.0
    gained_more, lost_more, n = gained + 0.5, lost + 0.5, images + 2
    difference = (gained_more - lost_more) / n
    half = Z * math.sqrt((gained_more + lost_more) / n - difference**2) / math.sqrt(n)
    return max(-1.0, difference - half), min(1.0, difference + half)


def two_share_interval(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """Of the difference second - first of shares of different images (Agresti and Caffo 2000).

    Args:
        first, second: how many images count, and of how many.
    """
    shares = [(count + 1) / (images + 2) for count, images in (first, second)]
    squared = sum(
        share * (1 - share) / (images + 2) for share, (_, images) in zip(shares, (first, second), strict=True)
    )
    difference, half = shares[1] - shares[0], Z * math.sqrt(squared)
    return max(-1.0, difference - half), min(1.0, difference + half)
