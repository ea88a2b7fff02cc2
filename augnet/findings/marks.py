"""Marks: one small place at which a target's images differ from others', and hardly anywhere else.

By nature classes differ over all of an object; what was laid over their images (a logo, a date, a scribble)
differs at its own place alone. So it is sought in the pixels: in gradients a faint mark stands out no more
than what lies under it.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from augnet.findings.windows import LARGEST, summed, window_shape, window_shapes, window_shares

DIFFERS = 12.0
"""Squared standard errors between two means, from which on a cell differs: one in 2000 does so by chance."""
NEARLY_ALL = 0.9
"""Of all that differs, in the window of a mark."""
MOST = 0.75
"""Of all by which means are further apart than by chance, at a mark. A part of an object that stands out from
the rest of it, most of which differs too little to be sure of a cell, had 0.33 to 0.74 in the benchmark."""
ROUNDING = 1e-3
"""Of the range of values: a standard error is no smaller."""


def place_of_mark(own: np.ndarray, others: np.ndarray) -> tuple[int, int, int, int] | None:
    """First row, first column, rows and columns of the smallest window that holds nearly all that differs.

    Args:
        own, others: (n, rows, columns) and (m, rows, columns), images of a target and of others.

    Returns:
        What of the window differs, in cells; None where no small window holds as much.
    """
    apart = distances(own, others)
    sure = np.where(apart >= DIFFERS, apart, 0.0)
    if not sure.any():
        return None
    sums, excess = summed(sure[None]), apart - 1  # by chance it is 1 in the mean
    for rows, columns in sorted(_shapes(apart.shape), key=lambda shape: (shape[0] * shape[1], shape)):
        held = window_shares(sums, (rows, columns))[0]
        if held.max() >= NEARLY_ALL:
            row, column = np.unravel_index(held.argmax(), held.shape)
            down, across = np.nonzero(sure[row : row + rows, column : column + columns])
            top, left = int(row + down.min()), int(column + across.min())
            rows, columns = int(np.ptp(down)) + 1, int(np.ptp(across)) + 1
            inside = excess[top : top + rows, left : left + columns].sum()
            return (top, left, rows, columns) if inside >= MOST * excess.sum() else None
    return None


def distances(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(rows, columns), how far the means of each cell are apart, in squared standard errors."""
    own, others = (images.astype(np.float64) for images in (own, others))
    error = own.var(axis=0) / len(own) + others.var(axis=0) / len(others)
    error += (ROUNDING * (max(own.max(), others.max()) - min(own.min(), others.min()))) ** 2
    return np.asarray(np.square(own.mean(axis=0) - others.mean(axis=0)) / np.where(error > 0, error, 1))


def _shapes(grid: tuple[int, ...]) -> set[tuple[int, int]]:
    """Rows and columns of every window that is small both ways, and of strips."""
    sides = [window_shape(sixteenths, grid) for sixteenths in range(1, LARGEST + 1)]
    return {(rows, columns) for (rows, _), (_, columns) in product(sides, sides)} | set(window_shapes(grid))
