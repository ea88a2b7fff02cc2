"""Signatures that take integers: differentiated behind their own cast, refused where there is more to it."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from augnet.config import ModelConfig
from augnet.engine import Engine, inspect_model
from augnet.errors import ModelError
from augnet.models.loading import load_model
from augnet.models.presets import suggest_scale

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3)).astype("uint8")
SPEC = tf.TensorSpec((None, 8, 6, 3), tf.uint8, name="image")
WEIGHTS = np.random.default_rng(1).normal(size=(6 * 8 * 3, 2)).astype("float32")


def load(folder, **options):
    return load_model(ModelConfig(path=str(folder), **options))


def export(folder, function, *specs):
    module = tf.Module()
    module.weights = tf.Variable(WEIGHTS)
    inner = tf.function(lambda *inputs: function(module.weights, *inputs), autograph=False)
    module.f = tf.function(
        lambda *inputs: {"y": inner(*inputs)}, input_signature=specs or [SPEC], autograph=False
    )
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.f})


def tape_jacobian(function, images):
    with tf.GradientTape(persistent=True) as tape:
        x = tf.constant(images)
        tape.watch(x)
        y = function(x)
    return tape.batch_jacobian(y, x, experimental_use_pfor=False).numpy()


@pytest.mark.parametrize("by", ["model.export", "tf.saved_model.save"])
def test_a_keras_model_is_differentiated_behind_its_cast(tmp_path, caplog, by):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 6, 3), dtype="uint8", name="image")
    x = layers.Conv2D(4, 3, activation="tanh")(layers.Rescaling(1 / 127.5, -1)(image))
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))
    if by == "model.export":
        model.export(tmp_path / "saved", verbose=False)
    else:
        tf.saved_model.save(model, str(tmp_path / "saved"))
    with caplog.at_level(logging.INFO, "augnet"):
        loaded = load(tmp_path / "saved")
    assert "its input is uint8" in caplog.text and "differentiated behind the cast" in caplog.text
    np.testing.assert_allclose(loaded(IMAGES.astype("float32")), model(IMAGES), atol=1e-6)

    def behind_the_cast(x):  # in float64
        kernel, bias, weights, offset = (tf.cast(w, x.dtype) for w in model.weights)
        x = tf.tanh(tf.nn.conv2d(x / 127.5 - 1, kernel, 1, "VALID") + bias)
        return tf.reshape(x, (len(x), -1)) @ weights + offset

    expected = tape_jacobian(behind_the_cast, IMAGES.astype("float64"))
    rows = Engine(inspect_model(loaded, space="model")).jacobian(IMAGES.astype("float32"))
    np.testing.assert_allclose(rows, expected, atol=1e-5 * np.abs(expected).max())


def linear(weights, x):
    return tf.reshape(x, (-1, 6 * 8 * 3)) @ weights


def turned(x):
    return tf.transpose(x, (0, 2, 1, 3))


def refolded(x):
    return tf.squeeze(tf.reshape(x, (tf.shape(x)[0], 1, 6, 8, 3)), 1)


@pytest.mark.parametrize(
    ("of_integers", "of_floats"),
    [
        (lambda x: tf.cast(turned(x), tf.float32), turned),
        (lambda x: tf.image.convert_image_dtype(refolded(x), tf.float32), lambda x: refolded(x) / 255),
        (lambda x: tf.image.resize(x, (6, 8)), lambda x: tf.image.resize(x, (6, 8))),
        (
            lambda x: tf.image.resize(x, (6, 8), antialias=True),
            lambda x: tf.image.resize(x, (6, 8), antialias=True),
        ),
        (lambda x: tf.cast(x, tf.float32) * tf.cast(x, tf.float32) / 255, lambda x: x * x / 255),
    ],
    ids=["transpose", "reshape", "resize", "antialias", "twice"],
)
def test_what_may_come_before_the_cast(tmp_path, of_integers, of_floats):
    export(tmp_path / "saved", lambda weights, x: linear(weights, of_integers(x)))
    loaded, floats = load(tmp_path / "saved"), IMAGES.astype("float32")
    expected = linear(WEIGHTS, of_integers(tf.constant(IMAGES)))
    np.testing.assert_allclose(loaded(floats), expected, atol=1e-5 * np.abs(expected).max())
    expected = tape_jacobian(lambda x: linear(WEIGHTS, of_floats(x)), floats)
    rows = Engine(inspect_model(loaded, space="model")).jacobian(floats)
    np.testing.assert_allclose(rows, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "steps",
    [
        lambda x: tf.cast(x // 2, tf.float32),
        lambda x: tf.cast(tf.cast(x, tf.int32) ** 2, tf.float32),
        lambda x: tf.cast(x, tf.float32) * tf.reduce_sum(tf.one_hot(x, 256), -1),
        lambda x: tf.cast(tf.cond(tf.shape(x)[0] > 1, lambda: x, lambda: x + 1), tf.float32),
    ],
    ids=["halved", "squared", "one_hot", "branch"],
)
def test_integers_that_are_more_than_cast_are_refused(tmp_path, steps):
    export(tmp_path / "saved", lambda weights, x: linear(weights, steps(x)))
    with pytest.raises(
        ModelError, match=r"no gradient \(its inputs are uint8, and it does more with them than"
    ):
        load(tmp_path / "saved")


def test_an_output_of_the_integers_themselves_is_refused(tmp_path):
    export(tmp_path / "saved", lambda weights, x: x)
    with pytest.raises(ModelError, match="no gradient"):
        load(tmp_path / "saved")


def test_an_image_and_a_number_that_are_both_cast(tmp_path):
    def function(weights, image, site):
        return linear(weights, tf.cast(image, tf.float32)) * tf.cast(site, tf.float32)[:, None]

    site = tf.TensorSpec((None,), tf.int32, name="site")
    export(tmp_path / "saved", function, SPEC, site)
    loaded = load(tmp_path / "saved", constants={"site": 3})
    rows = Engine(inspect_model(loaded, space="model")).jacobian(IMAGES.astype("float32"))
    np.testing.assert_allclose(rows[0].reshape(2, -1), 3 * WEIGHTS.T, rtol=1e-6)


def test_pixels_are_taken_for_levels(tmp_path):
    export(tmp_path / "saved", lambda weights, x: linear(weights, tf.cast(x, tf.float32)))
    suggestion = suggest_scale(load(tmp_path / "saved"))
    assert suggestion is not None and suggestion.scale == "none"
