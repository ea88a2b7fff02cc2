"""Errors, p-values and false discovery rates, against closed forms and simulation."""

import math

import numpy as np
import pytest

from augnet.statistics.intervals import mean_interval
from augnet.statistics.paired import (
    benjamini_hochberg,
    p_value,
    smallest_effect,
    standard_error,
)


def test_the_error_of_numbers_is_that_of_their_mean():
    values = np.random.default_rng(0).normal(size=50)
    assert standard_error(values) == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    assert standard_error(np.array([1.5])) == math.inf


def test_equal_answers_are_not_certain():
    assert standard_error(np.ones(10)) > 0.1 and standard_error(np.full(10, 0.9)) > 0.1
    low, high = mean_interval(1.0, standard_error(np.ones(10)))
    assert low < 0.8 and high > 1
    assert p_value(1.0, standard_error(np.ones(10))) < 1e-4
    assert p_value(1.0, standard_error(np.ones(1))) > 0.01


def test_p_values_of_nothing_are_not_small_too_often():
    rng = np.random.default_rng(2)
    differences = (rng.random((2000, 40)) < 0.2).astype(float) - (rng.random((2000, 40)) < 0.2)
    found = [p_value(float(row.mean()), standard_error(row)) for row in differences]
    assert np.mean(np.array(found) < 0.05) < 0.07


def test_benjamini_hochberg():
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.9])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.025, 0.05, 0.05, 0.025, 0.9])
    assert len(benjamini_hochberg(np.array([]))) == 0


def test_more_images_show_smaller_effects():
    assert smallest_effect(200) < 0.04 < smallest_effect(20) < 0.25 < smallest_effect(5)
    assert smallest_effect(0) == 1
    rng = np.random.default_rng(3)
    effect = smallest_effect(50)
    changed = rng.random((2000, 50)) < effect
    seen = [p_value(row.mean(), math.sqrt(effect * (1 - effect) / 50)) < 0.05 for row in changed]
    assert 0.7 < np.mean(seen) < 0.9
