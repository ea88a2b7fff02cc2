"""Models of several inputs, of integers or with channels first, as functions of one image of floats."""

from __future__ import annotations

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from augnet.config import ModelConfig, load_config
from augnet.engine import Engine, inspect_model
from augnet.errors import ConfigError, ModelError
from augnet.models.fingerprint import fingerprint
from augnet.models.loading import load_model
from augnet.models.one_image import computes_channels_first, of_one_image

IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 8, 6, 3)).round().astype("float32")


def load(model, folder, **options):
    model.save(folder / "model.keras")
    return load_model(ModelConfig(path=str(folder / "model.keras"), **options))


def tape_jacobian(model, images):
    """Of a model of float images, by TensorFlow alone: (image, output, *image)."""
    with tf.GradientTape() as tape:
        x = tf.constant(images)
        tape.watch(x)
        y = model(x)
    return tape.batch_jacobian(y, x).numpy()


def assert_engine_gives(model, expected):
    rows = Engine(inspect_model(model, space="model")).jacobian(IMAGES)
    np.testing.assert_allclose(rows, expected, atol=1e-5 * np.abs(expected).max())


def several_inputs(struct):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 6, 3), name="image")
    mask = keras.Input((8, 6, 1), name="mask")
    site = keras.Input((), dtype="int32", name="site")
    x = layers.Multiply()([layers.Conv2D(3, 3, padding="same", activation="relu")(image), mask])
    x = layers.Concatenate()([layers.Flatten()(x), layers.Flatten()(layers.Embedding(5, 2)(site))])
    return keras.Model(struct(image=image, mask=mask, site=site), layers.Dense(2, activation="softmax")(x))


def listed(image, mask, site):
    return [mask, image, site]


@pytest.mark.parametrize("struct", [dict, listed])
def test_constants_stand_for_the_inputs_that_are_not_the_image(tmp_path, struct):
    model = several_inputs(struct)
    mask = np.random.default_rng(1).uniform(size=(8, 6, 1)).astype("float32")
    np.save(tmp_path / "mask.npy", mask)
    loaded = load(model, tmp_path, constants={"mask": str(tmp_path / "mask.npy"), "site": 3})
    full = struct(image=IMAGES, mask=np.stack([mask] * 3), site=np.full(3, 3))
    np.testing.assert_allclose(loaded(IMAGES), model(full), atol=1e-6)
    assert inspect_model(loaded).spec.activation == "softmax"  # the engine sees into the model
    assert_engine_gives(loaded, tape_jacobian(loaded, IMAGES))


def test_the_values_of_constants_are_part_of_the_fingerprint(tmp_path):
    model = several_inputs(dict)
    prints = {fingerprint(load(model, tmp_path, constants={"mask": m, "site": 3})) for m in (0, 1, 0)}
    assert len(prints) == 2


def test_constants_that_do_not_fit(tmp_path):
    model = several_inputs(dict)
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    for constants, words in (
        ({}, r"has 3 inputs \(image \(8, 6, 3\), mask .* give a value for each that is not the image"),
        ({"mask": 1}, "has 3 inputs"),
        ({"mask": 1, "place": 1}, r"no input 'place'; it has image \(8, 6, 3\)"),
        ({"mask": 1, "site": 1, "image": 1}, "leaves no input for the image"),
        ({"mask": [1, 2], "site": 1}, r"mask: has the shape \(2,\), but the model's input is \(8, 6, 1\)"),
        ({"mask": "none.npy", "site": 1}, r"mask: 'none.npy' cannot be read .*give a number, a list or"),
        ({"mask": str(tmp_path / "objects.npy"), "site": 1}, "cannot be read .*pickle"),
    ):
        with pytest.raises(ModelError, match=rf"model\.constants: .*{words}"):
            of_one_image(model, constants)


@pytest.mark.parametrize("given", [{"mask:1": None}, 3, [1]])
def test_constants_that_are_no_names_and_values(given):
    with pytest.raises(
        ConfigError, match=r"model\.constants: .* give \{name: number, list or file\.npy\}, with a"
    ):
        load_config(flags={"model.path": "m", "images.path": "i", "output": "o", "model.constants": given})


