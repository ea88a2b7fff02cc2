"""Whether a model's samples mix, told by values alone."""

import json
from dataclasses import asdict

import keras
import numpy as np
import pytest
from keras import ops

from augnet.engine import ModelSpec, inspect_model
from augnet.engine.inspection.samples import mixes_samples

rng = np.random.default_rng(0)
MIXING = {
    "mean of the batch": lambda x: x - ops.mean(x, axis=0, keepdims=True),
    "largest of the batch": lambda x: x / ops.max(x, axis=0, keepdims=True),
    "sum so far": lambda x: ops.cumsum(x, axis=0),
    "sum from here on": lambda x: ops.flip(ops.cumsum(ops.flip(x, axis=0), axis=0), axis=0),
    "the one before": lambda x: ops.roll(x, 1, axis=0),
    "the one after": lambda x: ops.roll(x, -1, axis=0),
    "the other way round": lambda x: ops.flip(x, axis=0),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_function_that_looks_at_other_images_mixes_them(name):
    images = rng.normal(size=(4, 3, 2)).astype("float32")
    assert mixes_samples(MIXING[name], images)
    assert mixes_samples(
        lambda batches: {"a": batches[0], "b": [MIXING[name](batches[1])]}, [images, images + 1]
    )


def test_a_function_of_one_image_does_not_mix_them():
    images = rng.normal(size=(4, 8, 8, 1)).astype("float32")
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(3, activation="softmax")])
    assert not mixes_samples(lambda x: model(x, training=False), images)
    assert mixes_samples(lambda x: model(x, training=True), images)
    assert not mixes_samples(lambda parts: [parts[0] * 2, parts[0] + parts[1]], [images, images[:, :1]])


def test_images_of_zeros_are_told_apart_too():
    assert mixes_samples(MIXING["mean of the batch"], np.zeros((4, 5), "float32"))


def test_one_image_cannot_tell():
    with pytest.raises(ValueError, match="two or more"):
        mixes_samples(ops.square, np.ones((1, 3), "float32"))


def test_a_spec_is_the_same_after_json():
    image = keras.Input((4, 4, 1))
    flat = keras.layers.Flatten()(image)
    parts = [keras.layers.Dense(2)(flat), keras.layers.Rescaling(0.0)(keras.layers.Dense(1)(flat))]
    inspected = inspect_model(keras.Model(image, keras.layers.Concatenate()(parts)))
    assert inspected.spec.unconnected == (2,) and inspected.input_shape == (4, 4, 1)
    tree = json.loads(json.dumps(asdict(inspected.spec)))
    assert ModelSpec.from_json(tree) == inspected.spec
    of_another_version = tree | {"device": "cpu", "row_count": 3}
    assert ModelSpec.from_json(of_another_version) == inspected.spec
    with pytest.raises(TypeError, match="output_count"):
        ModelSpec.from_json({"input_shape": [4, 4, 1]})
