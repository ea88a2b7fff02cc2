"""Normalization by what is found in each image: of layers, groups, channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.rules.affine import Affine
from augnet.engine.rules.base import (
    Jvp,
    Kernels,
    Reach,
    Rule,
    Shape,
    Vjp,
    same_positions,
)
from augnet.engine.rules.registry import Call, existing_layers, serves, weights_of
from augnet.engine.rules.shaping import Reshape
from augnet.engine.types import Op, Tensor

LAST = (-1,)


@dataclass(frozen=True, eq=False)
class LayerNorm(Rule):
    """Features to mean 0 and variance 1, then scale and shift, broadcast over the leading axes.

    Ba, Kiros, Hinton 2016, arXiv 1607.06450.

    Attributes:
        axes: over which mean and variance are taken, counted from behind.
        centred: whether the mean is taken off; without, features get a mean square of 1 (Zhang, Sennrich
            2019, arXiv 1910.07467).
    """

    scale: np.ndarray | None
    shift: np.ndarray | None
    epsilon: float
    axes: tuple[int, ...] = LAST
    centred: bool = True

    def _mean(self, x: Tensor) -> Tensor:
        return ops.mean(x, axis=self.axes, keepdims=True)

    def __call__(self, x: Tensor) -> Tensor:
        return self._finished(self._normal(x)[0])

    def _normal(self, x: Tensor) -> tuple[Tensor, Tensor]:
        centred = x - self._mean(x) if self.centred else x
        inverse = ops.rsqrt(self._mean(ops.square(centred)) + self.epsilon)
        return centred * inverse, inverse

    def _finished(self, normal: Tensor) -> Tensor:
        if self.scale is not None:
            normal = normal * backend.constant(self.scale, normal.dtype)
        return normal if self.shift is None else normal + backend.constant(self.shift, normal.dtype)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        normal, inverse = self._normal(x)

        def project(g: Tensor) -> Tensor:
            along = self._mean(g * normal)
            if not self.centred:
                return (g - normal * along) * inverse
            return (g - self._mean(g) - normal * along) * inverse

        def scaled(g: Tensor) -> Tensor:
            return g if self.scale is None else g * backend.constant(self.scale, x.dtype)

        return self._finished(normal), lambda g: (project(scaled(g)),), lambda t: scaled(project(t))

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        return same_positions(axis, output) if self.axes == LAST and len(output) > 2 else None


@dataclass(frozen=True, eq=False)
class UnitNorm(Rule):
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

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        return same_positions(axis, output) if self.axes == LAST and len(output) > 2 else None


def _from_behind(axes: int | Sequence[int], rank: int) -> tuple[int, ...] | None:
    """Axes counted from behind and sorted; None where the batch is one of them.

    Args:
        rank: axes of the tensor, without the batch.
    """
    given = [axes] if isinstance(axes, int) else list(axes)
    counted = sorted(axis if axis < 0 else axis - rank - 1 for axis in given)
    return tuple(counted) if counted[0] >= -rank else None


def _spread(weights: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Weights over these axes, with an axis of length one for every other behind the first."""
    sizes = dict(zip(axes, weights.shape, strict=True))
    return weights.reshape([sizes.get(axis, 1) for axis in range(axes[0], 0)])


@serves(layers.LayerNormalization)
def _layer_normalization(layer: Op, call: Call) -> list[Rule] | None:
    axes = _from_behind(layer.axis, len(call.inputs[0]))
    if axes is None or getattr(layer, "rms_scaling", False):
        return None
    scale = _spread(weights_of(layer.gamma), axes) if layer.scale else None
    shift = _spread(weights_of(layer.beta), axes) if layer.center else None
    return [LayerNorm(scale, shift, layer.epsilon, axes)]


@serves(*existing_layers("RMSNormalization"))
def _rms_normalization(layer: Op, call: Call) -> list[Rule] | None:
    axes = _from_behind(layer.axis, len(call.inputs[0]))
    if axes is None:
        return None
    return [LayerNorm(_spread(weights_of(layer.scale), axes), None, layer.epsilon, axes, centred=False)]


@serves(layers.GroupNormalization)
def _group_normalization(layer: Op, call: Call) -> list[Rule] | None:
    shape = call.inputs[0]
    if not call.is_last_axis(layer.axis):
        return None
    channels, groups = shape[-1], layer.groups
    every = tuple(axis for axis in range(-len(shape) - 1, 0) if axis != -2)  # but the one of the groups
    rules: list[Rule] = [
        Reshape((*shape[:-1], groups, channels // groups)),
        LayerNorm(None, None, layer.epsilon, every),
        Reshape(shape),
    ]
    scale = weights_of(layer.gamma) if layer.scale else None
    shift = weights_of(layer.beta) if layer.center else None
    return rules if scale is None and shift is None else [*rules, Affine(scale, shift)]


@serves(layers.UnitNormalization, "Normalize")
def _unit_normalization(source: Op, call: Call) -> list[Rule] | None:
    axes = _from_behind(source.axis, len(call.inputs[0]))
    if axes is None or getattr(source, "order", 2) != 2:
        return None
    epsilon = getattr(source, "epsilon", 1e-12)  # the layer's own is not to be changed
    return [UnitNorm(axes, keras.config.epsilon() if epsilon is None else epsilon)]
