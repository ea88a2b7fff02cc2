"""Intervals cover what they should, and are wide where images are few."""

import numpy as np
import pytest
from scipy import stats

from augnet.statistics.intervals import (
    CONFIDENCE,
    mean_interval,
    paired_share_interval,
    share_interval,
    two_share_interval,
)
from augnet.statistics.paired import standard_error

RNG = np.random.default_rng(5)


def test_intervals_of_means_cover_the_truth():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(2000):
        before, after = rng.random(60) < 0.1, rng.random(60) < 0.4
        differences = after.astype(float) - before
        low, high = mean_interval(float(differences.mean()), standard_error(differences))
        covered += low <= 0.3 <= high
    assert 0.93 < covered / 2000 < 0.98


@pytest.mark.parametrize(("count", "images"), [(0, 30), (3, 30), (250, 1000), (40, 40)])
def test_a_share_has_wilsons_interval(count, images):
    theirs = stats.binomtest(count, images).proportion_ci(CONFIDENCE, method="wilson")
    assert share_interval(count, images) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_no_images_leave_every_share_possible():
    assert share_interval(0, 0) == (0.0, 1.0)
    assert paired_share_interval(0, 0, 0) == (-1.0, 1.0)


def test_few_images_without_a_flip_prove_little():
    assert share_interval(0, 30)[1] > 0.1
    assert paired_share_interval(0, 0, 30)[1] > 0.05
    assert paired_share_interval(0, 0, 10_000)[1] < 0.001


@pytest.mark.parametrize("images", [40, 400])
def test_differences_of_shares_are_covered(images):
    gain, loss = 0.03, 0.06
    covered = paired = 0
    for _ in range(2000):
        gained, lost, _ = RNG.multinomial(images, (gain, loss, 1 - gain - loss))
        low, high = paired_share_interval(int(gained), int(lost), images)
        paired += low <= gain - loss <= high
        first, second = RNG.binomial(images, 0.9), RNG.binomial(2 * images, 0.8)
        low, high = two_share_interval((int(first), images), (int(second), 2 * images))
        covered += low <= -0.1 <= high
    assert paired / 2000 > 0.935
    assert covered / 2000 > 0.935
