"""What the engine hands back for one batch of images: measured on the device, copied to the host once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MapMoments:
    """Per-pixel moments of Jacobian rows, gathered by group (outputs first, then labels).

    A group's rows are those of one output over the images, or, for a label, the predicted output's row of
    that label's images. With pool > 1 the maps are over blocks of pool x pool pixels: `mean` and `mean_abs`
    are means over the block too, `max_abs` its maximum, `m2` counts the spread inside the block.

    Attributes:
        count: (group,) int64, rows gathered.
        mean: (group, height, width, channel) float64.
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
        boundary_l1: (n, R) float64, 1-norm of the slope towards each row's decision boundary: of J_i - J_r,
            i the predicted output, NaN where i is not selected; of J_r alone where every output decides by
            its own sign, for a model with a final sigmoid or with one output.
        magnitude: (n, height, width) float32, l2 norm over channels of the predicted row; NaN where not
            selected.
        input_dot: (n,) float64, <x, J_i> with x the model input; NaN where i is not selected.
        stored: (n, S) int32, the model output of each stored row.
        rows: (n, S, height, width, channel) float32 or float64, or None when nothing is stored.
        moments: of all selected rows of the batch that are finite.
    """

    outputs: np.ndarray
    probabilities: np.ndarray | None
    selected: np.ndarray
    gram: np.ndarray
    boundary_l1: np.ndarray
    magnitude: np.ndarray
    input_dot: np.ndarray
    stored: np.ndarray
    rows: np.ndarray | None
    moments: MapMoments

    def __len__(self) -> int:
        return len(self.outputs)
