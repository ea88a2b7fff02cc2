"""Areas under ROC and risk-coverage curves: closed forms, plain loops, scikit-learn, and chance."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from augnet.statistics.confidence import CONFIDENCES, class_logits, confidences
from augnet.statistics.ranking import Areas, areas, areas_of, ranks, resampled_areas


def found(scores, wrong):
    return Areas(*map(float, areas_of(ranks(np.array(scores, float)), np.array(wrong, bool))))


def roc_loop(scores, wrong):
    bad, good = ([s for s, w in zip(scores, wrong, strict=True) if w == kind] for kind in (True, False))
    pairs = list(itertools.product(bad, good))
    return sum(1.0 if s > t else 0.5 if s == t else 0.0 for s, t in pairs) / len(pairs)


def risk_loop(scores, wrong):
    """Mean over coverages of the share of wrong ones, without ties."""
    order = sorted(range(len(scores)), key=lambda k: scores[k])
    return sum(sum(wrong[k] for k in order[:m]) / m for m in range(1, len(order) + 1)) / len(order)


def risk_loop_of_ties(scores, wrong):
    """The same, averaged over every order of the tied images."""
    images = list(range(len(scores)))
    allowed = [
        order
        for order in itertools.permutations(images)
        if all(scores[a] <= scores[b] for a, b in itertools.pairwise(order))
    ]
    risks = [risk_loop(range(len(order)), [wrong[k] for k in order]) for order in allowed]
    return sum(risks) / len(risks)


def test_a_perfect_ranking_and_its_reverse():
    n, errors = 50, 10
    wrong = np.arange(n) >= n - errors
    perfect, reverse = found(np.arange(n), wrong), found(-np.arange(n), wrong)
    assert (perfect.auroc, reverse.auroc) == (1, 0)
    right = n - errors
    assert perfect.aurc == pytest.approx(sum((k - right) / k for k in range(right + 1, n + 1)) / n)
    assert reverse.aurc == pytest.approx(sum(min(1, errors / k) for k in range(1, n + 1)) / n)


def test_a_constant_score_knows_nothing():
    wrong = np.arange(40) < 7
    assert found(np.zeros(40), wrong) == pytest.approx((0.5, 7 / 40))


def test_images_without_a_value_come_first():
    assert found([np.nan, 1, 2, np.nan], [0, 0, 1, 1]) == pytest.approx(found([0, 1, 2, 0], [0, 0, 1, 1]))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6))
def test_ties_are_averaged_over_their_orders(pairs):
    scores, wrong = zip(*pairs, strict=True)
    assert found(scores, wrong).aurc == pytest.approx(risk_loop_of_ties(scores, wrong))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=40))
def test_areas_are_those_of_plain_loops_and_scikit_learn(pairs):
    scores, wrong = zip(*pairs, strict=True)
    measured = found(scores, wrong)
    if all(wrong) or not any(wrong):
        assert np.isnan(measured.auroc)
    else:
        assert measured.auroc == pytest.approx(roc_loop(scores, wrong))
        assert measured.auroc == pytest.approx(roc_auc_score(wrong, scores))
    distinct = [10 * score + k / 100 for k, score in enumerate(scores)]
    assert found(distinct, wrong).aurc == pytest.approx(risk_loop(distinct, wrong))


def test_replicates_are_the_areas_of_the_drawn_images():
    rng = np.random.default_rng(1)
    wrong = rng.random(60) < 0.2
    rankings = [ranks(np.round(rng.normal(size=60) + wrong, digits)) for digits in (0, 1, 9)]
    replicates = resampled_areas(rankings, wrong, 20, np.random.default_rng(5))
    draws = np.random.default_rng(5).integers(60, size=(20, 60))
    for r, drawn in enumerate(draws):
        for k, rank in enumerate(rankings):
            expected = found(rank[drawn], wrong[drawn])
            assert (replicates.auroc[r, k], replicates.aurc[r, k]) == pytest.approx(expected)


def test_replicates_do_not_depend_on_the_block(monkeypatch):
    rng = np.random.default_rng(2)
    wrong, rank = rng.random(50) < 0.3, ranks(rng.normal(size=50))
    whole = resampled_areas([rank], wrong, 7, np.random.default_rng(0))
    monkeypatch.setattr("augnet.statistics.ranking.BLOCK_DRAWS", 100)
    for one, other in zip(whole, resampled_areas([rank], wrong, 7, np.random.default_rng(0)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_intervals_cover_the_true_area():
    """Of normal scores one standard deviation apart, whose AUROC is Phi(1 / sqrt 2) = 0.7602."""
    rng = np.random.default_rng(3)
    covered, runs = 0, 200
    for _ in range(runs):
        wrong = rng.random(250) < 0.2
        replicates = resampled_areas([ranks(rng.normal(size=250) + wrong)], wrong, 200, rng)
        low, high = np.quantile(replicates.auroc[:, 0], [0.025, 0.975])
        covered += low <= 0.76025 <= high
    assert 0.9 <= covered / runs <= 0.99


def test_counts_may_have_any_leading_axes():
    right, wrong = np.array([[[3, 1], [0, 4]]]), np.array([[[0, 2], [1, 1]]])
    measured = areas(right, wrong)
    assert measured.auroc.shape == measured.aurc.shape == (1, 2)
    assert measured.aurc[0, 1] == pytest.approx(found([0, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 1]).aurc)


# ---- what the outputs alone say


def test_confidences_are_their_formulas():
    logits = np.random.default_rng(4).normal(size=(30, 5)) * 3
    measured = confidences(logits)
    assert list(measured) == list(CONFIDENCES)
    for k, z in enumerate(logits):
        p = np.exp(z) / np.exp(z).sum()
        second, first = sorted(z)[-2:]
        centred = z - z.mean()
        expected = {
            "maximum_probability": p.max(),
            "logit_margin": first - second,
            "predictive_entropy": -(p * np.log(p)).sum(),
            "normalised_maximum_logit": centred.max() / (np.abs(centred) ** 5).sum() ** (1 / 5),
        }
        assert {name: values[k] for name, values in measured.items()} == pytest.approx(expected)


def test_probabilities_say_what_their_logits_say():
    logits = np.random.default_rng(5).normal(size=(20, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = confidences(class_logits(logits, "multiclass", logits=True))
    for name, values in confidences(class_logits(p, "multiclass", logits=False)).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6)
    f = logits[:, :1]
    binary = confidences(class_logits(f, "binary", logits=True))
    np.testing.assert_allclose(binary["logit_margin"], np.abs(f[:, 0]))
    np.testing.assert_allclose(binary["maximum_probability"], 1 / (1 + np.exp(-np.abs(f[:, 0]))))
    other = confidences(class_logits(1 / (1 + np.exp(-f)), "binary", logits=False))
    np.testing.assert_allclose(other["predictive_entropy"], binary["predictive_entropy"], rtol=1e-6)


def test_extreme_and_broken_outputs():
    logits = np.array([[1e4, 0, -1e4], [2, 2, 2], [np.inf, 0, 0], [np.nan, 0, 0]])
    measured = confidences(logits)
    assert measured["maximum_probability"][:2] == pytest.approx([1, 1 / 3])
    assert measured["predictive_entropy"][:2] == pytest.approx([0, np.log(3)])
    assert np.isnan(measured["normalised_maximum_logit"][1])
    assert all(np.isnan(values[2:]).all() for values in measured.values())
    saturated = confidences(class_logits(np.array([[1.0, 0.0, 0.0]]), "multiclass", logits=False))
    assert saturated["maximum_probability"] == 1 and np.isfinite(saturated["logit_margin"])
