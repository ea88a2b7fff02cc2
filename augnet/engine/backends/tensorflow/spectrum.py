"""The Fourier transform of pictures, which keras.ops has for complex ones only."""

from __future__ import annotations

import tensorflow as tf

from augnet.engine.types import Tensor


def power_spectrum(pictures: Tensor) -> Tensor:
    """|DFT|^2, not normalised, (..., height, width // 2 + 1) of real pictures (..., height, width)."""
    spectrum = tf.signal.rfft2d(pictures)
    return tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
