"""Survival under noise: closed forms, SciPy's integral, and draws of the linearised outputs."""

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import multivariate_normal
from statistics_helpers import batch_of, random_batch

from augnet.statistics.decision import threshold
from augnet.statistics.image import image_statistics
from augnet.statistics.orthant import orthant
from augnet.statistics.reliability import (
    PASSES,
    no_trials,
    reliability,
    reliability_sums,
    same_prediction,
)

NOISE = (0.05, 0.3)


def survival(batch, task="multiclass", noise=NOISE, **kwargs):
    """(n, sigma) the columns of the statistics, NaN for null."""
    labels = np.full(len(batch), -1)
    columns = image_statistics(batch, task=task, label_outputs=labels, border=0.1, noise=noise, **kwargs)
    found = [columns[f"survival_{sigma:g}"].to_numpy(zero_copy_only=False) for sigma in noise]
    return np.stack(found, axis=1)


def correlations(rng, n, size):
    """(n, size, size) of random vectors."""
    vectors = rng.normal(size=(n, size, size + 1)) + 0.7
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return vectors @ vectors.transpose(0, 2, 1)


def test_independent_boundaries_multiply():
    z = np.array([[0.3, 2.0, 1.0], [-0.5, 0.1, np.inf]])
    np.testing.assert_allclose(orthant(z, np.eye(3)[None].repeat(2, axis=0)), ndtr(z).prod(axis=1), rtol=1e-9)


@pytest.mark.parametrize("rho", [-0.9, 0.2, 0.99])
def test_two_boundaries_at_zero_give_sheppards_formula(rho):
    correlation = np.array([[[1.0, rho], [rho, 1.0]]])
    assert orthant(np.zeros((1, 2)), correlation)[0] == pytest.approx(
        0.25 + np.arcsin(rho) / (2 * np.pi), abs=5e-4
    )


@pytest.mark.parametrize("rivals", [1, 4, 9, 40])
def test_the_largest_of_equal_outputs_is_each_as_often(rivals):
    correlation = np.full((1, rivals, rivals), 0.5) + 0.5 * np.eye(rivals)
    assert orthant(np.zeros((1, rivals)), correlation)[0] == pytest.approx(1 / (rivals + 1), abs=1e-3)


def test_boundaries_that_move_together_count_once():
    z = np.array([[0.4, 1.1, 0.4]])
    np.testing.assert_allclose(orthant(z, np.ones((1, 3, 3))), ndtr([0.4]), atol=1e-6)


def test_any_boundaries_are_as_scipy_integrates_them():
    rng = np.random.default_rng(0)
    z, correlation = rng.uniform(-1, 3, size=(20, 9)), correlations(rng, 20, 9)
    expected = [
        multivariate_normal.cdf(point, cov=matrix, maxpts=100_000, abseps=1e-5, rng=1)
        for point, matrix in zip(z, correlation, strict=True)
    ]
    assert np.abs(orthant(z, correlation) - expected).max() < 1e-3


def test_far_boundaries_change_nothing():
    rng = np.random.default_rng(1)
    z, correlation = rng.uniform(0, 3, size=(5, 6)), correlations(rng, 5, 6)
    near = orthant(z[:, :4], correlation[:, :4, :4])
    z[:, 4:] = [9.0, np.inf]
    np.testing.assert_allclose(orthant(z, correlation), near, rtol=1e-12)
    assert orthant(np.full((1, 6), np.inf), correlation[:1]) == 1.0


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("task, outputs", [("multiclass", 5), ("multilabel", 4), ("binary", 1)])
def test_it_is_what_draws_of_the_linearised_outputs_give(task, outputs, logits):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(8, outputs, 3, 4, 2)) + rng.normal(size=(8, 1, 3, 4, 2))
    values = rng.normal(size=(8, outputs)) + threshold(logits)
    batch = batch_of(rows, values, separate=task != "multiclass")
    found = survival(batch, task, noise=(0.2, 0.6), logits=logits)
    draws = 20_000
    steps = rng.normal(size=(draws, 24)) @ rows.reshape(8, outputs, 24).transpose(0, 2, 1)
    for k, sigma in enumerate((0.2, 0.6)):
        for image in range(8):
            same = same_prediction(values[image] + sigma * steps[image], values[image], task, logits)
            assert found[image, k] == pytest.approx(same.mean(), abs=5 * 0.5 / np.sqrt(draws) + 1e-3)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_copies_correct_a_model_that_bends(task):
    rng = np.random.default_rng(6)
    count, inputs, sigma = 5, 24, 0.7
    rows = rng.normal(size=(6, count, 1, inputs, 1))
    values = rng.normal(1.5, 1.0, size=(6, count))
    batch = batch_of(rows, values, separate=task != "multiclass")

    def noisy(image, draws):
        """Outputs that grow with the square of the noise, each by another factor, and saturate."""
        steps = draws @ rows[image, :, 0, :, 0].T
        bent = values[image] + steps + 0.1 * np.arange(count) * np.square(draws).sum(axis=1, keepdims=True)
        return np.where(bent > 4, 4 + 0.3 * (bent - 4), bent)

    half = sigma * rng.normal(size=(6, 1, 50, inputs))
    copies = np.concatenate([half, -half], axis=2)
    outputs = np.stack([noisy(image, copies[image, 0])[None] for image in range(6)])
    draws = sigma * rng.normal(size=(20_000, inputs))
    same = [same_prediction(noisy(image, draws), values[image], task, True).mean() for image in range(6)]
    alone = np.abs(survival(batch, task, noise=(sigma,))[:, 0] - same)
    helped = np.abs(survival(batch, task, noise=(sigma,), noisy_copies=outputs)[:, 0] - same)
    assert helped.mean() < 0.04 and helped.mean() < alone.mean() / 2


