"""Functions of one element: activations and most of mathematics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.rules.base import Elementwise, Kernel
from augnet.engine.rules.registry import Call, existing_layers, serves
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class ElementFunction(Elementwise):
    """Any function of one element; the backend knows its slope."""

    function: Kernel

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return backend.elementwise_slope(self.function, x)


@dataclass(frozen=True, eq=False)
class Clip(Elementwise):
    """ReLU and its kin: slope `below` under zero, 1 above, 0 beyond `ceiling` and, as in tf.nn.relu, at 0.

    At the ceiling it is what TensorFlow's operation has there: 0 of tf.nn.relu6, 1 of tf.clip_by_value.
    """

    below: float = 0.0
    ceiling: float | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.below:
            return ops.leaky_relu(x, self.below)
        if self.ceiling is None:
            return ops.relu(x)
        return ops.relu6(x) if self.ceiling == 6 else ops.minimum(ops.relu(x), self.ceiling)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        output = self(x)
        # From the output, so that TensorFlow may fuse the convolution before it with the ReLU; by sign,
        # which takes a third of the time of a comparison and a cast.
        inside = output
        if self.ceiling == 6:
            inside = output * (6 - output)
        elif self.ceiling is not None:
            inside = output * ops.cast(x <= self.ceiling, output.dtype)
        if self.below:
            inside = ops.relu(inside)
        slope = ops.sign(inside)
        return output, slope * (1 - self.below) + self.below if self.below else slope


@dataclass(frozen=True, eq=False)
class Chain(Elementwise):
    """Elementwise operations one after the other: one slope, their product, for all of them."""

    steps: tuple[Elementwise, ...]

    def __call__(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        total = None
        for step in self.steps:
            x, slope = step.value_and_slope(x)
            if slope is not None:
                total = slope if total is None else total * slope
        return x, total


NOTHING = Chain(())


def _leaky(slope: float) -> Clip:
    """A leaky ReLU; TensorFlow holds its slope as a float32, also in a float64 model."""
    return Clip(float(np.float32(slope)))


SAME_AT_INFERENCE = """
Activation ActivityRegularization AlphaDropout AugMix CutMix Dropout GaussianDropout GaussianNoise Identity
MixUp RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast
RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert
RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
RandomTranslation RandomZoom SpatialDropout1D SpatialDropout2D SpatialDropout3D
"""
"""Layers, as far as this version of Keras has them; the caller appends what an Activation holds."""


@serves(keras.activations.linear, *existing_layers(*SAME_AT_INFERENCE.split()))
def _same_at_inference(source: Op, call: Call) -> list[Elementwise]:
    return []


@serves("Identity", "Copy", "Real", "Conj", "Conjugate")
def _identity(op: Op, call: Call) -> list[Elementwise] | None:
    return [] if call.is_unary else None


@serves(layers.ReLU)
def _relu_layer(layer: Op, call: Call) -> list[Elementwise]:
    slope, ceiling = float(layer.negative_slope or 0), layer.max_value
    if layer.threshold or (slope and ceiling is not None):
        return [ElementFunction(layer)]
    return [_leaky(slope) if ceiling is None else Clip(slope, float(ceiling))]


@serves(layers.LeakyReLU)
def _leaky_relu_layer(layer: Op, call: Call) -> list[Elementwise]:
    return [_leaky(layer.negative_slope)]


@serves(layers.ELU, layers.PReLU)
def _curved_relu_layer(layer: Op, call: Call) -> list[Elementwise]:
    return [ElementFunction(layer)]


CLIPS = {
    keras.activations.relu: Clip(),
    keras.activations.relu6: Clip(0.0, 6.0),
    keras.activations.leaky_relu: _leaky(0.2),
}
ACTIVATIONS = """
celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_tanh log_sigmoid mish selu sigmoid silu
soft_shrink softplus softsign sparse_plus sparse_sigmoid squareplus tanh tanh_shrink threshold
"""
"""Keras' other activations that act on one element at a time, as far as this version has them."""
CURVES = [getattr(keras.activations, name, None) for name in ACTIVATIONS.split()]


@serves(*CLIPS, *filter(None, CURVES))
def _activation(function: Callable[[Tensor], Tensor], call: Call) -> list[Elementwise]:
    return [CLIPS.get(function) or ElementFunction(function)]


@serves("Relu", "Relu6", "LeakyRelu")
def _relu_operation(op: Op, call: Call) -> list[Elementwise] | None:
    clips = {"Relu": Clip(), "Relu6": Clip(0.0, 6.0)}
    return [clips.get(type(op).__name__) or _leaky(op.negative_slope)] if call.is_unary else None


OPERATIONS = """
Abs Absolute Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh Cbrt Celu Clip Cos Cosh Deg2rad
DivideNoNan Elu Erf Erfc Erfinv Exp Exp2 Expm1 Fabs Fmax Fmin Gelu HardShrink HardSigmoid HardSilu HardTanh
Hypot Log Log10 Log1p Log2 LogSigmoid Logaddexp Logaddexp2 Mish Negative Power Rad2deg Reciprocal Rsqrt Selu
Sigmoid Silu Sin Sinc Sinh SoftShrink Softplus Softsign SparsePlus SparseSigmoid Sqrt Square Squareplus Tan
Tanh TanhShrink Threshold
"""


@serves(*OPERATIONS.split())
def element_operation(op: Op, call: Call) -> list[Elementwise] | None:
    """An operation of one element, and of constants beside it."""
    if len(call.node.inputs) != 1 or call.inputs[0] != call.output:
        return None
    return [ElementFunction(lambda x: call.node(x)[0])]
