"""How a row's energy is spread over spatial frequencies, by the rings of `engine.batch.rings_of`.

The gradient in the Fourier basis: arXiv 2301.13514. Why high frequencies matter: Yin et al. 2019,
arXiv 1906.08988.
"""

from __future__ import annotations

import numpy as np

from augnet.engine.batch import RINGS_TO_NYQUIST

HIGH = RINGS_TO_NYQUIST // 2
"""The first ring above half of Nyquist's frequency."""
BANDS = (0, RINGS_TO_NYQUIST // 8, RINGS_TO_NYQUIST // 4, HIGH, RINGS_TO_NYQUIST)
"""The first ring of each of the few bands that are told for an image; the last goes on to the corners."""


def high_frequency_share(rings: np.ndarray) -> np.ndarray:
    """(...) the part of the energy above half of Nyquist's frequency, of parts by ring (..., RINGS)."""
    return rings[..., HIGH:].sum(axis=-1)


def band_shares(rings: np.ndarray) -> np.ndarray:
    """(..., band) the parts of the energy in BANDS, of parts by ring (..., RINGS)."""
    return np.add.reduceat(rings, BANDS, axis=-1)
