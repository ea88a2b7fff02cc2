"""The whole Jacobian from the rows of a few random combinations of its outputs, with standard errors.

Notation: Y = W J (M, D) are the rows of M combinations w, each of independent standard normal weights
(`augnet.engine.measures.sketch`), so that Y^T Y / M estimates J^T J. The exact value is to be within two
standard errors in 95 % of the images.
"""

from __future__ import annotations

import numpy as np

from augnet.statistics.focus import ratio

FOLDS = 8
"""Parts that the combinations are cut into; fewer combinations say nothing of their own error."""

SQUARINGS = 5

Estimate = tuple[np.ndarray, np.ndarray]
"""Values (n,) and their standard errors (n,)."""


def estimates(gram: np.ndarray, l1: np.ndarray, inputs: int) -> dict[str, Estimate]:
    """By the name of the statistic.

    Args:
        gram: (n, M, M) float64, Y Y^T of each image.
        l1: (n, M) float64, the 1-norms of the rows of Y.
        inputs: D.
    """
    return {
        "sketch_frobenius": frobenius(gram),
        "sketch_spectral": spectral(gram),
        "sketch_magnitude": magnitude(l1, inputs),
    }


def frobenius(gram: np.ndarray) -> Estimate:
    """||J||_F: its square is the mean of ||y||^2, of variance 2 tr(G^2), the mean of 2 <y_m, y_l>^2."""
    count = gram.shape[1]
    squared = np.einsum("nmm->nm", gram)
    trace = squared.mean(axis=1)
    products = np.square(gram).sum(axis=(1, 2)) - np.square(squared).sum(axis=1)
    variance = 2 * products / (count * (count - 1)) / count
    return _estimate(np.sqrt(trace), _share(np.sqrt(variance), 2 * trace))


def spectral(gram: np.ndarray) -> Estimate:
    """The largest singular value of J: the middle of two estimates, whose distance is part of the error.

    From above, the largest eigenvalue l_1 of Y Y^T / M, freed of what the others add to it: M over the sum of
    1 / (l_1 - l_j) (Bai and Ding 2012), of variance as by Bai and Yao 2008. It is too large where the largest
    singular value does not stand out. From below, the largest direction of most combinations, as long as the
    others say.
    """
    count = gram.shape[1]
    values = np.linalg.eigvalsh(gram)[:, ::-1] / count
    # Relative to the largest; equal eigenvalues are as good as never met, and divide by nothing.
    apart = np.maximum(1.0 - _share(values[:, 1:], values[:, :1]), np.finfo(float).eps)
    first, second = (1 / apart).sum(axis=1) / count, np.square(1 / apart).sum(axis=1) / count
    above = np.sqrt(np.maximum(values[:, 0], 0.0) / first)
    spread = _share(np.sqrt(2 / count * second), 2 * first)
    below = _from_below(gram)
    _, error = _estimate(above, spread)
    return (above + below) / 2, np.hypot(error, (above - below) / 2)


def magnitude(l1: np.ndarray, inputs: int) -> Estimate:
    """The mean over inputs d of ||J_d||_2, J_d of all outputs: y_d is normal, of that standard deviation."""
    means = np.sqrt(np.pi / 2) * l1 / inputs
    value = means.mean(axis=1)
    return _estimate(value, _share(means.std(axis=1, ddof=1) / np.sqrt(l1.shape[1]), value))


def _from_below(gram: np.ndarray) -> np.ndarray:
    """(n,) root of the mean of <y_m, v>^2, v the largest direction of the rows outside of m's part.

    v is Y^T w, w by the power method, whose matrix is squared SQUARINGS times.
    """
    total, count = np.zeros(len(gram)), gram.shape[1]
    for fold in np.array_split(np.arange(count), FOLDS):
        rest = np.setdiff1d(np.arange(count), fold)
        inside = gram[:, rest[:, None], rest]
        power = _share(inside, np.einsum("nmm->n", inside)[:, None, None])
        for _ in range(SQUARINGS):
            power = power @ power
            power = _share(power, np.einsum("nmm->n", power)[:, None, None])
        largest = np.einsum("nmm->nm", power).argmax(axis=1)
        weights = np.take_along_axis(power, largest[:, None, None], axis=2)
        along = np.square(gram[:, fold[:, None], rest] @ weights).sum(axis=(1, 2))
        total += _share(along, (weights * (inside @ weights)).sum(axis=(1, 2)))
    return np.sqrt(total / count)


def _estimate(value: np.ndarray, share: np.ndarray) -> Estimate:
    """With the error as a share of the true value, which may be larger than the estimate by that error."""
    return value, value * share / (1 - np.minimum(share, 0.5))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; 0 where the whole is."""
    return np.nan_to_num(ratio(part, whole))
