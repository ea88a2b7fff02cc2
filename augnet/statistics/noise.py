"""Whether a prediction survives noise on the pixels, foretold. Notation as in `image`.

Noise N(0, sigma^2) on every input moves the linearised outputs by a normal vector of covariance sigma^2 G, so
that the prediction survives with the probability of an orthant of a multivariate normal (Han et al. 2024,
arXiv 2307.13885): P(z_j + N_j > 0 for every boundary j), z_j the distance to it in standard deviations.

A model bends within larger noise: its outputs shift, and spread less. The outputs of some noisy copies of the
image give shift and spread, and the Jacobian how outputs move together, for which copies are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augnet.engine.batch import RESOLUTION, JacobianBatch
from augnet.statistics.decision import Task, threshold
from augnet.statistics.orthant import POINTS, orthant

CHUNK_NUMBERS = 1 << 21
"""Images are integrated in groups whose factors and points are about this many numbers."""
JACOBIAN_COPIES = 30
"""Of how many noisy copies the Jacobian is worth, when it comes to how outputs move together."""


def survival(
    batch: JacobianBatch,
    gram: np.ndarray,
    position: np.ndarray,
    task: Task,
    logits: bool,
    known: np.ndarray,
    noise: Sequence[float],
    copies: np.ndarray | None = None,
) -> np.ndarray:
    """Probability that the prediction is the same under noise.

    The prediction is the largest output, or with sigmoids the side of its threshold that each output is on.

    Args:
        batch, task, logits: as in `image_statistics`.
        gram: (n, R, R) float64, finite.
        position: (n,) where row i is among the selected.
        known: (n,) bool, images whose rows are finite and all selected.
        noise: standard deviations, in the units of the input.
        copies: (n, sigma, 2 m, K), the outputs of noisy copies, the last m under the noise of the first with
            its sign changed. None: what the linearised outputs do is all that is known.

    Returns:
        (n, sigma) float64; NaN where not known, and for a regression.
    """
    result = np.full((len(batch), len(noise)), np.nan)
    images = np.flatnonzero(known) if noise and task != "regression" else np.empty(0, np.int64)
    rows, limit = gram.shape[1], threshold(logits)
    step = max(1, CHUNK_NUMBERS // (rows * max(rows, POINTS)))
    for start in range(0, len(images), step):
        part = images[start : start + step]
        order = batch.selected[part]
        outputs = np.take_along_axis(batch.outputs[part], order, axis=1)
        boundaries = (
            _Between(position[part])
            if task == "multiclass"
            else _Around(limit, np.where(outputs < limit, -1, 1))
        )
        foretold = boundaries.covariance(gram[part])
        for k, sigma in enumerate(noise):
            centre, covariance = outputs, sigma**2 * foretold
            if copies is not None:
                noisy = np.take_along_axis(copies[part, k].astype(np.float64), order[:, None], axis=2)
                centre = noisy.mean(axis=1)
                covariance = _shrunk(boundaries.covariance(_covariance(noisy)), covariance, noisy.shape[1])
            gaps, variance = boundaries.gaps(centre), np.einsum("njj->nj", covariance)
            deviation = np.sqrt(np.where(variance > 0, variance, 1.0))
            z = np.where(variance > 0, gaps / deviation, np.where(gaps < 0, -np.inf, np.inf))
            result[part, k] = orthant(z, covariance / (deviation[:, :, None] * deviation[:, None, :]))
    return result


@dataclass(frozen=True)
class _Between:
    """Boundaries of n images between the output at `position` (n,) and each other one."""

    position: np.ndarray

    def gaps(self, outputs: np.ndarray) -> np.ndarray:
        """(n, R) f_i - f_j."""
        return np.take_along_axis(outputs, self.position[:, None], axis=1) - outputs

    def covariance(self, covariance: np.ndarray) -> np.ndarray:
        """(n, R, R) of the gaps, of that of the outputs; zero for two that move alike."""
        at = self.position[:, None]
        own = np.take_along_axis(covariance, at[:, :, None], axis=1)
        variance = np.take_along_axis(own[:, 0], at, axis=1)
        between = covariance - own - own.transpose(0, 2, 1) + variance[:, :, None]
        both = variance + np.einsum("njj->nj", covariance)
        met = np.einsum("njj->nj", between) > RESOLUTION * both
        return np.where(met[:, :, None] & met[:, None, :], between, 0.0)


@dataclass(frozen=True)
class _Around:
    """Boundaries of n images around a threshold, of which each output is on a side (n, R), 1 or -1."""

    threshold: float
    sides: np.ndarray

    def gaps(self, outputs: np.ndarray) -> np.ndarray:
        """(n, R) how far outputs are on the same side."""
        return self.sides * (outputs - self.threshold)

    def covariance(self, covariance: np.ndarray) -> np.ndarray:
        """(n, R, R) of the gaps, of that of the outputs."""
        return covariance * self.sides[:, :, None] * self.sides[:, None, :]


def _covariance(copies: np.ndarray) -> np.ndarray:
    """(n, R, R) of the outputs (n, 2 m, R) of copies in pairs of opposite noise.

    Half of the difference of a pair has mean 0, and does not depend on half of its sum.
    """
    half = copies.shape[1] // 2
    first, second = copies[:, :half], copies[:, half:]
    odd, even = (first - second) / 2, (first + second) / 2
    even = even - even.mean(axis=1, keepdims=True)
    return odd.transpose(0, 2, 1) @ odd / half + even.transpose(0, 2, 1) @ even / max(half - 1, 1)


def _shrunk(seen: np.ndarray, foretold: np.ndarray, copies: int) -> np.ndarray:
    """Covariances (n, R, R) seen in so few copies, drawn towards the Jacobian's, scaled to the same trace."""
    total, expected = (np.einsum("njj->n", part)[:, None, None] for part in (seen, foretold))
    scaled = foretold * np.divide(total, expected, out=np.zeros_like(total), where=expected > 0)
    weight = np.where(expected > 0, copies / (copies + JACOBIAN_COPIES), 1.0)
    return weight * seen + (1.0 - weight) * scaled
