"""Rows of random combinations beside those of outputs: against exact rows, and whatever the batch."""

import keras
import numpy as np
import pytest
from conftest import SIZE

from augnet.engine import Engine, EngineOptions, inspect_model
from augnet.engine.engine import _draws
from augnet.engine.measures.sketch import combinations
from augnet.errors import ConfigError
from augnet.selection import RowSelection
from augnet.statistics import sketch
from augnet.statistics.image import image_statistics

TOP = RowSelection.parse("top:5")
OUTPUTS, COUNT = 60, 16


@pytest.fixture(scope="module")
def model():
    """60 outputs of a smooth network, so that float32 and float64 differ by rounding alone."""
    keras.utils.set_random_seed(4)
    layers = keras.layers
    stack = [
        layers.Conv2D(8, 3, activation="tanh"),
        layers.AveragePooling2D(2),
        layers.Conv2D(12, 3, activation="tanh"),
        layers.Flatten(),
        layers.Dense(OUTPUTS),
    ]
    return keras.Sequential([keras.Input((*SIZE, 3)), *stack])


def engine(model, outputs=TOP, precision="float32", **options):
    options = EngineOptions(outputs=outputs, stored=None, precision=precision, **options)
    return Engine(inspect_model(model, precision=precision), options, tuning_seconds=0)


def images(count):
    return np.random.default_rng(8).random((count, *SIZE, 3), np.float32)


def exact(model, x):
    """All rows (n, K, inputs) in float64."""
    every = engine(model, RowSelection("all"), "float64")
    return every.jacobian(x.astype(np.float64)).reshape(len(x), OUTPUTS, -1)


@pytest.mark.parametrize("scale", [None, (0.5, 2.0, 3.0)])
def test_the_measures_are_those_of_the_combinations_of_exact_rows(model, scale):
    x = images(5)
    rows = combinations(_draws(x), COUNT, OUTPUTS).astype(float) @ exact(model, x)
    rows = (rows.reshape(5, COUNT, *SIZE, 3) * (1.0 if scale is None else scale)).reshape(5, COUNT, -1)
    found = engine(model, sketch=COUNT, input_scale=scale).measure(x)
    np.testing.assert_allclose(found.sketch_gram, rows @ rows.transpose(0, 2, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.sketch_l1, np.abs(rows).sum(axis=2), rtol=1e-4)


def test_rows_of_outputs_and_their_measures_are_those_without_a_sketch(model):
    x = images(5)
    plain, found = engine(model).measure(x), engine(model, sketch=COUNT).measure(x)
    assert plain.sketch_gram is None and plain.sketch_l1 is None
    np.testing.assert_array_equal(found.selected, plain.selected)
    for name in ("gram", "boundary_l1", "magnitude", "input_dot", "rings", "views"):
        np.testing.assert_allclose(getattr(found, name), getattr(plain, name), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.moments.mean, plain.moments.mean, atol=1e-6)
    sketched = engine(model, sketch=COUNT)
    np.testing.assert_allclose(sketched.jacobian(x), engine(model).jacobian(x), atol=1e-6)


def test_an_image_has_the_same_sketch_in_any_batch_and_place(model):
    x = images(7)
    found = engine(model, sketch=COUNT, batch_size=7).measure(x)
    again = engine(model, sketch=COUNT, batch_size=2).measure(x[::-1])
    np.testing.assert_allclose(again.sketch_gram[::-1], found.sketch_gram, rtol=1e-5, atol=1e-5)
    assert not np.allclose(found.sketch_gram[0], found.sketch_gram[1], rtol=0.1)


def test_exact_values_are_within_two_standard_errors_in_95_percent_of_the_images(model):
    x = images(100)
    rows, batch = exact(model, x), engine(model, sketch=COUNT).measure(x)
    statistics = image_statistics(batch, task="multiclass", label_outputs=np.full(100, -1), border=0.1)
    for name, values in {
        "sketch_frobenius": np.linalg.norm(rows, axis=(1, 2)),
        "sketch_spectral": np.linalg.norm(rows, 2, axis=(1, 2)),
        "sketch_magnitude": np.linalg.norm(rows, axis=1).mean(axis=1),
    }.items():
        found, errors = (statistics[key].to_numpy() for key in (name, f"{name}_error"))
        assert np.mean(np.abs(found - values) <= 2 * errors) >= 0.89, name
        assert np.abs(found / values - 1).mean() < 0.4, name


def test_an_image_whose_rows_are_not_finite_has_no_estimates(model):
    x = images(3)
    x[1, 0, 0, 0] = np.nan
    batch = engine(model, sketch=COUNT).measure(x)
    statistics = image_statistics(batch, task="multiclass", label_outputs=np.full(3, -1), border=0.1)
    for name in sketch.estimates(batch.sketch_gram[:1], batch.sketch_l1[:1], 1):
        for column in (name, f"{name}_error"):
            assert [value is None for value in statistics[column].to_pylist()] == [False, True, False]


def test_no_fewer_rows_than_all_are_refused(model):
    with pytest.raises(ConfigError, match=r"`sketch`: 55 .* the 5 rows of `outputs`: top:5 .* 60 outputs"):
        engine(model, sketch=OUTPUTS - 5)
    assert engine(model, sketch=OUTPUTS - 6).layout.computed == OUTPUTS - 1
