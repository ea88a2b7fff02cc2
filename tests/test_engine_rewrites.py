"""Every rule and rewrite against a tape over the Keras layers themselves, in float64, by every path."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from augnet.engine import inspect_model
from augnet.engine.backends import backend
from augnet.engine.kernels import Kernels
from augnet.engine.rows import TapeRows, rewrite

layers = keras.layers


class Every:
    """Chooses the kernel with the given number, and remembers how many there were to choose from."""

    def __init__(self, number):
        self.number = number
        self.most = 1

    def choose(self, key, candidates, shape, dtype):
        self.most = max(self.most, len(candidates))
        return list(candidates.values())[self.number % len(candidates)]


def model_of(*steps, size=(13, 12, 3), outputs=4):
    return keras.Sequential([keras.Input(size), *steps, layers.Flatten(), layers.Dense(outputs)])


def branched(make, size=(9, 8, 4)):
    image = keras.Input(size)
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(make(image))))


def squeeze_excite(x):
    small = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(small)])


def attention(x):
    tokens = layers.Reshape((18, 16))(x)
    normal = layers.LayerNormalization()(tokens)
    return layers.Add()([tokens, layers.MultiHeadAttention(2, 5, value_dim=3)(normal, normal)])


def in_the_middle(x):
    padded = keras.ops.pad(x, ((0, 0), (1, 0), (2, 0), (0, 0)))
    return keras.ops.transpose(padded, (0, 2, 1, 3))[:, 3:7]


def decoder(x):
    small = layers.Conv2D(4, 3, strides=2, padding="same", activation="tanh")(x)
    up = layers.UpSampling2D(2)(small)
    both = layers.Concatenate()([x, up, layers.UpSampling2D(2)(small), layers.Activation("tanh")(x)])
    both = layers.Concatenate()([layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(both)), up])
    return layers.Conv2D(3, 2)(both)  # an upsampling that has another reader too


def means_over_channels(x):
    wide = keras.ops.repeat(keras.ops.mean(x, axis=3, keepdims=True), 4, axis=3)
    return keras.ops.flip(keras.ops.concatenate([wide, wide], axis=2)[:, :, 3:13], axis=2)


MODELS = {
    "conv same": lambda: model_of(layers.Conv2D(5, 3, padding="same", activation="relu")),
    "conv grey": lambda: model_of(layers.Conv2D(5, (3, 5), padding="same"), size=(11, 9, 1)),
    "conv stride": lambda: model_of(layers.Conv2D(5, 5, strides=2, padding="same", activation="tanh")),
    "conv stride 3 valid": lambda: model_of(layers.Conv2D(5, 4, strides=3)),
    "conv even": lambda: model_of(layers.Conv2D(5, 4, padding="same")),
    "conv dilated": lambda: model_of(layers.Conv2D(5, 3, dilation_rate=2, padding="same")),
    "conv padded": lambda: model_of(layers.ZeroPadding2D(((1, 2), (0, 3))), layers.Conv2D(5, 3, strides=2)),
    "conv padded widely": lambda: model_of(layers.ZeroPadding2D(5), layers.Conv2D(3, 2, strides=2)),
    "conv 1x1 stride": lambda: model_of(layers.Conv2D(5, 1, strides=2)),
    "conv groups, one channel each": lambda: model_of(
        layers.Conv2D(6, 4, groups=3, strides=2, padding="same")
    ),
    "conv groups, several channels": lambda: model_of(
        layers.Conv2D(6, 3, groups=3), layers.Conv2D(4, 3, groups=2, use_bias=False, dilation_rate=2)
    ),
    "layer scale": lambda: model_of(LayerScale(0.5, 3), layers.Conv2D(5, 1)),
    "depthwise": lambda: model_of(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)),
    "depthwise even": lambda: model_of(layers.DepthwiseConv2D(4, padding="same", depth_multiplier=3)),
    "depthwise stride": lambda: model_of(layers.DepthwiseConv2D(3, strides=2, padding="same")),
    "depthwise dilated": lambda: model_of(layers.DepthwiseConv2D(3, dilation_rate=2)),
    "depthwise padded": lambda: model_of(
        layers.ZeroPadding2D(((0, 1), (0, 1))), layers.DepthwiseConv2D(3, strides=2)
    ),
    "depthwise padded widely": lambda: model_of(
        layers.ZeroPadding2D(5), layers.DepthwiseConv2D(2, strides=2)
    ),
    "separable": lambda: model_of(layers.SeparableConv2D(5, 4, depth_multiplier=2, padding="same")),
    "norm after": lambda: model_of(layers.Conv2D(5, 3), layers.BatchNormalization(), layers.LeakyReLU()),
    "norm before": lambda: model_of(layers.BatchNormalization(), layers.Conv2D(5, 3, padding="same")),
    "rescaling": lambda: model_of(layers.Rescaling(0.25, -1), layers.Conv2D(5, 3), layers.LeakyReLU()),
    "max pool": lambda: model_of(layers.ReLU(), layers.MaxPooling2D(2), size=(12, 8, 3)),
    "max pool overlapping": lambda: model_of(
        layers.ELU(), layers.Activation("tanh"), layers.MaxPooling2D(3, 2, "same")
    ),
    "average pool": lambda: model_of(layers.AveragePooling2D(3, 2, "same"), layers.UpSampling2D(2)),
    "elementwise": lambda: model_of(
        layers.Activation("gelu"), layers.Activation("silu"), layers.Rescaling(0.3, 0.1)
    ),
    "transpose": lambda: model_of(layers.Conv2DTranspose(4, 3, strides=2), layers.Cropping2D(1)),
    "transpose same": lambda: model_of(
        layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")
    ),
    "transpose short": lambda: model_of(layers.Conv2DTranspose(4, 2, strides=3)),
    "transpose padded": lambda: model_of(layers.Conv2DTranspose(4, 3, strides=2, output_padding=1)),
    "mean of steps": lambda: model_of(
        layers.Reshape((39, 12)), layers.Activation("tanh"), layers.GlobalAveragePooling1D()
    ),
    "permute": lambda: model_of(layers.Permute((3, 1, 2)), layers.Reshape((-1, 4)), layers.Softmax()),
    "squeeze and excite": lambda: branched(squeeze_excite),
    "attention": lambda: branched(attention),
    "concatenate": lambda: branched(
        lambda x: layers.Concatenate()([layers.Conv2D(2, 3, padding="same")(x), x])
    ),
    "global max": lambda: model_of(
        layers.Conv2D(5, 3), layers.ReLU(), layers.GlobalMaxPooling2D(keepdims=True)
    ),
    "slopes": lambda: model_of(
        layers.PReLU(shared_axes=[1]), layers.ReLU(threshold=0.2), layers.ReLU(0.5, 0.1), layers.ELU(0.3)
    ),
    "upsampling bilinear": lambda: model_of(layers.UpSampling2D((2, 3), interpolation="bilinear")),
    "upsampled": lambda: model_of(
        layers.UpSampling2D((2, 3)), layers.Conv2D(5, 3, padding="same"), layers.ReLU(), size=(5, 4, 2)
    ),
    "upsampled beside others": lambda: branched(decoder, size=(6, 4, 3)),
    "upsampled, wide padding": lambda: model_of(
        layers.UpSampling2D(2), layers.ZeroPadding2D(4), layers.Conv2D(5, 3), size=(5, 4, 2)
    ),
    "pointwise": lambda: model_of(
        layers.UpSampling2D(2),
        layers.Conv2D(5, 1),
        layers.ReLU(),
        layers.Conv2D(4, 1),
        layers.AveragePooling2D(3, 2, "same"),
        layers.UpSampling2D(3),
        layers.Conv2D(4, 1),
        layers.Conv2D(6, 3),
        layers.ReLU(),
        layers.Conv2D(3, 1),
        layers.GlobalAveragePooling2D(),
        size=(4, 5, 2),
    ),
    "average": lambda: branched(lambda x: layers.Average()([x, layers.Activation("tanh")(x), x])),
    "scaled add": lambda: branched(lambda x: CustomScaleLayer(0.3)([x, layers.Activation("tanh")(x)])),
    "functions of an element": lambda: branched(
        lambda x: keras.ops.gelu(x) + keras.ops.sqrt(keras.ops.abs(x) + 1.0) - keras.ops.maximum(x, 0.1) ** 2
    ),
    "linear functions": lambda: branched(
        lambda x: keras.ops.concatenate([in_the_middle(x), means_over_channels(x)], axis=1)
    ),
    "operators": lambda: branched(lambda x: keras.ops.relu6(2.0 * x + 3.0) / 6.0 * x - x),
    "subtract": lambda: branched(
        lambda x: layers.Subtract()([x, layers.DepthwiseConv2D(3, padding="same")(x)])
    ),
    "narrow": lambda: model_of(
        layers.Flatten(), layers.Dense(2, activation="gelu"), layers.Dense(6), outputs=9
    ),
    "forward": lambda: model_of(layers.Conv2D(4, 2, activation="relu"), size=(3, 3, 1), outputs=20),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_rewritten_model_has_the_same_jacobian(name):
    keras.utils.set_random_seed(7)
    model = MODELS[name]()
    for variable in model.weights:
        low = 0.2 if len(variable.shape) == 1 else -0.5  # variances are positive
        variable.assign(np.random.default_rng(len(variable.shape)).uniform(low, 0.7, variable.shape))
    inspected = inspect_model(model, precision="float64")
    count = inspected.spec.output_count
    x = tf.constant(np.random.default_rng(2).normal(size=(2, *inspected.input_shape)))

    def cotangents(outputs):
        return backend.constant(np.broadcast_to(np.eye(count)[:, None], (count, 2, count)), outputs.dtype)

    truth, plain = TapeRows(inspected.function).rows(x, cotangents, 1, Kernels())
    program = rewrite(inspected.graph, inspected.input_shape, "float64", count)
    number, most = 0, 1
    while number < most:
        kernels = Every(number)
        outputs, rows = program.rows(x, cotangents, 3 if number % 2 else count, kernels)
        most, number = kernels.most, number + 1
        # Keras may round a constant of a layer to float32.
        assert np.abs(outputs - truth).max() < 1e-6 * np.abs(truth).max()
        assert np.abs(rows - plain).max() < 1e-6 * np.abs(plain).max()


def test_the_narrowest_cut_is_found():
    assert rewritten_of(MODELS["narrow"]()).passes == 2
    program = rewritten_of(MODELS["forward"]())
    assert program.passes == 9 and not program.cut.trunk  # the input itself
    assert rewritten_of(MODELS["conv same"]()).passes is None


@pytest.mark.parametrize(
    "name",
    [
        "attention",
        "average",
        "conv groups, several channels",
        "functions of an element",
        "global max",
        "layer scale",
        "linear functions",
        "mean of steps",
        "scaled add",
        "slopes",
        "transpose same",
        "transpose short",
        "upsampling bilinear",
    ],
)
def test_every_operation_has_a_rule(name):
    assert rewritten_of(MODELS[name]()).complete


def test_norms_and_dropout_leave_no_operation():
    model = model_of(layers.Conv2D(5, 3), layers.BatchNormalization(), layers.Dropout(0.5), layers.ReLU())
    names = [type(node.op).__name__ for node in rewritten_of(model).graph.nodes]
    assert names == ["Convolution", "Clip", "Reshape", "Dense"]


def test_convolutions_are_done_at_fewer_pixels():
    def names(name):
        return [type(node.op).__name__ for node in rewritten_of(MODELS[name]()).graph.nodes]

    assert names("upsampled")[0] == "UpsampledConvolution"
    assert names("upsampled beside others").count("UpsampledConvolution") == 1
    assert names("upsampled beside others").count("Upsample") == 1  # for its other reader
    assert names("upsampled, wide padding")[:2] == ["Upsample", "Convolution"]
    assert names("pointwise") == [
        *("Convolution", "Upsample", "Clip", "AveragePool", "Convolution"),
        *("Convolution", "UpsampledConvolution", "Clip", "GlobalAverage", "Dense"),
        *("Reshape", "Dense"),
    ]


def rewritten_of(model):
    inspected = inspect_model(model)
    return rewrite(inspected.graph, inspected.input_shape, "float32", inspected.spec.output_count)
