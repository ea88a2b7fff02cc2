"""Models that several benchmarks use, with random weights."""

from __future__ import annotations

import keras


def small_cnn(size: int, outputs: int) -> keras.Model:
    """Three convolutions on (size, size, 3), with pooling and a final softmax."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((size, size, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(outputs, activation="softmax"),
        ]
    )


def mobilenet(size: int, outputs: int) -> keras.Model:
    """MobileNetV2 on (size, size, 3)."""
    keras.utils.set_random_seed(0)
    return keras.applications.MobileNetV2((size, size, 3), weights=None, classes=outputs)
