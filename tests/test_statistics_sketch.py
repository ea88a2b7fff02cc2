"""Estimates from a sketch, against exact values of known matrices: right on average, within their errors."""

import numpy as np
import pytest

from augnet.engine.measures.sketch import combinations
from augnet.statistics import sketch

OUTPUTS, INPUTS, IMAGES = 150, 80, 200

SPECTRA = {
    "flat": np.ones(INPUTS),
    "slow": np.arange(1, INPUTS + 1) ** -0.25,
    "fast": np.arange(1, INPUTS + 1) ** -1.0,
    "exponential": np.exp(-np.arange(INPUTS) / 20),
    "one": np.r_[1.0, np.zeros(INPUTS - 1)],
    "two": np.r_[1.0, 1.0, np.full(INPUTS - 2, 1e-4)],
    "standing out": np.r_[1.0, np.full(INPUTS - 1, 0.2)],
}


def matrix_of(values):
    """(OUTPUTS, INPUTS) with these singular values, and random singular vectors."""
    rng = np.random.default_rng(5)
    left = np.linalg.qr(rng.normal(size=(OUTPUTS, INPUTS)))[0]
    right = np.linalg.qr(rng.normal(size=(INPUTS, INPUTS)))[0]
    return (left * values) @ right


def estimated(matrix, count, seed=0, images=IMAGES):
    rows = combinations(np.arange(images) + 10**6 * seed, count, len(matrix)) @ matrix
    return sketch.estimates(rows @ rows.transpose(0, 2, 1), np.abs(rows).sum(axis=2), matrix.shape[1])


def exact(matrix):
    return {
        "sketch_frobenius": np.linalg.norm(matrix),
        "sketch_spectral": np.linalg.norm(matrix, 2),
        "sketch_magnitude": np.linalg.norm(matrix, axis=0).mean(),
    }


@pytest.mark.parametrize("count", [16, 32])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_the_exact_value_is_within_two_standard_errors_in_95_percent(spectrum, count):
    matrix = matrix_of(SPECTRA[spectrum])
    for name, (values, errors) in estimated(matrix, count).items():
        covered = np.mean(np.abs(values - exact(matrix)[name]) <= 2 * errors)
        assert covered > 0.95 - 3 * np.sqrt(0.95 * 0.05 / IMAGES), name


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_norm_and_magnitude_are_right_on_average_and_their_errors_are_no_larger_than_they_need_be(spectrum):
    matrix = matrix_of(SPECTRA[spectrum])
    found, count = estimated(matrix, 32), 32
    for name in ("sketch_frobenius", "sketch_magnitude"):
        values, errors = found[name]
        off = values.mean() - exact(matrix)[name]
        assert abs(off) < 4 * values.std() / np.sqrt(IMAGES) + exact(matrix)[name] / (4 * count), name
        assert errors.mean() < 1.3 * values.std(), name


def test_the_largest_singular_value_is_found_where_it_stands_out():
    matrix = matrix_of(SPECTRA["fast"])
    values, errors = estimated(matrix, 64)["sketch_spectral"]
    assert values.mean() == pytest.approx(1, abs=0.05) and errors.mean() < 0.15


def test_errors_fall_with_the_number_of_combinations():
    matrix = matrix_of(SPECTRA["slow"])
    few, many = estimated(matrix, 8), estimated(matrix, 128, images=10)
    for name in few:
        assert many[name][1].mean() < few[name][1].mean() / 2


def test_a_scale_of_the_rows_is_one_of_estimates_and_errors():
    matrix = matrix_of(SPECTRA["slow"])
    for name, (values, errors) in estimated(matrix, 32, images=5).items():
        scaled, wider = estimated(matrix * 1e-12, 32, images=5)[name]
        np.testing.assert_allclose(scaled, values * 1e-12, rtol=1e-6)
        np.testing.assert_allclose(wider, errors * 1e-12, rtol=1e-6)


def test_a_jacobian_of_zeros_is_estimated_as_zero_without_error():
    for values, errors in estimated(np.zeros((OUTPUTS, 7)), 8, images=3).values():
        assert (values == 0).all() and (errors == 0).all()


def test_combinations_are_those_of_their_seed_and_standard_normal():
    drawn = combinations(np.array([3, 2**31 - 1, 3]), 40, 500)
    assert drawn.dtype == np.float32 and drawn.shape == (3, 40, 500)
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], drawn[1])
    assert drawn.mean() == pytest.approx(0, abs=0.02) and drawn.var() == pytest.approx(1, abs=0.02)
    assert combinations(np.array([1, 2]), 0, 9).shape == (2, 0, 9)
