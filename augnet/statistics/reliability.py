"""How well survival under noise was foretold: beside it, how many noisy copies were predicted as before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from augnet.statistics.decision import Task, threshold

PASSES = 100
"""Noisy copies of an image that is tried, for each standard deviation."""
BINS = 10
"""Of foretold probability, in which it is compared with what is seen."""
SUMS = ("images", "foretold", "seen", "error", "chance")
"""What is summed in every bin, see `reliability_sums`."""


def same_prediction(outputs: np.ndarray, before: np.ndarray, task: Task, logits: bool) -> np.ndarray:
    """(n,) bool, whether outputs (n, K) predict what `before` (K,) does; false where one is NaN."""
    finite = ~np.isnan(outputs).any(axis=1)
    if task == "multiclass":
        return finite & (outputs.argmax(axis=1) == before.argmax())
    limit = threshold(logits)
    return finite & ((outputs < limit) == (before < limit)).all(axis=1)


def no_trials(noises: int) -> np.ndarray:
    """The sums of no images, for so many standard deviations."""
    return np.zeros((noises, BINS, len(SUMS)))


def reliability_sums(foretold: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """What an aggregate keeps of n images whose survival was foretold, and seen over PASSES noisy copies.

    Args:
        foretold, seen: (n, sigma) probabilities and shares; an image with a NaN is left out.

    Returns:
        (sigma, BINS, len(SUMS)) float64: images, both summed, the difference's magnitude, and what of that
        magnitude is expected from so few copies alone.
    """
    sums = no_trials(foretold.shape[1])
    known = ~np.isnan(foretold) & ~np.isnan(seen)
    for k in range(len(sums)):
        told, found = foretold[known[:, k], k], seen[known[:, k], k]
        chance = np.sqrt(2.0 * told * (1.0 - told) / (np.pi * PASSES))
        place = np.minimum((told * BINS).astype(int), BINS - 1)
        values = np.stack([np.ones_like(told), told, found, np.abs(told - found), chance], axis=1)
        np.add.at(sums[k], place, values)
    return sums


def reliability(sums: np.ndarray, noise: Sequence[float]) -> dict[str, Any]:
    """For each sigma how well survival was foretold, of all images tried and by bins of probability.

    `foretold` and `seen` are means, `mean_abs_error` that of their difference image by image, and
    `sampling_error` what it would be of a right probability over so few copies.
    """
    found = []
    for sigma, bins in zip(noise, sums, strict=True):
        images, foretold, seen, error, chance = bins.sum(axis=0).tolist()
        count = max(images, 1.0)
        filled = bins[bins[:, 0] > 0]
        found.append(
            {
                "sigma": sigma,
                "images": int(images),
                "foretold": foretold / count if images else None,
                "seen": seen / count if images else None,
                "mean_abs_error": error / count if images else None,
                "sampling_error": chance / count if images else None,
                "bins": [
                    {"images": int(part[0]), "foretold": part[1] / part[0], "seen": part[2] / part[0]}
                    for part in filled.tolist()
                ],
            }
        )
    return {"passes": PASSES, "sigmas": found}
