"""Softmax, and its logarithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import layers, ops

from augnet.engine.rules.base import Jvp, Kernels, Reach, Rule, Shape, Vjp, same_positions
from augnet.engine.rules.registry import Call, serves
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Softmax(Rule):
    """Softmax over one axis, counted from behind."""

    axis: int = -1

    def __call__(self, x: Tensor) -> Tensor:
        return ops.softmax(x, axis=self.axis)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        output = self(x)

        def apply(g: Tensor) -> Tensor:
            return softmax_product(output, g, self.axis)

        return output, lambda g: (apply(g),), apply

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        return same_positions(axis, output) if self.axis == -1 and len(output) > 2 else None


def softmax_product(p: Tensor, g: Tensor, axis: int = -1) -> Tensor:
    """(diag p - p p^T) g over an axis."""
    weighted = g * p
    return weighted - p * ops.sum(weighted, axis=axis, keepdims=True)


@dataclass(frozen=True, eq=False)
class LogSoftmax(Rule):
    """The logarithm of a softmax over one axis, counted from behind."""

    axis: int = -1

    def __call__(self, x: Tensor) -> Tensor:
        return ops.log_softmax(x, axis=self.axis)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        p = ops.softmax(x, axis=self.axis)

        def vjp(g: Tensor) -> tuple[Tensor]:
            return (g - p * ops.sum(g, axis=self.axis, keepdims=True),)

        def jvp(t: Tensor) -> Tensor:
            return t - ops.sum(p * t, axis=self.axis, keepdims=True)

        return self(x), vjp, jvp

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        return same_positions(axis, output) if self.axis == -1 and len(output) > 2 else None


@serves(keras.activations.softmax)
def _activation(function: Op, call: Call) -> list[Rule]:
    return [Softmax()]


@serves(keras.activations.log_softmax)
def _log_activation(function: Op, call: Call) -> list[Rule]:
    return [LogSoftmax()]


@serves(layers.Softmax, "Softmax", "LogSoftmax")
def _softmax(source: Op, call: Call) -> list[Rule] | None:
    if len(call.node.inputs) != 1 or not isinstance(source.axis, int):
        return None
    rank = len(call.inputs[0])
    axis = source.axis if source.axis < 0 else source.axis - rank - 1
    if axis < -rank:
        return None
    return [LogSoftmax(axis) if type(source).__name__ == "LogSoftmax" else Softmax(axis)]