def test_outputs_keep_their_names_and_their_softmax(tmp_path):
    image, size = keras.Input((8, 6, 3), name="image"), keras.Input((1,), name="size")
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(image), size])
    outputs = [layers.Dense(2, name=name, activation="softmax")(x) for name in ("one", "two")]
    loaded = load(keras.Model([image, size], outputs), tmp_path, constants={"size": 0.5})
    assert loaded.output_names == ["one", "two"]
    assert [layer.name for layer in loaded.layers[-2:]] == ["one", "two"]
    assert inspect_model(loaded, output="two").spec.activation == "softmax"


def uint8_model(cast):
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 6, 3), dtype="uint8", name="image")
    x = layers.Conv2D(4, 3, activation="relu")(cast(image))
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.parametrize(
    "cast",
    [lambda x: layers.Rescaling(1 / 255)(x), lambda x: keras.ops.cast(x, "float32") / 127.5 - 1],
    ids=["Rescaling", "cast"],
)
def test_integers_are_differentiated_behind_the_models_own_cast(tmp_path, caplog, cast):
    model = uint8_model(cast)
    with caplog.at_level(logging.INFO, "augnet"):
        loaded = load(model, tmp_path)
    assert "its input is uint8" in caplog.text and "differentiated behind the cast" in caplog.text
    np.testing.assert_allclose(loaded(IMAGES), model(IMAGES.astype("uint8")), rtol=1e-5, atol=1e-6)
    expected = tape_jacobian(loaded, IMAGES)
    step = np.zeros_like(IMAGES)
    step[:, 4, 3, 1] = 1e-2
    slope = (loaded(IMAGES + step) - loaded(IMAGES - step)) / 2e-2
    np.testing.assert_allclose(expected[:, :, 4, 3, 1], slope, atol=2e-2 * np.abs(expected).max())
    assert np.abs(expected[:, :, 4, 3, 1]).max() > 0
    assert_engine_gives(loaded, expected)


def test_a_model_that_needs_its_integers_is_refused(tmp_path):
    image = keras.Input((8, 6, 3), dtype="uint8", name="image")
    overflowing = keras.ops.cast(image + image, "float32")
    with pytest.raises(ModelError, match=r"uint8, and its outputs are others for floats; integers have no"):
        load(keras.Model(image, layers.GlobalAveragePooling2D()(overflowing)), tmp_path)
    halved = keras.ops.cast(image // 2, "float32")
    with pytest.raises(ModelError, match=r"no gradient flows"):
        inspect_model(load(keras.Model(image, layers.GlobalAveragePooling2D()(halved)), tmp_path))


@pytest.mark.skipif(not computes_channels_first(), reason="needs oneDNN, which is off on this processor")
def test_channels_first_takes_images_as_they_are(tmp_path):
    keras.utils.set_random_seed(0)
    first = {"data_format": "channels_first"}
    image = keras.Input((3, 8, 6), name="image")
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3, activation="relu", **first)(image))
    x = layers.GlobalAveragePooling2D(**first)(layers.MaxPooling2D(**first)(x))
    model = keras.Model(image, layers.Dense(2)(x))
    loaded = load(model, tmp_path)
    assert inspect_model(loaded).spec.input_shape == (8, 6, 3)
    transposed = np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(loaded(IMAGES), model(transposed), rtol=1e-5)
    expected = tape_jacobian(model, transposed).transpose(0, 1, 3, 4, 2)
    assert_engine_gives(loaded, expected)


def test_channels_first_without_onednn_is_refused_with_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr("augnet.models.one_image.computes_channels_first", lambda: False)
    image = keras.Input((3, 8, 6))
    model = keras.Model(image, layers.GlobalAveragePooling2D(data_format="channels_first")(image))
    with pytest.raises(ModelError, match="set TF_ENABLE_ONEDNN_OPTS=1"):
        load(model, tmp_path)


def test_channels_first_that_no_layer_looks_for_needs_no_onednn(tmp_path, monkeypatch):
    monkeypatch.setattr("augnet.models.one_image.computes_channels_first", lambda: False)
    model = keras.Sequential([keras.Input((3, 8, 6)), layers.Reshape((-1,)), layers.Dense(2)])
    assert load(model, tmp_path).input_shape == (None, 8, 6, 3)


def test_a_narrow_image_with_channels_last_is_not_taken_for_channels_first(tmp_path):
    model = keras.Sequential([keras.Input((3, 32, 16)), layers.Conv2D(2, 3), layers.Flatten()])
    assert load(model, tmp_path).input_shape == (None, 3, 32, 16)
