"""Softmax, and its logarithm."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import layers, ops

from augnet.engine.rules.base import Jvp, Kernels, Mixing, Rule, Vjp
from augnet.engine.rules.registry import Call, serves
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Softmax(Mixing):
    """Softmax over one axis, counted from behind."""

    axes: tuple[int, ...] = (-1,)

    def __call__(self, x: Tensor) -> Tensor:
        return ops.softmax(x, axis=self.axes[0])

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        output = self(x)

        def apply(g: Tensor) -> Tensor:
            return softmax_product(output, g, self.axes[0])

        return output, lambda g: (apply(g),), apply


def softmax_product(p: Tensor, g: Tensor, axis: int = -1) -> Tensor:
    """(diag p - p p^T) g over an axis."""
    weighted = g * p
    return weighted - p * ops.sum(weighted, axis=axis, keepdims=True)


@dataclass(frozen=True, eq=False)
class LogSoftmax(Softmax):
    """The logarithm of a softmax."""

    def __call__(self, x: Tensor) -> Tensor:
        return ops.log_softmax(x, axis=self.axes[0])

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        p = ops.softmax(x, axis=self.axes[0])

        def vjp(g: Tensor) -> tuple[Tensor]:
            return (g - p * ops.sum(g, axis=self.axes[0], keepdims=True),)

        def jvp(t: Tensor) -> Tensor:
            return t - ops.sum(p * t, axis=self.axes[0], keepdims=True)

        return self(x), vjp, jvp


@serves(keras.activations.softmax, keras.activations.log_softmax)
def _activation(function: Op, call: Call) -> list[Rule]:
    return [Softmax() if function is keras.activations.softmax else LogSoftmax()]


@serves(layers.Softmax, "Softmax", "LogSoftmax")
def _softmax(source: Op, call: Call) -> list[Rule] | None:
    if len(call.node.inputs) != 1 or not isinstance(source.axis, int):
        return None
    axes = call.from_behind(source.axis)
    kind = LogSoftmax if type(source).__name__ == "LogSoftmax" else Softmax
    return None if axes is None else [kind(axes)]
