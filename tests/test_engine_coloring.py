"""Colouring: outputs with height and width whose rows share backward passes, and come out the same."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from augnet import AugNet
from augnet.engine.graph.graph import trace
from augnet.engine.kernels import Kernels
from augnet.engine.rewrites.coloring import _separate
from augnet.engine.rows import identity, rewrite


def convolutions():
    yield layers.Conv2D(3, 3, padding="same", activation="gelu")
    yield layers.DepthwiseConv2D((1, 3), depth_multiplier=2, padding="same")
    yield layers.Conv2D(2, (3, 2), dilation_rate=(2, 1), padding="valid", activation="tanh")


def encoder_decoder():
    yield layers.Conv2D(3, 3, strides=2, padding="same", activation="gelu")
    yield layers.BatchNormalization()
    yield layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu")
    yield layers.Conv2DTranspose(2, (2, 5), strides=(1, 2), padding="valid")
    yield layers.Flatten()


def pools():
    yield layers.ZeroPadding2D(((3, 0), (1, 2)))
    yield layers.MaxPooling2D(3, strides=2, padding="same")
    yield layers.UpSampling2D((2, 3))
    yield layers.AveragePooling2D((3, 2), strides=1, padding="same")
    yield layers.Cropping2D(((1, 2), (0, 3)))
    yield layers.Dense(2, activation="softmax")


def strided():
    """Some pixels are read by no output, some outputs read padding only."""
    yield layers.Conv2D(2, 1, strides=3)
    yield layers.ZeroPadding2D(2)


def sequential(parts, shape):
    return keras.Sequential([keras.Input(shape), *parts])


def skipping(shape):
    """Two ways of different reach, joined in three manners."""
    image = keras.Input(shape)
    near = layers.Conv2D(2, 1)(image)
    far = layers.Conv2D(2, 3, padding="same", activation="swish")(layers.LayerNormalization()(near))
    both = layers.Concatenate()([layers.Add()([near, far]), layers.Multiply()([near, far])])
    return keras.Model(image, layers.Conv2D(2, 3, padding="same")(both) * 2.0)


MODELS = {
    "convolutions": lambda: sequential(convolutions(), (11, 9, 2)),
    "encoder and decoder": lambda: sequential(encoder_decoder(), (22, 19, 1)),
    "pools": lambda: sequential(pools(), (12, 13, 2)),
    "strided": lambda: sequential(strided(), (10, 8, 2)),
    "skipping": lambda: skipping((9, 10, 2)),
    "no channels": lambda: sequential([layers.Reshape((12, 10, 1)), *convolutions()], (12, 10)),
}


@pytest.fixture
def program(request):
    keras.utils.set_random_seed(1)
    model = MODELS[request.param]()
    shape = model.input_shape[1:]
    return rewrite(trace(model), shape, "float32", int(np.prod(model.output_shape[1:]))), shape


@pytest.mark.parametrize("program", MODELS, indirect=True)
def test_coloured_rows_are_those_of_a_pass_each(program):
    own, shape = program
    assert own.coloring.count < own.output_count
    x = tf.constant(np.random.default_rng(0).normal(size=(2, *shape)), tf.float32)
    made = own.all_rows(x, 7, Kernels()).numpy()
    _, truth = own.rows(x, identity, 7, Kernels())
    assert np.abs(truth).max() > 0
    np.testing.assert_allclose(made, truth.numpy(), atol=1e-6 * np.abs(truth).max())


def test_outputs_of_one_colour_read_separate_windows():
    windows = np.array([[0, 4], [2, 3], [5, 5], [4, 6], [9, -1], [6, 8], [7, 9]])
    colors = _separate(windows)
    assert colors.max() + 1 == 2
    for color in (0, 1):
        lines = [range(first, last + 1) for first, last in windows[colors == color]]
        assert len(set().union(*lines)) == sum(map(len, lines))


def test_no_colours_where_an_output_reads_the_whole_image():
    image = keras.Input((8, 8, 2))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(image)
    model = keras.Model(image, layers.Conv2D(2, 3, padding="same")(image * squeezed))
    assert rewrite(trace(model), (8, 8, 2), "float32", 128).coloring is None


def test_no_colours_where_an_inner_value_is_narrower():
    model = sequential(
        [layers.Conv2D(1, 3, strides=3), layers.UpSampling2D(3), layers.Conv2D(5, 3)], (9, 9, 2)
    )
    own = rewrite(trace(model), (9, 9, 2), "float32", 7 * 7 * 5)
    assert own.coloring is None
    assert own.cut.width == 9


def test_augnet_gives_the_coloured_rows():
    keras.utils.set_random_seed(1)
    model = MODELS["encoder and decoder"]()
    x = np.random.default_rng(0).normal(size=(3, 22, 19, 1)).astype("float32")
    with tf.GradientTape() as tape:
        at = tf.constant(x)
        tape.watch(at)
        outputs = model(at)
    truth = tape.batch_jacobian(outputs, at)
    made = AugNet.from_model(model).return_jacobian(x)
    np.testing.assert_allclose(made, truth, atol=1e-6 * np.abs(truth).max())
