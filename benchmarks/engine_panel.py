"""The models that the engine is compared on: random weights, normalization as after a training."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from augnet.engine.graph.graph import trace
from augnet.engine.inspection.inspect_model import rescaling

layers = keras.layers


def tutorial256() -> keras.Model:
    steps: list = [keras.Input((256, 256)), layers.Reshape((256, 256, 1))]
    for block, filters in enumerate((12, 24, 48, 96)):
        steps += [layers.SeparableConv2D(filters, 20, padding="same", depth_multiplier=3)]
        steps += [layers.Dropout(0.0), layers.ReLU()]
        steps += [layers.BatchNormalization()] if block >= 2 else []
        steps += [layers.MaxPooling2D(2)]
    steps += [
        layers.Flatten(),
        *(layers.Dense(units, activation="relu") for units in (8, 16, 13)),
        layers.Dense(13),
    ]
    return keras.Sequential(steps)


def small_cnn() -> keras.Model:
    steps: list = [keras.Input((64, 64, 3))]
    for filters in (16, 32, 64):
        steps += [layers.Conv2D(filters, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
        steps += [layers.MaxPooling2D(2)]
    return keras.Sequential([*steps, layers.Flatten(), layers.Dense(10)])


def vit(size: int, patch: int, width: int, heads: int, blocks: int) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        image = keras.Input((size, size, 3))
        x = layers.Reshape(((size // patch) ** 2, width))(layers.Conv2D(width, patch, strides=patch)(image))
        for _ in range(blocks):
            y = layers.LayerNormalization(epsilon=1e-6)(x)
            x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
            y = layers.LayerNormalization(epsilon=1e-6)(x)
            x = layers.Add()([x, layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))])
        x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
        return keras.Model(image, layers.Dense(10)(x))

    return make


def resnet18_groups() -> keras.Model:
    """ResNet18 with GroupNormalization."""

    def normalized(x, filters, size, strides):
        x = layers.Conv2D(filters, size, strides, padding="same", use_bias=False)(x)
        return layers.GroupNormalization(32)(x)

    image = keras.Input((224, 224, 3))
    x = layers.ReLU()(normalized(image, 64, 7, 2))
    x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for filters, strides in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        y = layers.ReLU()(normalized(x, filters, 3, strides))
        y = normalized(y, filters, 3, 1)
        if y.shape != x.shape:
            x = normalized(x, filters, 1, strides)
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


def unet() -> keras.Model:
    def block(x, filters):
        return layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(x)))

    image = keras.Input((64, 64, 3))
    a = block(image, 16)
    b = block(layers.MaxPooling2D()(a), 32)
    c = block(layers.MaxPooling2D()(b), 64)
    c = block(layers.Concatenate()([layers.UpSampling2D()(c), b]), 32)
    c = block(layers.Concatenate()([layers.UpSampling2D()(c), a]), 16)
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1)(c)))


def mlp() -> keras.Model:
    hidden = [layers.Dense(256, activation="relu") for _ in range(2)]
    return keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), *hidden, layers.Dense(256)])


def application(name: str, classes: int = 10, **options) -> Callable[[], keras.Model]:
    def make() -> keras.Model:
        kind = getattr(keras.applications, name)
        return kind(
            weights=None, classes=classes, input_shape=(224, 224, 3), classifier_activation=None, **options
        )

    return make


PANEL: dict[str, tuple[Callable[[], keras.Model], tuple[int, ...]]] = {
    "tutorial256": (tutorial256, (1, 4)),
    "small CNN 64x64": (small_cnn, (8, 32)),
    "MobileNetV2": (application("MobileNetV2"), (1, 8)),
    "MobileNetV2 0.35, 1000 outputs": (application("MobileNetV2", 1000, alpha=0.35), (1,)),
    "ResNet50": (application("ResNet50"), (1, 8)),
    "EfficientNetB0": (application("EfficientNetB0"), (1, 8)),
    "ViT 96x96": (vit(96, 8, 96, 4, 4), (4, 16)),
    "U-Net 64x64, pooled": (unet, (8, 32)),
    "MLP 16 to 256": (mlp, (32, 128, 512)),
    "DenseNet121": (application("DenseNet121"), (1, 2)),
    "Xception": (application("Xception"), (1, 2)),
    "MobileNetV3Small": (application("MobileNetV3Small"), (1, 8)),
    "ConvNeXtTiny": (application("ConvNeXtTiny"), (1,)),
    "NASNetMobile": (application("NASNetMobile"), (1, 4)),
    "VGG16": (application("VGG16"), (1,)),
    "InceptionV3": (application("InceptionV3"), (1, 4)),
    "EfficientNetV2S": (application("EfficientNetV2S"), (1, 2)),
    "ResNet18 with GroupNorm": (resnet18_groups, (1, 4)),
    "ViT 224x224, 12 blocks": (vit(224, 16, 384, 6, 12), (1, 4)),
}
"""Name -> model, and the batches that the peers are tried at."""


def build(name: str) -> keras.Model:
    """A model of the panel, whose batch normalizations have scales, shifts and the statistics of noise.

    With others the signal of a deep one (EfficientNetV2S) grows until its Jacobian is rounding alone.
    """
    keras.utils.set_random_seed(0)
    model = PANEL[name][0]()
    rng = np.random.default_rng(1)
    norms = [part for part in model._flatten_layers() if isinstance(part, layers.BatchNormalization)]
    for part in norms:
        part.momentum = 0.0  # statistics are those of the one batch below
        for variable, low, high in ((part.gamma, 0.5, 1.5), (part.beta, -0.1, 0.1)):
            if variable is not None:  # without scale or centre
                variable.assign(rng.uniform(low, high, variable.shape))
    if norms:
        model(noise(model, 2, seed=1), training=True)
    return model


def noise(model: keras.Model, count: int, seed: int = 0) -> np.ndarray:
    """Images (count, *input) of noise: 0 to 255 where the model itself rescales pixels, else 0 to 1."""
    raw, _ = rescaling(trace(model))
    shape = (count, *model.input_shape[1:])
    return np.random.default_rng(seed).uniform(0, 255 if raw else 1, shape).astype(np.float32)
