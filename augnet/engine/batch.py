"""What the engine hands back for one batch of images: measured on the device, copied to the host once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

VIEWS = ("predicted", "rival", "predicted_magnitude", "rival_magnitude", "difference_magnitude")
"""The small maps of an image's rows that `JacobianBatch.views` holds, in their order."""

VIEW_PIXELS = 64
"""Longest side of a view."""


RESOLUTION = float(np.finfo(np.float32).eps) ** 2
"""Two rows whose squared distance is below this share of their squared norms are the same row.

It is the rounding of float32 rows, and also what cancellation in G_ii + G_jj - 2 G_ij leaves in float64.
"""


def pool_to(cells: int, height: int, width: int) -> int:
    """Side in pixels of the smallest square blocks of which at most so many lie along a side of an image."""
    return -(-max(height, width) // cells)


def view_pool(height: int, width: int) -> int:
    """Side in pixels of the blocks that a view's pixels stand for."""
    return pool_to(VIEW_PIXELS, height, width)


RINGS_TO_NYQUIST = 16
"""Rings of equal width up to Nyquist's frequency, half a cycle for each pixel."""

RINGS = math.ceil(RINGS_TO_NYQUIST * math.sqrt(2))
"""Up to the corner, where both axes are at Nyquist's frequency."""


def rings_of(height: int, width: int) -> np.ndarray:
    """(height, width // 2 + 1) integers, the ring that each frequency of a real picture's DFT is in.

    Ring k holds the radii in (k, k + 1] / RINGS_TO_NYQUIST, in units of Nyquist's frequency, and ring 0 zero.
    """
    vertical, horizontal = 2.0 * np.fft.fftfreq(height)[:, None], 2.0 * np.fft.rfftfreq(width)
    radius = np.sqrt(np.square(vertical) + np.square(horizontal))
    return np.maximum(np.ceil(RINGS_TO_NYQUIST * radius).astype(int) - 1, 0)


@dataclass(frozen=True)
class MapMoments:
    """Per-pixel moments of Jacobian rows, gathered by group (outputs first, then labels).

    A group's rows are those of one output over the images, or, for a label, the predicted output's row of
    that label's images. With pool > 1 the maps are over blocks of pool x pool pixels: `mean` and `mean_abs`
    are means over the block too, `max_abs` its maximum, `m2` counts the spread inside the block.

    Attributes:
        count: (group,) int64, rows gathered.
        mean: (group, height, width, channel), of the rows' type in a batch and float64 where they gather.
        m2: sum over rows of the (block mean of the) squared deviation from `mean`.
        mean_abs: mean of the magnitude.
        max_abs: largest magnitude.
    """

    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    mean_abs: np.ndarray
    max_abs: np.ndarray


@dataclass(frozen=True)
class JacobianBatch:
    """One batch of n images, K model outputs, R selected rows, S stored rows.

    Attributes:
        outputs: (n, K) float64, in the chosen space (logits where a final softmax or sigmoid was taken off).
        probabilities: (n, K) float64, or None where the model has no final softmax or sigmoid.
        selected: (n, R) int32, the model output of each row.
        gram: (n, R, R) float64, G = J J^T over all inputs.
        gram_noise: rounding of small eigenvalues of G, as a share of the mean squared norm of the rows; 0.0
            where products are those of float64.
        boundary_l1: (n, R) float64, 1-norm of the slope towards each row's decision boundary: of J_i - J_r,
            i the predicted output, NaN where i is not selected; of J_r alone where every output decides by
            its own sign, for a model with a final sigmoid or with one output.
        magnitude: (n, height, width) float32, l2 norm over channels of the predicted row; NaN where not
            selected.
        input_dot: (n,) float64, <x, J_i> with x the model input; NaN where i is not selected.
        rings: (n, 2, RINGS) float64, the part of a row's energy in each ring of spatial frequencies, see
            `rings_of`, of row i and of that of `drawn`; zero for a row that is, and anything for one that was
            not selected.
        drawn: (n,) int32, one of the selected outputs, drawn by the image's values.
        stored: (n, S) int32, the model output of each stored row.
        rows: (n, S, height, width, channel) float32 or float64, or None when nothing is stored.
        moments: of all selected rows of the batch that are finite.
        rival: (n,) int32, the output j of the other selected row with the nearest boundary, the smallest
            |f_i - f_j| / ||J_i - J_j||; -1 where there is none. None where views were not measured.
        views: (n, view, h, w) float32, of the rows of i and of that j, see VIEWS: their sums over channels,
            and the l2 norms over channels of both and of J_i - J_j, each averaged over blocks of `view_pool`
            pixels. NaN where a row was not selected. None where they were not measured.
        attributions: (n, A, rows, columns) float32, what a pixel's difference from the image's mean adds
            to an output to first order, l2 norm over channels, averaged over blocks of pixels; NaN where the
            row was not selected. A is 1, the lead of the predicted output over the best other one with a
            row, or R, every row. None where they were not asked for.
        sketch_gram: (n, M, M) float64, products of the rows of M random combinations of all outputs, see
            `measures.sketch.combinations`. None where they were not asked for.
        sketch_l1: (n, M) float64, the 1-norms of those rows, likewise.
    """

    outputs: np.ndarray
    probabilities: np.ndarray | None
    selected: np.ndarray
    gram: np.ndarray
    boundary_l1: np.ndarray
    magnitude: np.ndarray
    input_dot: np.ndarray
    rings: np.ndarray
    drawn: np.ndarray
    stored: np.ndarray
    rows: np.ndarray | None
    moments: MapMoments
    rival: np.ndarray | None = None
    views: np.ndarray | None = None
    attributions: np.ndarray | None = None
    gram_noise: float = 0.0
    sketch_gram: np.ndarray | None = None
    sketch_l1: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.outputs)
