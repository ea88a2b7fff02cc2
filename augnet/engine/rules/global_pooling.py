"""Means and extremes over whole axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from keras import layers, ops

from augnet.engine.rules.base import Jvp, Kernels, LinearRule, Rule, Vjp
from augnet.engine.rules.registry import Call, serves
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class GlobalAverage(LinearRule):
    """Mean over height and width, or over all axes but the batch and the channel.

    Attributes:
        keepdims: whether they stay as axes of length one.
        axes: how many they are.
    """

    keepdims: bool = False
    axes: int = 2

    def __call__(self, x: Tensor) -> Tensor:
        return ops.mean(x, axis=tuple(range(-1 - self.axes, -1)), keepdims=self.keepdims)

    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        *sizes, channels = shape
        small = ops.reshape(g / math.prod(sizes), (g.shape[0], *[1] * len(sizes), channels))
        return ops.broadcast_to(small, (g.shape[0], *shape))


@dataclass(frozen=True, eq=False)
class Extremum(Rule):
    """Maximum or minimum over axes; equal elements share the gradient, as in TensorFlow.

    Attributes:
        axes: counted from behind.
        keepdims: whether they stay as axes of length one.
        function: ops.max or ops.min.
    """

    axes: tuple[int, ...]
    keepdims: bool = False
    function: Callable[..., Tensor] = ops.max

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, axis=self.axes, keepdims=self.keepdims)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        best = self.function(x, axis=self.axes, keepdims=True)
        wins = ops.cast(ops.equal(x, best), x.dtype)
        share = wins / ops.sum(wins, axis=self.axes, keepdims=True)

        def vjp(g: Tensor) -> tuple[Tensor]:
            return (ops.reshape(g, (g.shape[0], *best.shape)) * share,)

        def jvp(t: Tensor) -> Tensor:
            return ops.sum(t * share, axis=self.axes, keepdims=self.keepdims)

        return self(x), vjp, jvp


@serves(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D)
def _global_average(layer: Op, call: Call) -> list[Rule]:
    return [GlobalAverage(bool(layer.keepdims), len(call.inputs[0]) - 1)]


@serves(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D)
def _global_max(layer: Op, call: Call) -> list[Rule]:
    return [Extremum(tuple(range(-len(call.inputs[0]), -1)), bool(layer.keepdims))]


@serves("Amax", "Amin", "Max", "Min")
def _extremum(op: Op, call: Call) -> list[Rule] | None:
    if not call.is_unary or op.axis is None or getattr(op, "initial", None) is not None:
        return None
    axes = call.from_behind(op.axis)
    function = ops.min if type(op).__name__ in ("Amin", "Min") else ops.max
    return None if axes is None else [Extremum(axes, op.keepdims, function)]
