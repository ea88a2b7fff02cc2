"""Rank correlation of maps: how far two orders of pixels, or of images, agree."""

from __future__ import annotations

import numpy as np


def rank_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(k,) Spearman correlations of the rows of two (k, m) arrays; NaN where a row is constant."""
    centred = [_ranks(values) - (values.shape[1] - 1) / 2 for values in (first, second)]
    dots, *squares = (np.einsum("km,km->k", centred[i], centred[j]) for i, j in ((0, 1), (0, 0), (1, 1)))
    norms = np.sqrt(squares[0] * squares[1])  # of equal maps exactly the product, so that they correlate by 1
    return np.divide(dots, norms, out=np.full(len(dots), np.nan), where=norms > 0)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0 along the last axis of a (k, m) array; equal values share the mean of theirs."""
    ranks = np.empty(values.shape)
    for row, out in zip(values, ranks, strict=True):
        _, group, count = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(count)
        out[:] = (last - (count + 1) / 2)[group]
    return ranks
