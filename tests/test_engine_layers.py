"""Every Keras layer that can take an image, and many operations, against a plain loop of tape.gradient."""

import doctest

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import FLOAT32, LAYERS, OPERATIONS, build, images

from augnet import AugNet
from augnet.engine import Engine, EngineOptions, inspect_model
from augnet.engine.backends import backend
from augnet.engine.graph.graph import trace
from augnet.engine.rows import rewrite
from augnet.engine.rules import base
from augnet.engine.rules.affine import Affine
from augnet.engine.rules.registry import serves
from augnet.engine.tuning import Choice

MODELS = LAYERS | {name: lambda make=make: make for name, make in OPERATIONS.items()}
IMAGES = 2
BY_TAPE = [
    *("AdaptiveMaxPooling1D", "AdaptiveMaxPooling2D", "Attention by concatenation", "Attention, causal"),
    *("AutoContrast", "Bidirectional", "Conv1DTranspose", "Conv3D", "Conv3DTranspose", "ConvLSTM2D"),
    *("Dot, normalized", "Equalization", "GRU", "GroupQueryAttention", "LSTM", "Lambda", "MaxPooling3D"),
    *("MultiHeadAttention over lines", "RNN", "SimpleRNN", "Solarization", "SpectralNormalization"),
    *("TimeDistributed", "dot product attention", "fft2", "logsumexp", "moments", "norm"),
    *("power of tensors", "prod", "reshape with the batch", "rgb to hsv", "sort", "standard deviation"),
    "top k",
]
"""Models with a layer or operation that has no rule yet."""


def dtype_of(name):
    return "float32" if name in FLOAT32 else "float64"


def by_tape(model, x):
    """The Jacobian (image, 3, 8, 8, 3) by a plain loop."""
    x = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        outputs = tf.unstack(model(x, training=False), axis=1)
    return np.stack([tape.gradient(output, x).numpy() for output in outputs], axis=1)


def engine_by_rules(model, dtype):
    """The engine of the rewritten model, which may not choose the tape instead."""
    choice = Choice("rules", rows_per_pass=2, batch_size=IMAGES)
    return Engine(inspect_model(model, precision=dtype), EngineOptions(precision=dtype), choice=choice)


def assert_close(rows, truth):
    assert np.abs(truth).max() > 0
    assert np.abs(rows - truth).max() < 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("name", MODELS)
def test_the_engine_and_augnet_give_the_jacobian_of_a_tape(name):
    model, x = build(MODELS[name](), dtype_of(name)), images(IMAGES, dtype_of(name))
    truth, engine = by_tape(model, x), engine_by_rules(model, dtype_of(name))
    assert_close(engine.jacobian(x), truth)
    assert_close(AugNet.from_model(model).jacobian(x), truth)
    assert engine.program.complete == (name not in BY_TAPE)


def test_what_has_no_rule_is_the_name_of_a_model():
    assert len(set(BY_TAPE)) == len(BY_TAPE) and set(BY_TAPE) <= set(MODELS)


def test_every_layer_that_does_nothing_at_inference_leaves_no_operation():
    name = "Every layer that does nothing at inference"
    graph = rewrite(trace(build(MODELS[name](), dtype_of(name))), (8, 8, 3), dtype_of(name), 3).graph
    assert [type(node.op).__name__ for node in graph.nodes] == ["Reshape", "Dense"]


@pytest.mark.parametrize("least", [False, True])
def test_equal_extremes_share_the_gradient_as_in_tensorflow(least):
    image = keras.Input((3, 2, 1))
    extreme = keras.ops.min if least else keras.ops.max
    model = keras.Model(image, keras.layers.Dense(2, kernel_initializer="ones")(extreme(image, axis=(1, 2))))
    x = np.array([[1, 2, 2, 1, 2, 0], [0, 0, 0, 0, 0, 0]], "float32").reshape(2, 3, 2, 1)
    tensor = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        outputs = model(tensor)
    rows = engine_by_rules(model, "float32").jacobian(x)
    np.testing.assert_array_equal(rows.sum(axis=1), tape.gradient(outputs, tensor).numpy())


def test_a_leaky_relu_has_the_slope_that_tensorflow_gives_it():
    image = keras.Input((4, 4, 1), dtype="float64")
    leaky = keras.layers.LeakyReLU(0.3, dtype="float64")(image)
    model = keras.Model(image, keras.layers.Flatten(dtype="float64")(leaky))
    rows = engine_by_rules(model, "float64").jacobian(-images(1)[:, :4, :4, :1]).reshape(16, 16)
    np.testing.assert_array_equal(rows, np.eye(16) * np.float64(np.float32(0.3)))


class Collected:
    """Chooses the first kernel, and keeps all candidates with the shape that they are for."""

    def __init__(self):
        self.candidates = []

    def choose(self, key, candidates, shape, dtype):
        self.candidates += [(kernel, shape, dtype) for kernel in candidates.values()]
        return next(iter(candidates.values()))


def test_kernel_candidates_outlive_the_trace_that_asked_for_them():
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(image)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(keras.layers.Conv2D(4, 2)(x))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    program, kernels = rewrite(trace(model), (8, 8, 3), "float32", 3), Collected()

    def rows(x):
        return program.rows(x, lambda y: tf.ones((3, *y.shape), y.dtype), 3, kernels)

    backend.compiled(rows, [((2, 8, 8, 3), "float32")])
    assert len(kernels.candidates) > 6
    for kernel, shape, dtype in kernels.candidates:
        assert np.isfinite(kernel(tf.ones(shape, dtype))).all()


class Third(keras.layers.Layer):
    def call(self, x):
        return x / 3


@serves(Third)
def _third(layer, call):
    return [Affine(np.asarray(1 / 3))]


def test_a_layer_of_ones_own_gets_a_rule_by_one_function():
    assert doctest.testmod(base).failed == 0  # which does the same, with a rule of its own
    image = keras.Input((4, 4, 1))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(Third()(image))))
    program = rewrite(trace(model), (4, 4, 1), "float32", 3)
    assert [type(node.op).__name__ for node in program.graph.nodes] == ["Affine", "Reshape", "Dense"]


def test_two_builders_of_one_layer_are_refused():
    with pytest.raises(ValueError, match=r"has a builder in augnet\.engine\.rules\.dense already"):
        serves(keras.layers.Dense)(_third)
