"""How well a score ranks wrong predictions above right ones: AUROC, AURC, and what chance does to them.

Both depend on the order that a score puts the images in and on nothing else, so that a score is sorted once
and its replicates are counts of the images at each of its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK_DRAWS = 1 << 15
"""Images drawn at a time, over all replicates: what is counted of them stays in the caches."""


class Areas(NamedTuple):
    """Areas of one or many rankings, float64.

    Attributes:
        auroc: under the ROC curve: how often a wrong prediction's score is above a right one's, a tie
            counting one half. NaN where all predictions are right, or all wrong.
        aurc: under the risk-coverage curve (Geifman et al. 2019, arXiv 1805.08206): the share of wrong
            predictions among the k images of the lowest scores, averaged over all k. Tied images come in
            random order, of which this is the expectation.
    """

    auroc: np.ndarray
    aurc: np.ndarray


class Sorted(NamedTuple):
    """Images by rank, in the groups that must be told apart.

    They are the tied images; but scores without a wrong prediction that follow each other are one group,
    since the order among right ones changes neither area.

    Attributes:
        order: (n,) the images.
        starts: (g,) where in `order` each group starts.
        bad: the images with wrong predictions.
        bad_starts, bad_groups: where in `bad` each group with any starts, and which of the g it is.
    """

    order: np.ndarray
    starts: np.ndarray
    bad: np.ndarray
    bad_starts: np.ndarray
    bad_groups: np.ndarray


def areas(right: np.ndarray, wrong: np.ndarray) -> Areas:
    """The areas of rankings given by counts.

    With c images of lower scores, E of them wrong, and m images tied, e of them wrong, the expected share of
    wrong ones among the first c + j is (E + j e / m) / (c + j), whose sum over j is
    e + (E - c e / m) (H(c + m) - H(c)), H the harmonic numbers.

    Args:
        right, wrong: (..., g) integers, images at each of g scores, ascending; their sum is not 0.
    """
    tied_images = right + wrong
    until = np.cumsum(tied_images, axis=-1)
    wrong_until = np.cumsum(wrong, axis=-1)
    below, wrong_below = until - tied_images, wrong_until - wrong
    all_images, all_wrong = until[..., -1], wrong_until[..., -1]

    won = (wrong * (below - wrong_below + right / 2)).sum(axis=-1)
    pairs = all_wrong * (all_images - all_wrong).astype(np.float64)
    auroc = np.divide(won, pairs, out=np.full(won.shape, np.nan), where=pairs > 0)

    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, all_images.max() + 1))])
    rate = wrong / np.maximum(tied_images, 1)
    risks = wrong + (wrong_below - below * rate) * np.diff(harmonic[until], axis=-1, prepend=0.0)
    return Areas(auroc, risks.sum(axis=-1) / all_images)


def ranks(scores: np.ndarray) -> np.ndarray:
    """(n,) int32, the number of distinct scores below each; NaN, of a score that is not known, is lowest."""
    return np.unique(np.where(np.isnan(scores), -np.inf, scores), return_inverse=True)[1].astype(np.int32)


def areas_of(rank: np.ndarray, wrong: np.ndarray) -> Areas:
    """The areas of one score, from the ranks (n,) of n > 0 images and whether each is wrong, (n,) bool."""
    every = np.bincount(rank)
    errors = np.bincount(rank[wrong], minlength=len(every))
    return areas(every - errors, errors)


def resampled_areas(
    rankings: Sequence[np.ndarray], wrong: np.ndarray, replicates: int, rng: np.random.Generator
) -> Areas:
    """The areas of bootstrap replicates: as many images, drawn with replacement, the same for all scores.

    Args:
        rankings: s ranks (n,), of the same n images.
        wrong: (n,) bool.

    Returns:
        (replicates, s) each.
    """
    images = len(wrong)
    sorts = [_sorted(rank, wrong) for rank in rankings]
    result = Areas(*(np.empty((replicates, len(rankings))) for _ in Areas._fields))
    step = max(1, BLOCK_DRAWS // images)
    for first in range(0, replicates, step):
        block = min(step, replicates - first)
        draws = rng.integers(images, size=(block, images)) + images * np.arange(block)[:, None]
        drawn = np.bincount(draws.ravel(), minlength=block * images).reshape(block, images)
        drawn = drawn.astype(np.uint16)  # of one image hardly ever a dozen
        for k, by_rank in enumerate(sorts):
            every = np.add.reduceat(drawn[:, by_rank.order], by_rank.starts, axis=1, dtype=np.int64)
            errors = np.zeros_like(every)
            errors[:, by_rank.bad_groups] = np.add.reduceat(
                drawn[:, by_rank.bad], by_rank.bad_starts, axis=1, dtype=np.int64
            )
            for target, values in zip(result, areas(every - errors, errors), strict=True):
                target[first : first + block, k] = values
    return result


def _sorted(rank: np.ndarray, wrong: np.ndarray) -> Sorted:
    order = np.argsort(rank, kind="stable")
    starts = np.flatnonzero(np.diff(rank[order], prepend=-1))
    with_errors = np.add.reduceat(wrong[order], starts, dtype=np.int64) > 0
    apart = with_errors | np.concatenate([[True], with_errors[:-1]])
    bad = order[wrong[order]]
    bad_starts = np.flatnonzero(np.diff(rank[bad], prepend=-1))
    return Sorted(order, starts[apart], bad, bad_starts, np.flatnonzero(with_errors[apart]))
