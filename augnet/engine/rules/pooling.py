"""Pooling over windows. The winners of a max-pool are found once and shared by all cotangents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.padding import resolved_pads
from augnet.engine.rules.base import (
    Elementwise,
    Jvp,
    Kernels,
    LinearRule,
    Reach,
    Rule,
    Shape,
    Vjp,
)
from augnet.engine.rules.elementwise import NOTHING
from augnet.engine.rules.registry import Call, serves
from augnet.engine.rules.shaping import as_image
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Pool(Rule):
    """One number from each window of pixels.

    Attributes:
        size, strides: of height and width.
        padding: "same" or "valid".
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: str
    fuses_on_cpu: ClassVar[bool] = False

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach:
        pads = resolved_pads(self.padding, inputs[0][:2], self.size, self.strides, (1, 1))
        first = np.arange(output[axis]) * self.strides[axis] - pads[axis][0]
        return first, first + self.size[axis] - 1


@dataclass(frozen=True, eq=False)
class MaxPool(Pool):
    """Maximum over windows; of equal elements the first takes the gradient, as in TensorFlow.

    Attributes:
        before: elementwise operations just before it, whose slope is only needed where the winners are.
    """

    before: Elementwise = NOTHING

    def __call__(self, x: Tensor) -> Tensor:
        return ops.max_pool(self.before(x), self.size, self.strides, self.padding)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp | None]:
        height, width = x.shape[1:3]
        x, slope = self.before.value_and_slope(x)
        tiles = height % self.size[0] == 0 and width % self.size[1] == 0
        if self.size == self.strides and tiles:
            return self._tiled(x, slope)
        output, argmax = backend.max_pool_with_argmax(x, self.size, self.strides, self.padding)
        at_winner = None if slope is None else backend.elements_at(ops.broadcast_to(slope, x.shape), argmax)

        def vjp(g: Tensor) -> tuple[Tensor]:
            g = g if at_winner is None else g * at_winner
            return (backend.max_pool_gradient(g, argmax, x, self.size, self.strides, self.padding),)

        return output, vjp, None

    def fused_after(self, before: Elementwise) -> Rule:
        return replace(self, before=before)

    def _tiled(self, x: Tensor, slope: Tensor | None) -> tuple[Tensor, Vjp, Jvp]:
        """Windows side by side: the cotangent, repeated over the window, times a mask of the winners.

        The slope of what comes before is part of the mask, so that it costs nothing per cotangent.
        """
        output = ops.max_pool(x, self.size, self.strides, self.padding)
        batch, height, width, channels = x.shape
        rows, columns = self.size
        split = (height // rows, rows, width // columns, columns, channels)
        blocks = ops.reshape(x, (batch, *split))
        free = ops.ones_like(output)
        lines = []
        for i in range(rows):
            line = []
            for j in range(columns):
                wins = ops.cast(ops.equal(blocks[:, :, i, :, j], output), x.dtype) * free
                free = free - wins
                line.append(wins)
            lines.append(ops.stack(line, axis=3))
        mask = ops.reshape(ops.stack(lines, axis=2), x.shape)
        if slope is not None:
            mask = mask * slope

        def vjp(g: Tensor) -> tuple[Tensor]:
            n = g.shape[0] * batch
            wide = ops.reshape(g, (n, split[0], 1, split[2], 1, channels))
            wide = ops.broadcast_to(wide, (n, *split))
            return (ops.reshape(wide, (g.shape[0], *x.shape)) * mask,)

        def jvp(t: Tensor) -> Tensor:
            return ops.sum(ops.reshape(t * mask, (t.shape[0], batch, *split)), axis=(3, 5))

        return output, vjp, jvp


@dataclass(frozen=True, eq=False)
class AveragePool(Pool, LinearRule):
    """Mean over windows."""

    def __call__(self, x: Tensor) -> Tensor:
        return ops.average_pool(x, self.size, self.strides, self.padding)

    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        whole = (g.shape[0], *shape)
        return backend.average_pool_gradient(g, whole, self.size, self.strides, self.padding)


def _kind(source: Op) -> type[MaxPool] | type[AveragePool]:
    return MaxPool if type(source).__name__.startswith("MaxPool") else AveragePool


@serves(layers.MaxPooling1D, layers.MaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D)
def _pool(layer: Op, call: Call) -> list[Rule]:
    size, strides = ((*sizes, 1)[:2] for sizes in (layer.pool_size, layer.strides))
    return as_image(call, _kind(layer)(size, strides, layer.padding))


@serves("MaxPool", "AveragePool")
def _pool_operation(op: Op, call: Call) -> list[Rule] | None:
    if len(call.inputs[0]) != 3 or op.data_format == "channels_first":
        return None
    size, strides = _pair(op.pool_size), _pair(op.pool_size if op.strides is None else op.strides)
    return [_kind(op)(size, strides, op.padding)]


def _pair(sizes: int | Sequence[int]) -> tuple[int, int]:
    height, width = (sizes, sizes) if isinstance(sizes, int) else sizes
    return height, width
