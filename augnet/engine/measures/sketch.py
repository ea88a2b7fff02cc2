"""Random combinations of all outputs: what they say of the whole Jacobian takes few rows of it."""

from __future__ import annotations

import numpy as np


def combinations(seeds: np.ndarray, count: int, outputs: int) -> np.ndarray:
    """Weights (n, count, outputs) float32 of combinations of outputs: independent, normal, of variance 1.

    With w such a combination, the mean of (J^T w)(J^T w)^T is J^T J (Hutchinson 1990; Hoffman et al. 2019,
    arXiv 1908.02729). Each image has its own, so that errors cancel in a mean over images.

    Args:
        seeds: (n,) integers, not negative.
    """
    drawn = np.empty((len(seeds), count, outputs), np.float32)
    if count:
        for seed, part in zip(seeds, drawn, strict=True):
            np.random.Generator(np.random.Philox(int(seed))).standard_normal(out=part, dtype=np.float32)
    return drawn
