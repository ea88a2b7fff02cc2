"""Windows and strips of a map of cells, and how much of what it holds lies in each."""

from __future__ import annotations

from itertools import product

import numpy as np

SIXTEENTHS = (1, 2, 3, 4)
"""Sides of the windows, in sixteenths of the picture's."""
LARGEST = 5
"""Sides, in sixteenths, of what is still small: what is larger holds the object itself."""


def window_shapes(grid: tuple[int, ...]) -> list[tuple[int, int]]:
    """Rows and columns, in cells: windows, and strips along whole and half sides."""
    height, width = grid
    shapes = {window_shape(sixteenths, grid) for sixteenths in SIXTEENTHS}
    for thick, part in product((1, SIXTEENTHS[0] / 16), (1, 2)):
        rows, columns = (max(1, round(thick * side)) if thick < 1 else 1 for side in grid)
        shapes |= {(min(rows, height), max(1, width // part)), (max(1, height // part), min(columns, width))}
    return sorted(shapes)


def window_shape(sixteenths: int, grid: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a window, so many sixteenths of each side."""
    height, width = (max(1, round(sixteenths * side / 16)) for side in grid)
    return height, width


def summed(maps: np.ndarray) -> np.ndarray:
    """(n, rows + 1, columns + 1), the part of what each map holds that lies above and to the left."""
    sums = np.zeros((len(maps), maps.shape[1] + 1, maps.shape[2] + 1))
    sums[:, 1:, 1:] = maps.astype(np.float64).cumsum(axis=1).cumsum(axis=2)
    return sums / sums[:, -1:, -1:]


def window_shares(sums: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(n, row, column), the part in the window of so many cells from there; of what `summed` gave."""
    height, width = shape
    inside = sums[:, height:, width:] - sums[:, :-height, width:]
    inside -= sums[:, height:, :-width]
    inside += sums[:, :-height, :-width]
    return inside
