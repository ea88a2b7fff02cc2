"""Normalization by what is found in each image: of layers, groups, channels."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops

from augnet.engine.rules.affine import Affine
from augnet.engine.rules.base import Jvp, Kernels, Mixing, Rule, Vjp
from augnet.engine.rules.registry import Call, existing_layers, serves, weights_of
from augnet.engine.rules.shaping import Reshape
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class LayerNorm(Mixing):
    """Features to mean 0 and variance 1.

    Ba, Kiros, Hinton 2016, arXiv 1607.06450.

    Attributes:
        axes: over which mean and variance are taken, counted from behind.
        centred: whether the mean is taken off; without, features get a mean square of 1 (Zhang, Sennrich
            2019, arXiv 1910.07467).
    """

    epsilon: float
    axes: tuple[int, ...] = (-1,)
    centred: bool = True

    def _mean(self, x: Tensor) -> Tensor:
        return ops.mean(x, axis=self.axes, keepdims=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self._normal(x)[0]

    def _normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x - self._mean(x) if self.centred else x
        inverse = ops.rsqrt(self._mean(ops.square(centred)) + self.epsilon)
        return centred * inverse, inverse

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        normal, inverse = self._normal(x)

        def project(g: Tensor) -> Tensor:
            along = self._mean(g * normal)
            if not self.centred:
                return (g - normal * along) * inverse
            return (g - self._mean(g) - normal * along) * inverse

        return normal, lambda g: (project(g),), project


@dataclass(frozen=True, eq=False)
class UnitNorm(Mixing):
    """Features to a Euclidean norm of 1, or smaller ones times 1 / epsilon.

    Attributes:
        axes: of the norm, counted from behind.
    """

    axes: tuple[int, ...]
    epsilon: float

    def __call__(self, x: Tensor) -> Tensor:
        return x * self._inverse(x)

    def _sum(self, x: Tensor) -> Tensor:
        return ops.sum(x, axis=self.axes, keepdims=True)

    def _inverse(self, x: Tensor) -> Tensor:
        return ops.minimum(ops.rsqrt(self._sum(ops.square(x))), 1 / self.epsilon)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        inverse = self._inverse(x)
        output = x * inverse
        turns = ops.cast(inverse < 1 / self.epsilon, x.dtype) * output

        def project(g: Tensor) -> Tensor:
            return (g - turns * self._sum(g * output)) * inverse

        return output, lambda g: (project(g),), project


def _scaled(axes: tuple[int, ...], gamma: keras.Variable | None, beta: keras.Variable | None) -> Affine:
    """Scale and shift over these axes, if any, with an axis of length one for the others behind the first."""

    def spread(variable: keras.Variable | None, neutral: float) -> np.ndarray:
        if variable is None:
            return np.full((), neutral)
        sizes = dict(zip(axes, variable.shape, strict=True))
        return weights_of(variable).reshape([sizes.get(axis, 1) for axis in range(axes[0], 0)])

    return Affine(spread(gamma, 1.0), spread(beta, 0.0))


@serves(layers.LayerNormalization)
def _layer_normalization(layer: Op, call: Call) -> list[Rule] | None:
    axes = call.from_behind(layer.axis)
    if axes is None or getattr(layer, "rms_scaling", False):
        return None
    return [LayerNorm(layer.epsilon, axes), _scaled(axes, layer.gamma, layer.beta)]


@serves(*existing_layers("RMSNormalization"))
def _rms_normalization(layer: Op, call: Call) -> list[Rule] | None:
    axes = call.from_behind(layer.axis)
    if axes is None:
        return None
    return [LayerNorm(layer.epsilon, axes, centred=False), _scaled(axes, layer.scale, None)]


@serves(layers.GroupNormalization)
def _group_normalization(layer: Op, call: Call) -> list[Rule] | None:
    shape = call.inputs[0]
    if call.from_behind(layer.axis) != (-1,):
        return None
    channels, groups = shape[-1], layer.groups
    every = tuple(axis for axis in range(-len(shape) - 1, 0) if axis != -2)  # but the one of the groups
    apart = Reshape((*shape[:-1], groups, channels // groups))
    scaled = _scaled((-1,), layer.gamma, layer.beta)
    return [apart, LayerNorm(layer.epsilon, every), Reshape(shape), scaled]


@serves(layers.UnitNormalization, "Normalize")
def _unit_normalization(source: Op, call: Call) -> list[Rule] | None:
    axes = call.from_behind(source.axis)
    if axes is None or getattr(source, "order", 2) != 2:
        return None
    epsilon = getattr(source, "epsilon", 1e-12)  # the layer's own is not to be changed
    return [UnitNorm(axes, keras.config.epsilon() if epsilon is None else epsilon)]
