"""A model whose outputs are random at inference is told apart from one that mixes samples."""

import keras
import numpy as np
import pytest
from keras import layers

from augnet.engine import inspect_model
from augnet.engine.inspection.randomness import is_random
from augnet.errors import ModelError

IMAGES = np.random.default_rng(0).uniform(size=(3, 6, 6, 1)).astype("float32")


@keras.saving.register_keras_serializable("test_randomness")
class AlwaysNoise(layers.Layer):
    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs))


@keras.saving.register_keras_serializable("test_randomness")
class OverTheBatch(layers.Layer):
    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=0, keepdims=True)


def model_with(layer):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6, 6, 1)), layer, layers.Flatten(), layers.Dense(2)])


def test_random_outputs():
    model = model_with(AlwaysNoise())
    assert is_random(model, IMAGES)
    with pytest.raises(ModelError, match=r"random at inference.*training=True"):
        inspect_model(model)


def test_samples_that_mix_are_not_random():
    model = model_with(OverTheBatch())
    assert not is_random(model, IMAGES)
    with pytest.raises(ModelError, match="change with the other images of its batch"):
        inspect_model(model)


@pytest.mark.parametrize(
    "layer", [layers.Dropout(0.5), layers.GaussianNoise(1.0), layers.RandomFlip(), layers.Conv2D(2, 3)]
)
def test_layers_that_are_random_only_in_training(layer):
    model = model_with(layer)
    assert not is_random(lambda x: model(x, training=False), IMAGES)
    assert inspect_model(model).spec.output_count == 2
