"""Kinks and faults told apart where no float64 judges."""

import keras
import numpy as np
import pytest
from keras import ops

from augnet.engine.agreement import compare
from augnet.engine.rows import TapeRows

IMAGES = np.random.default_rng(0).uniform(size=(1, 64)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """ReLU units of which a quarter lie within rounding of their kinks at IMAGES."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(256, "relu"), keras.layers.Dense(3)])
    kernel = np.random.default_rng(1).standard_normal((64, 256)).astype("float32")
    bias = -(IMAGES @ kernel)[0]
    bias[64:] += 1
    model.layers[0].set_weights([kernel, bias])
    return model


def judged(model, rules):
    return compare(rules, TapeRows(model), None, IMAGES).words


def test_rows_across_a_kink_are_as_near_as_kinks_allow(model):
    rounded = np.float32(1 + 1e-6 * np.random.default_rng(2).standard_normal(64))
    assert judged(model, TapeRows(lambda x: model(x * rounded))) == "as near as kinks allow"


def test_a_fault_larger_than_what_kinks_change_is_none_of_them(model):
    # The values stay nearly the same, the slopes do not.
    assert judged(model, TapeRows(lambda x: model(x) + 1e-5 * ops.sin(1e7 * x[:, :3]))) == ""


def test_without_kinks_a_small_fault_is_one():
    smooth = keras.Sequential([keras.Input((64,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(3)])
    assert "in float32" in judged(smooth, TapeRows(smooth))
    wrong = TapeRows(lambda x: smooth(x) + 1e-5 * ops.sin(1e3 * x[:, :3]))
    assert judged(smooth, wrong) == ""


def test_where_rounding_moves_the_outputs_far_float64_judges():
    weights = np.random.default_rng(3).standard_normal((64, 3))

    def plain(x):
        return ops.sin(1e5 * ops.matmul(x, weights.astype(x.dtype.as_numpy_dtype)))

    def backwards(x, slope=1.0):
        return ops.sin(slope * 1e5 * ops.matmul(x[:, ::-1], weights[::-1].astype(x.dtype.as_numpy_dtype)))

    def agreed(rules, wide=True):
        pair = TapeRows(rules), TapeRows(plain)
        return compare(*pair, (lambda: pair) if wide else None, IMAGES).words

    assert "in float64" in agreed(backwards)
    assert agreed(backwards, wide=False) == ""
    assert agreed(lambda x: backwards(x, slope=1 + 1e-7)) == ""
