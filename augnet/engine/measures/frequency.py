"""The energy of rows by spatial frequency: that of their unitary 2-D DFT, in rings around frequency zero."""

from __future__ import annotations

import numpy as np
from keras import ops

from augnet.engine.backends import backend
from augnet.engine.batch import RINGS, rings_of
from augnet.engine.measures.blocks import fitting, joined
from augnet.engine.measures.gram import SMALLEST
from augnet.engine.types import Tensor


def ring_shares(rows: Tensor, squared: Tensor) -> Tensor:
    """The part of each row's energy in each ring of spatial frequencies, summed over channels.

    Args:
        rows: (batch, R, height, width, channel).
        squared: (batch, R) float64, their squared l2 norms, which by Parseval is what their rings add up to.

    Returns:
        (batch, R, RINGS), see `rings_of`; zero for a row that is.
    """
    batch, row_count, height, width, channels = rows.shape
    count = batch * row_count
    norm = ops.reshape(ops.sqrt(squared), (count, 1, 1, 1))
    # Rows of norm 1: squares of small gradients would vanish in float32.
    inverse = ops.cast(ops.where(norm > SMALLEST, 1.0 / ops.maximum(norm, SMALLEST), 0.0), rows.dtype)
    flat = ops.reshape(rows, (count, height, width, channels))
    weights = backend.constant(ring_weights(height, width), rows.dtype)

    def some_rows(start: Tensor, size: int) -> tuple[Tensor]:
        part = ops.slice(flat, (start, 0, 0, 0), (size, height, width, channels))
        part = part * ops.slice(inverse, (start, 0, 0, 0), (size, 1, 1, 1))
        power = backend.power_spectrum(ops.transpose(part, (0, 3, 1, 2)))
        return (ops.matmul(ops.reshape(ops.sum(power, axis=1), (size, -1)), weights),)

    (shares,) = joined(some_rows, count, fitting(count, height * width * channels))
    return ops.reshape(shares, (batch, row_count, RINGS))


def ring_weights(height: int, width: int) -> np.ndarray:
    """(height * (width // 2 + 1), RINGS): what sums the power of half a DFT into rings of the unitary whole.

    A frequency stands for its negative too, but where it is that itself: at zero, and at Nyquist's frequency.
    """
    place = rings_of(height, width)
    twice = np.full(place.shape[1], 2.0)
    twice[0] = 1.0
    if width % 2 == 0:
        twice[-1] = 1.0
    weights = np.zeros((*place.shape, RINGS))
    np.put_along_axis(weights, place[..., None], twice[None, :, None] / (height * width), axis=-1)
    return weights.reshape(-1, RINGS)
