"""Resampled intervals are of the width that theory gives, and paired ones are of the same resample."""

import math

import numpy as np
import pytest
from scipy import stats

from augnet.comparison.bootstrap import GROUPS, RESAMPLES, Bootstrap, interval, intervals
from augnet.comparison.ranks import rank_correlations

RNG = np.random.default_rng(5)


def width(resampled):
    low, high = interval(resampled)
    return high - low


@pytest.mark.parametrize("images", [200, GROUPS, 30_000])
def test_the_interval_of_a_mean_is_as_wide_as_theory_says(images):
    values = RNG.gamma(2.0, size=images) + 1000.0
    found = Bootstrap(images).mean(values)
    assert found.shape == (RESAMPLES,)
    theory = 2 * 1.96 * values.std() / math.sqrt(images)
    assert width(found) == pytest.approx(theory, rel=0.08)
    assert np.mean(found) == pytest.approx(values.mean(), abs=theory / 20)


@pytest.mark.parametrize("images", [400, 30_000])
@pytest.mark.parametrize("q", [0.05, 0.5])
def test_the_interval_of_a_quantile_is_as_wide_as_theory_says(images, q):
    values = RNG.normal(size=images)
    density = stats.norm.pdf(stats.norm.ppf(q))
    theory = 2 * 1.96 * math.sqrt(q * (1 - q) / images) / density
    sampled = [width(Bootstrap(images, seed).quantile(RNG.normal(size=images), q)) for seed in range(4)]
    assert np.mean(sampled) == pytest.approx(theory, rel=0.25)
    low, high = interval(Bootstrap(images).quantile(values, q))
    assert low < np.quantile(values, q) < high


def test_a_quantile_is_resampled_as_a_plain_bootstrap_does():
    values = RNG.lognormal(size=300)
    plain = [
        np.quantile(RNG.choice(values, len(values)), 0.5, method="inverted_cdf") for _ in range(RESAMPLES)
    ]
    assert interval(Bootstrap(300).quantile(values, 0.5)) == pytest.approx(
        interval(np.array(plain)), rel=0.03
    )


def test_paired_figures_are_of_the_same_resample():
    values = RNG.normal(size=500)
    bootstrap = Bootstrap(500)
    for figure in (bootstrap.mean, lambda part: bootstrap.quantile(part, 0.05)):
        assert not np.any(figure(values) - figure(values.copy()))
        shifted = figure(values + 3.0) - figure(values)
        np.testing.assert_allclose(shifted, 3.0, atol=1e-6)


def test_the_same_seed_gives_the_same_resamples():
    values = RNG.normal(size=2000)
    assert np.array_equal(Bootstrap(2000, 3).mean(values), Bootstrap(2000, 3).mean(values))
    assert not np.array_equal(Bootstrap(2000, 3).mean(values), Bootstrap(2000, 4).mean(values))


def test_missing_values_are_left_out():
    values = RNG.normal(size=400)
    missing = np.where(np.arange(400) % 4 == 0, np.nan, values)
    found = Bootstrap(400)
    assert width(found.mean(missing)) == pytest.approx(
        2 * 1.96 * np.nanstd(missing) / math.sqrt(300), rel=0.1
    )
    assert np.isfinite(found.quantile(missing, 0.5)).all()
    assert np.isnan(found.quantile(np.full(400, np.nan), 0.5)).all()
    assert interval(found.quantile(np.full(400, np.nan), 0.5)) is None


def test_means_of_slices_are_those_of_each_alone():
    values, slices = RNG.normal(size=900), np.arange(900) % 4
    found = Bootstrap(900).means(values, slices, 3)  # the last slice is left out
    low, high = intervals(found)
    for k in range(3):
        own = values[slices == k]
        assert high[k] - low[k] == pytest.approx(2 * 1.96 * own.std() / math.sqrt(len(own)), rel=0.1)
        assert low[k] < own.mean() < high[k]


def test_a_slice_that_a_resample_misses_has_no_interval():
    found = Bootstrap(50).means(RNG.normal(size=50), np.where(np.arange(50) == 7, 0, 1), 1)
    assert np.isnan(intervals(found)[0][0])


def test_rank_correlations_are_spearmans_with_ties():
    first, second = RNG.integers(0, 5, (6, 30)), RNG.integers(0, 5, (6, 30))
    theirs = [stats.spearmanr(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlations(first, second), theirs, atol=1e-12)
    assert rank_correlations(first, first).tolist() == [1.0] * 6
    assert np.isnan(rank_correlations(np.zeros((1, 4)), first[:1, :4])).all()
