"""Where in the picture a row's magnitude lies, and how concentrated it is. Notation as in `image`."""

from __future__ import annotations

import numpy as np

CHUNK_PIXELS = 1 << 16
"""Maps are measured in groups of about this many pixels, so that the temporaries stay small."""


def frame_pixels(height: int, width: int, border: float) -> int:
    """Width in pixels of the outer frame: `border` times the shorter side, rounded, at least 1."""
    return max(1, round(border * min(height, width)))


def uniform_border_fraction(height: int, width: int, border: float) -> float:
    """border_fraction of a map that is the same everywhere: the frame's share of the pixels."""
    frame = frame_pixels(height, width, border)
    return 1.0 - max(height - 2 * frame, 0) * max(width - 2 * frame, 0) / (height * width)


def map_statistics(magnitude: np.ndarray, known: np.ndarray, border: float) -> dict[str, np.ndarray]:
    """gini, entropy, border_fraction, centre_y, centre_x and spread of a.

    gini: Chalasani et al. 2020, arXiv 1810.06583. entropy: Bhatt et al. 2020, arXiv 2005.00631, over ln n.
    Centres are in [0, 1], pixel k of m having its centre at (k + 1/2) / m. spread: square root of the trace
    of the second central moment, over the diagonal, both in pixels.

    Args:
        magnitude: (n, height, width) float32, a of each image, not negative.
        known: (n,) bool, images whose map is finite.
        border: see `frame_pixels`.

    Returns:
        Name -> (n,) float64; NaN where not known, where a is zero, and the entropy of a single pixel.
    """
    names = ("gini", "entropy", "border_fraction", "centre_y", "centre_x", "spread")
    result = {name: np.full(len(magnitude), np.nan) for name in names}
    images = np.flatnonzero(known)
    step = max(1, CHUNK_PIXELS // int(np.prod(magnitude.shape[1:])))
    for start in range(0, len(images), step):
        chunk = images[start : start + step]
        for name, values in zip(names, _measure(magnitude[chunk], border), strict=True):
            result[name][chunk] = values
    return result


def _measure(a: np.ndarray, border: float) -> tuple[np.ndarray, ...]:
    """The statistics of `map_statistics`, in its order, of (n, height, width) finite maps."""
    images, height, width = a.shape
    pixels = height * width
    wide = a.astype(np.float64)
    profile_y, profile_x = wide.sum(axis=2), wide.sum(axis=1)
    total = profile_y.sum(axis=1)

    ascending = np.sort(a.reshape(images, pixels), axis=1).astype(np.float64)
    gini = ratio(ascending @ np.arange(1.0 - pixels, pixels, 2.0), pixels * total)

    relative = wide.reshape(images, pixels)
    # a / mean a: then sum p ln p = mean(relative ln relative) - ln n
    relative *= ratio(pixels, total)[:, None]
    log = np.maximum(relative, np.finfo(np.float64).tiny)
    np.log(log, out=log)
    entropy = 1.0 - ratio(np.einsum("np,np->n", relative, log), pixels * np.log(pixels))

    frame = frame_pixels(height, width, border)
    bottom, right = max(height - frame, frame), max(width - frame, frame)
    sides = a[:, frame:bottom, :frame].sum(axis=(1, 2), dtype=np.float64)
    sides += a[:, frame:bottom, right:].sum(axis=(1, 2), dtype=np.float64)
    framed = profile_y[:, :frame].sum(axis=1) + profile_y[:, bottom:].sum(axis=1) + sides

    centre_y, variance_y = _moments(profile_y, total)
    centre_x, variance_x = _moments(profile_x, total)
    spread = np.sqrt((height**2 * variance_y + width**2 * variance_x) / (height**2 + width**2))
    return gini, entropy, ratio(framed, total), centre_y, centre_x, spread


def _moments(profile: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the position, in sides, of (n, side) profiles that sum to `total`."""
    side = profile.shape[1]
    position = (np.arange(side) + 0.5) / side
    centre = ratio(profile @ position, total)
    return centre, ratio((profile * (position - centre[:, None]) ** 2).sum(axis=1), total)


def ratio(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    """numerator / denominator in float64; NaN where the denominator is not positive."""
    above, below = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
