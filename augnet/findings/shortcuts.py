"""Shortcut flags: outputs that look at one fixed place more than their kind of picture explains.

The rule, for each output with at least MIN_IMAGES images predicted as it:

1. share: the mean over those images of the part of a (the predicted row's magnitude) that lies in a window. A
   window is a quarter of the picture high and wide, at any position on the grid of `statistics.share_grid`.
2. expected: the part without a shortcut. The mean of two references, the share of a smooth map (the Gaussian
   with the moments of the output's own mean map) and the median share of the other outputs, plus a quarter of
   the window's share of the picture, which keeps places that nobody looks at from standing out.
3. The output's hotspot is the window with the largest lift = share / expected. It is a shortcut when
   - the lift is at least STANDS_OUT times the largest lift of any other output. LOW is always needed and
     HIGH always enough: where pictures are aligned, as digits are, all lifts are higher than in photographs;
   - the place is fixed over images: steadiness (sum s)^2 / (n sum s^2) of the images' shares s in the window,
     which is 1 when all are equal and 1 / n when one image holds it all, is at least STEADY.

All figures are ratios of shares, so the rule does not depend on the scale of the gradient, the pixels or the
image. It sees what gradients show. A shortcut to which the model is flat where it is present, one that is
absent from the audited images, and one that lies where the other outputs look too, can stay unseen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from augnet.statistics.share_grid import ShareGrids, window_cells, window_sums

MIN_IMAGES = 20
STANDS_OUT, LOW, HIGH = 1.4, 1.75, 2.5
STEADY = 0.25
UNIFORM_WEIGHT = 0.25


@dataclass(frozen=True)
class Hotspot:
    """The place that an output depends on most beyond what is expected.

    Attributes:
        count: images predicted as the output.
        y, x: first row and column of the window, in pixels of the model input.
        height, width: of the window, in pixels.
        share: mean part of a in the window, in [0, 1].
        expected: the part without a shortcut.
        steadiness: in (0, 1], how evenly the images share in it.
        shortcut: whether the rule flags it.
        images: (image_id, share) of the images that show it most.
    """

    output: int
    count: int
    y: int
    x: int
    height: int
    width: int
    share: float
    expected: float
    steadiness: float
    shortcut: bool
    images: tuple[tuple[str, float], ...]

    @property
    def lift(self) -> float:
        """share / expected."""
        return self.share / self.expected

    def as_json(self) -> dict[str, Any]:
        """For summary.json."""
        images = [{"image_id": image_id, "share": share} for image_id, share in self.images]
        return asdict(self) | {"lift": self.lift, "images": images}


def find_hotspots(grids: ShareGrids) -> list[Hotspot]:
    """The hotspot of every output with at least MIN_IMAGES images, in the order of the outputs."""
    outputs = sorted(output for output, grid in grids.by_output.items() if grid.count >= MIN_IMAGES)
    if not outputs:
        return []
    count = np.array([grids.by_output[output].count for output in outputs])[:, None, None]
    cells = np.stack([grids.by_output[output].cells for output in outputs]) / count
    squares = np.stack([grids.by_output[output].squares for output in outputs]) / count
    shares, expected = window_sums(cells), _expected(cells, *grids.edges)
    lift = shares / expected
    largest = lift.max(axis=(1, 2))

    (y_edges, x_edges), (height, width) = grids.edges, (window_cells(side) for side in cells.shape[1:])
    hotspots = []
    for k, output in enumerate(outputs):
        row, column = np.unravel_index(lift[k].argmax(), lift[k].shape)
        share, grid = float(shares[k, row, column]), grids.by_output[output]
        steadiness = share**2 / float(squares[k, row, column])
        others = np.delete(largest, k)
        enough = np.clip(STANDS_OUT * others.max(), LOW, HIGH) if len(others) else HIGH
        top = zip(grid.top_image[row, column], grid.top_share[row, column].tolist(), strict=True)
        hotspots.append(
            Hotspot(
                output=output,
                count=grid.count,
                y=int(y_edges[row]),
                x=int(x_edges[column]),
                height=int(y_edges[row + height] - y_edges[row]),
                width=int(x_edges[column + width] - x_edges[column]),
                share=share,
                expected=float(expected[k, row, column]),
                steadiness=steadiness,
                shortcut=bool(largest[k] >= enough and steadiness >= STEADY),
                images=tuple((image_id, shown) for image_id, shown in top if image_id),
            )
        )
    return hotspots


def _expected(cells: np.ndarray, y_edges: np.ndarray, x_edges: np.ndarray) -> np.ndarray:
    """(output, row, column) share of each window that needs no shortcut, from the cells' mean shares."""
    area = np.diff(y_edges)[:, None] * np.diff(x_edges) / (y_edges[-1] * x_edges[-1])
    down, across = _gaussian(cells.sum(axis=2), y_edges), _gaussian(cells.sum(axis=1), x_edges)
    reference = window_sums(down[:, :, None] * across[:, None, :])
    if len(cells) > 1:
        reference = (reference + median_of_others(window_sums(cells))) / 2
    return reference + UNIFORM_WEIGHT * window_sums(area)


def _gaussian(profile: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The Gaussian with the moments of each (output, cell) profile, cut to the picture; its rows sum to 1."""
    centre, size = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    mean = profile @ centre
    spread = (profile * (centre - mean[:, None]) ** 2).sum(axis=1) + np.mean(size**2) / 12
    density = size * np.exp(-((centre - mean[:, None]) ** 2) / (2 * spread[:, None]))
    return density / density.sum(axis=1, keepdims=True)


def median_of_others(values: np.ndarray) -> np.ndarray:
    """For each of m >= 2 entries along the first axis, the median of the m - 1 others."""
    m = len(values)
    order = np.argsort(values, axis=0, kind="stable")
    ascending = np.take_along_axis(values, order, axis=0)
    rank = np.argsort(order, axis=0)

    def without_own(k: int) -> np.ndarray:
        """The k-th smallest of the others: one further on where the own entry comes before it."""
        return np.where(rank <= k, ascending[k + 1], ascending[k])

    return (without_own((m - 2) // 2) + without_own((m - 1) // 2)) / 2
