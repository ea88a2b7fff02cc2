"""Every precision against float64: the rows, the error that is recorded of them, and what is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import small_cnn
from engine_helpers import engine_of

from augnet.engine.backends import backend
from augnet.engine.rows import RuleRows
from augnet.engine.verification.oracle import make_oracle
from augnet.errors import ConfigError, ModelError

layers = keras.layers
SHAPE = (12, 10, 3)


def smooth_model():
    """Without kinks, so that rows differ between precisions by rounding alone."""
    keras.utils.set_random_seed(6)
    steps = [layers.Conv2D(6, 3, activation="softplus"), layers.BatchNormalization()]
    ends = [layers.AveragePooling2D(2), layers.Flatten(), layers.Dense(4)]
    return keras.Sequential([keras.Input(SHAPE), *steps, *ends])


def images(count=4):
    return np.random.default_rng(5).uniform(size=(count, *SHAPE)).astype("float32")


def float64_rows(model, x):
    oracle = make_oracle(model, x)
    return np.stack([oracle.rows(image, np.arange(4)) for image in x])


def error(made, truth):
    return np.linalg.norm(made - truth) / np.linalg.norm(truth)


def test_bfloat16_rows_are_float32_values_of_bfloat16_accuracy():
    model, x = smooth_model(), images()
    engine = engine_of(model, precision="bfloat16")
    batch = engine.measure(x)
    assert batch.rows.dtype == np.float32 and batch.gram.dtype == np.float64
    assert 2.0**-12 < error(batch.rows, float64_rows(model, x)) < 2.0**-5
    assert engine.choice().program == "rules"
    assert np.abs(batch.outputs - model(x).numpy()).max() < 0.05


def test_the_recorded_error_is_that_of_the_rows():
    model = smooth_model()
    probe = np.random.default_rng(0).uniform(size=(1, *SHAPE)).astype("float32")
    engine = engine_of(model, precision="bfloat16")
    found = engine.choice().report
    assert found["error_against"] == "float64"
    # It is measured on mixtures of the rows.
    assert found["error"] == pytest.approx(
        error(engine.measure(probe).rows, float64_rows(model, probe)), rel=0.7
    )
    found = engine_of(model, precision="float64").choice().report
    assert found["error_against"] == "float64" and found["error"] < 1e-10
    found = engine_of(model).choice().report
    assert found["error_against"] == "float32" and 0 <= found["error"] < 1e-5


def test_where_float32_cannot_decide_the_error_against_float64_is_recorded(monkeypatch):
    from augnet.engine import agreement

    monkeypatch.setattr(agreement, "KINK", -1.0)
    found = engine_of(smooth_model()).choice().report
    assert found["error_against"] == "float64" and 1e-9 < found["error"] < 1e-5


def test_a_faulty_rewriting_is_not_used_in_bfloat16(monkeypatch):
    right = RuleRows.rows

    def wrong(self, *args, **options):
        outputs, rows = right(self, *args, **options)
        return outputs, 1.01 * rows

    monkeypatch.setattr(RuleRows, "rows", wrong)
    choice = engine_of(smooth_model(), precision="bfloat16").choice()
    assert choice.program == "tape" and 1e-4 < choice.report["error"] < 0.03


def test_a_fault_in_bfloat16_alone_is_not_used(monkeypatch):
    right = RuleRows.rows

    def wrong(self, x, *args, **options):
        outputs, rows = right(self, x, *args, **options)
        return outputs, rows * (1 if x.dtype == tf.float64 else 1.2)

    monkeypatch.setattr(RuleRows, "rows", wrong)
    assert engine_of(smooth_model(), precision="bfloat16").choice().program == "tape"


def test_bfloat16_with_kinks_agrees_in_most_of_the_jacobian():
    model, x = small_cnn(), images()
    rows = engine_of(model, precision="bfloat16").measure(x).rows
    wide = engine_of(model, precision="float64", store_dtype="float64").measure(x).rows
    assert error(rows, wide) < 0.3


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_a_subclassed_model_keeps_its_own_precision(precision):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(keras.ops.reshape(x, (x.shape[0], 360)))

    model = Own()
    model(images())
    with pytest.raises(ModelError, match=r"subclassed.*float32.*rebuild"):
        engine_of(model, precision=precision)


@pytest.mark.skipif(backend.has_tensor_float_32(), reason="this device has TensorFloat-32")
def test_tf32_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match=r"`precision`: tf32 needs .*use float32"):
        engine_of(smooth_model(), precision="tf32")


@pytest.mark.parametrize("precision, allowed", [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_float32_means_float32_and_the_process_is_left_as_it_was(monkeypatch, precision, allowed):
    monkeypatch.setattr(backend, "has_tensor_float_32", lambda: True)
    run, seen = backend.run, []
    enabled = tf.config.experimental.tensor_float_32_execution_enabled

    def spying(*args):
        seen.append(enabled())
        return run(*args)

    monkeypatch.setattr(backend, "run", spying)
    before = enabled()
    engine = engine_of(smooth_model(), precision=precision)
    engine.measure(images())
    engine.jacobian(images(1))
    assert seen == [allowed, allowed] and enabled() == before


@pytest.mark.skipif(not backend.has_tensor_float_32(), reason="needs a GPU with TensorFloat-32")
def test_tf32_is_less_accurate_than_float32():
    model, x = smooth_model(), images()
    truth = float64_rows(model, x)
    exact, rough = (error(engine_of(model, precision=p).measure(x).rows, truth) for p in ("float32", "tf32"))
    assert exact < 1e-5 < rough < 1e-2


@pytest.mark.parametrize("precision", ["bfloat16", "float64"])
def test_what_a_normalization_has_adapted_to_is_kept(precision):
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(1).normal(3, 5, (8, *SHAPE)))
    model = keras.Sequential([keras.Input(SHAPE), normalization, layers.Flatten(), layers.Dense(4)])
    x = images()
    rows = engine_of(model, precision=precision).jacobian(x)
    assert error(rows, float64_rows(model, x)) < (1e-9 if precision == "float64" else 0.02)
