"""Outputs that do not depend on the image, and those that do so only through steps without a gradient."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE
from engine_helpers import engine_of
from test_pipeline_audit import audit

from augnet.audits.run import Run
from augnet.engine import inspect_model
from augnet.engine.graph.graph import trace
from augnet.engine.inspection import inspect_model as inspection
from augnet.engine.inspection.dependence import has_steps
from augnet.errors import ModelError

layers, ops = keras.layers, keras.ops


def two_heads(step, size=(4, 4, 1)):
    """Outputs 0 to 2 through a step of the image, 3 and 4 through a smooth layer."""
    keras.utils.set_random_seed(3)
    image = keras.Input(size)
    flat = layers.Flatten()(image)
    stepped = layers.Dense(3)(step(layers.Dense(6)(flat)))
    return keras.Model(image, layers.Concatenate()([stepped, layers.Dense(2, activation="tanh")(flat)]))


STEPS = {
    "round": lambda x: ops.round(4.0 * x),
    "sign": ops.sign,
    "argmax": lambda x: ops.one_hot(ops.argmax(x, axis=-1), 6),
    "cast": lambda x: ops.cast(ops.cast(4.0 * x, "int32"), "float32"),
    "comparison": lambda x: ops.cast(x > 0.1, "float32"),
    "stop": ops.stop_gradient,
}


@pytest.mark.parametrize("name", STEPS)
def test_outputs_behind_a_step_are_named(name, caplog):
    inspection._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        found = inspect_model(two_heads(STEPS[name])).spec
    assert found.no_gradient == (0, 1, 2) and found.unconnected == ()
    assert "outputs 0, 1, 2 depend on the image only through steps" in caplog.text


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_they_are_known_in_every_precision(precision):
    engine = engine_of(two_heads(STEPS["round"]), precision=precision)
    assert engine.spec.no_gradient == (0, 1, 2)
    rows = engine.measure(np.random.default_rng(1).uniform(size=(2, 4, 4, 1))).rows
    assert not rows[:, :3].any() and rows[:, 3:].any(axis=(2, 3, 4)).all()


def test_an_output_with_another_way_to_the_image_is_not_named():
    image = keras.Input((4, 4, 1))
    flat = layers.Flatten()(image)
    both = layers.Concatenate()([ops.round(9.0 * flat), flat])
    assert inspect_model(keras.Model(image, layers.Dense(3)(both))).spec.no_gradient == ()
    for gated in (
        layers.Multiply()([ops.cast(flat > 0.5, "float32"), flat]),
        ops.where(flat > 0.5, flat, 0.0 * flat),
        ops.where(ops.logical_not(flat > 0.5), flat, 0.0 * flat),
    ):
        assert inspect_model(keras.Model(image, gated)).spec.no_gradient == ()


def test_a_model_with_nothing_but_steps_is_refused():
    image = keras.Input((4, 4, 1))
    flat = layers.Flatten()(image)
    joined = layers.Concatenate()([ops.round(9.0 * flat), layers.Rescaling(0.0)(flat)])
    with pytest.raises(ModelError, match="no gradient flows"):
        inspect_model(keras.Model(image, joined))


@pytest.mark.parametrize("bias", [-3.0, -1e4])
def test_a_relu_that_is_dead_on_noise_is_not_a_missing_connection(bias):
    image = keras.Input((4, 4, 1))
    flat = layers.Flatten()(image)
    dead = layers.Dense(2, activation="relu", bias_initializer=keras.initializers.Constant(bias))(flat)
    clipped = layers.ReLU()(layers.Rescaling(1.0, bias)(layers.Dense(1)(flat)))
    cut = layers.Rescaling(0.0)(layers.Dense(1)(flat))
    model = keras.Model(image, layers.Concatenate()([layers.Dense(1)(flat), dead, clipped, cut]))
    outputs = model(np.random.default_rng(0).uniform(size=(8, 4, 4, 1))).numpy()
    assert (np.ptp(outputs[:, 1:], axis=0) == 0).all()
    found = inspect_model(model).spec
    assert found.unconnected == (4,) and found.no_gradient == ()


def test_saturated_outputs_are_not_taken_for_steps():
    image = keras.Input((4, 4, 1))
    flat = layers.Flatten()(image)
    steep = layers.Activation("hard_sigmoid")(layers.Rescaling(1e5, -5e4)(flat))
    model = keras.Model(image, steep)
    x = tf.random.stateless_uniform((4, 4, 4, 1), (0, 1))
    assert set(np.unique(model(x))) == {0.0, 1.0}
    assert inspect_model(model).spec.no_gradient == ()


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "EfficientNetB0", "ConvNeXtTiny", "DenseNet121"])
def test_real_models_have_no_steps(name):
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=10)
    image = np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype("float32")
    assert not has_steps(trace(model), image)
    found = inspect_model(model).spec
    assert found.no_gradient == () and found.unconnected == ()


def test_an_audit_flags_the_images_that_such_an_output_is_predicted_for(tmp_path, images):
    model = two_heads(STEPS["round"], (*SIZE, 3))
    model.save(tmp_path / "m.keras")
    found = audit(tmp_path / "m.keras", images, tmp_path / "out")
    table = found.statistics.to_pylist()
    judged = [("no_gradient" in row["flags"], int(np.argmax(row["outputs"])) < 3) for row in table]
    assert all(flagged == expected for flagged, expected in judged)
    assert found.summary["flags"]["no_gradient"] == sum(expected for _, expected in judged) > 0
    assert Run.read(found.folder).model.no_gradient == (0, 1, 2)