def test_copies_of_a_linear_model_say_what_its_jacobian_does():
    rng = np.random.default_rng(7)
    rows, values = rng.normal(size=(4, 3, 2, 4, 1)), rng.normal(size=(4, 3))
    half = 0.3 * rng.normal(size=(4, 1, 2000, 8))
    draws = np.concatenate([half, -half], axis=2)
    copies = values[:, None, None] + draws @ rows.reshape(4, 1, 3, 8).transpose(0, 1, 3, 2)
    batch = batch_of(rows, values)
    order = np.array([2, 0, 1])
    turned = batch_of(rows, values, selected=order)
    alone = survival(batch, noise=(0.3,))
    for made in (batch, turned):
        helped = survival(made, noise=(0.3,), noisy_copies=copies)
        np.testing.assert_allclose(helped, alone, atol=0.01)


def test_it_is_null_without_every_row_and_for_a_regression():
    rng = np.random.default_rng(3)
    some = random_batch(rng, selected=[0, 2])
    assert np.isnan(survival(some)).all() and np.isnan(survival(random_batch(rng), "regression")).all()
    spoiled = random_batch(rng)
    spoiled.gram[1, 0, 0] = np.nan
    assert np.isnan(survival(spoiled)).all(axis=1).tolist() == [False, True, False, False, False, False]


def test_outputs_that_move_alike_never_change_places():
    rows = np.random.default_rng(4).normal(size=(1, 1, 3, 4, 1)).repeat(3, axis=1)
    assert (survival(batch_of(rows, [[1.0, 0.999, 0.5]])) == 1.0).all()


def test_the_nearest_boundary_alone_is_the_margin():
    batch = random_batch(np.random.default_rng(5), outputs=2)
    columns = image_statistics(
        batch, task="multiclass", label_outputs=np.full(6, -1), border=0.1, noise=NOISE
    )
    margin = columns["margin_l2"].to_numpy()
    np.testing.assert_allclose(survival(batch), ndtr(margin[:, None] / NOISE), rtol=1e-9)


def test_reliability_is_by_bins_and_tells_what_few_copies_explain():
    foretold = np.array([[0.05, 0.5], [0.07, np.nan], [1.0, 0.55]])
    seen = np.array([[0.10, 0.4], [0.05, np.nan], [0.98, 0.75]])
    parts = [reliability_sums(foretold[k : k + 1], seen[k : k + 1]) for k in range(3)]
    found = reliability(no_trials(2) + sum(parts), (0.1, 0.2))
    assert found["passes"] == PASSES
    low, high = found["sigmas"]
    assert (low["images"], high["images"]) == (3, 2)
    assert low["foretold"] == pytest.approx(1.12 / 3) and low["seen"] == pytest.approx(1.13 / 3)
    assert low["mean_abs_error"] == pytest.approx(0.09 / 3)
    assert [part["images"] for part in low["bins"]] == [2, 1]
    assert high["bins"] == [{"images": 2, "foretold": pytest.approx(0.525), "seen": pytest.approx(0.575)}]
    expected = np.abs(np.random.default_rng(0).binomial(PASSES, 0.5, 100_000) / PASSES - 0.5).mean()
    assert high["sampling_error"] == pytest.approx(expected, rel=0.02)


def test_no_trials_give_no_figures():
    (found,) = reliability(no_trials(1), (0.1,))["sigmas"]
    assert found["images"] == 0 and found["seen"] is None and found["bins"] == []
