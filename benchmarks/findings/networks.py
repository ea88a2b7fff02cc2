"""Small networks of four kinds, each trained in seconds."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

layers = keras.layers

EPOCHS, BATCH, LEARNING_RATE = 14, 50, 3e-3
GOOD_ENOUGH = 0.98
"""Training accuracy at which training ends."""


def build(network: str, size: int, channels: int, classes: int) -> keras.Model:
    """A network of spec.NETWORKS for images in [0, 1], with a final softmax and random weights."""
    image = keras.Input((size, size, channels))
    body = {"dense": _dense, "pooled": _pooled, "residual": _residual, "attention": _attention}[network]
    return keras.Model(image, layers.Dense(classes, activation="softmax")(body(image)), name=network)


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Fit the model to images (n, height, width, channel) in [0, 1], until it knows nearly all of them.

    A loop in one graph: `fit` would spend most of its time on anything but so small a model.
    """
    variables = model.trainable_variables
    batches = len(images) // BATCH
    # Down to nothing at the end, so that the statistics of normalisation settle.
    rate = keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, EPOCHS * batches, end_learning_rate=0.0)
    optimizer = keras.optimizers.Adam(rate)
    optimizer.build(variables)
    loss = keras.losses.SparseCategoricalCrossentropy()

    @tf.function
    def epoch(images: tf.Tensor, labels: tf.Tensor, order: tf.Tensor) -> tf.Tensor:
        right = tf.constant(0, tf.int64)
        for number in tf.range(batches):
            batch = order[number * BATCH : (number + 1) * BATCH]
            shown, wanted = tf.gather(images, batch), tf.gather(labels, batch)
            with tf.GradientTape() as tape:
                predicted = model(shown, training=True)
                cost = loss(wanted, predicted)
            optimizer.apply(tape.gradient(cost, variables), variables)
            right += tf.math.count_nonzero(tf.argmax(predicted, axis=1) == wanted)
        return right

    data = tf.constant(images), tf.constant(labels)
    for _ in range(EPOCHS):
        order = keras.random.shuffle(np.arange(len(images)))
        if int(epoch(*data, order)) >= GOOD_ENOUGH * batches * BATCH:
            break


def _dense(x: keras.KerasTensor) -> keras.KerasTensor:
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="relu")(x)
    return layers.Dense(32, activation="relu")(x)


def _pooled(x: keras.KerasTensor) -> keras.KerasTensor:
    for width in (8, 16, 32):
        x = layers.Conv2D(width, 3, 2 if x.shape[1] > 48 else 1, padding="same", activation="relu")(x)
        if x.shape[1] > 6:
            x = layers.MaxPooling2D()(x)
    return layers.Flatten()(x)


def _residual(x: keras.KerasTensor) -> keras.KerasTensor:
    x = _normalized_convolution(x, 12, strides=2 if x.shape[1] > 16 else 1)
    if x.shape[1] > 32:
        x = layers.MaxPooling2D()(x)
    for width in (12, 16, 24):
        strides = 2 if x.shape[1] > 8 else 1
        y = _normalized_convolution(x, width, strides)
        y = layers.Conv2D(width, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization(momentum=0.9)(y)
        x = layers.Conv2D(width, 1, strides, use_bias=False)(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    return layers.GlobalAveragePooling2D()(x)


def _normalized_convolution(x: keras.KerasTensor, width: int, strides: int) -> keras.KerasTensor:
    x = layers.Conv2D(width, 3, strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


def _attention(x: keras.KerasTensor) -> keras.KerasTensor:
    side = max(3, round(x.shape[1] / 5))
    x = layers.Conv2D(24, side, side, activation="relu")(x)
    tokens = x.shape[1] * x.shape[2]
    x = layers.Reshape((tokens, 24))(x)
    # A bias for every token is a learned position.
    x = layers.EinsumDense("btd,de->bte", (tokens, 24), bias_axes="te", bias_initializer="random_normal")(x)
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(2, 12)(y, y)])
    y = layers.Dense(48, activation="relu")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(24)(y)])
    return layers.Flatten()(layers.LayerNormalization()(x))
