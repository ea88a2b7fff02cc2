"""Scale and shift: what normalization by fixed statistics is."""

from __future__ import annotations

from dataclasses import dataclass, field

import keras
import numpy as np
from keras import layers
from keras.src.applications.convnext import LayerScale  # not exported

from augnet.engine.backends import backend
from augnet.engine.rules.base import Elementwise
from augnet.engine.rules.registry import Call, serves, weights_of
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Affine(Elementwise):
    """x * scale + shift, both broadcast over the leading axes."""

    scale: np.ndarray = field(default_factory=lambda: np.ones(()))
    shift: np.ndarray = field(default_factory=lambda: np.zeros(()))

    @property
    def scales(self) -> bool:
        return bool(np.any(self.scale != 1))

    @property
    def shifts(self) -> bool:
        return bool(np.any(self.shift))

    def __call__(self, x: Tensor) -> Tensor:
        if self.scales:
            x = x * backend.constant(self.scale, x.dtype)
        return x + backend.constant(self.shift, x.dtype) if self.shifts else x

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return self(x), backend.constant(self.scale, x.dtype) if self.scales else None


@serves(layers.BatchNormalization)
def _batch_normalization(layer: Op, call: Call) -> list[Affine] | None:
    if getattr(layer, "renorm", False):
        return None
    wide, rank = np.float64, len(call.inputs[0])
    scale = 1 / np.sqrt(weights_of(layer.moving_variance).astype(wide) + layer.epsilon)
    if layer.scale:
        scale = scale * weights_of(layer.gamma)
    shift = -weights_of(layer.moving_mean).astype(wide) * scale
    if layer.center:
        shift = shift + weights_of(layer.beta)
    behind = (1,) * (rank - layer.axis % (rank + 1))  # axes after the one that is normalized
    return [Affine(scale.reshape(-1, *behind), shift.reshape(-1, *behind))]


@serves(layers.Rescaling)
def _rescaling(layer: Op, call: Call) -> list[Affine]:
    # As Keras rounds them, which is to float32 even in a float64 model.
    scale, offset = (
        backend.values_of(keras.ops.cast(part, "float64")) for part in (layer.scale, layer.offset)
    )
    return [Affine(scale, offset)]


@serves(layers.Normalization)
def _normalization(layer: Op, call: Call) -> list[Affine]:
    mean, variance = (
        array.reshape(array.shape[1:]).astype(np.float64)
        for array in (weights_of(layer.mean), weights_of(layer.variance))
    )
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return [Affine(deviation, mean)] if layer.invert else [Affine(1 / deviation, -mean / deviation)]


@serves(LayerScale)
def _layer_scale(layer: Op, call: Call) -> list[Affine]:
    return [Affine(weights_of(layer.gamma))]
