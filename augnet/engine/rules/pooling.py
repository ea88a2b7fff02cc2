"""Pooling. The winners of a max-pool are found once and shared by all cotangents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from keras import ops

from augnet.engine.backends import tensorflow as backend
from augnet.engine.rules.base import Jvp, Kernels, Vjp, on_rows
from augnet.engine.rules.elementwise import Chain

NOTHING = Chain(())


@dataclass(frozen=True, eq=False)
class MaxPool:
    """Maximum over windows; of equal elements the first takes the gradient, as in TensorFlow.

    Attributes:
        before: elementwise operations just before it, whose slope is only needed where the winners are.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: str
    before: Chain = NOTHING

    def __call__(self, x: Any) -> Any:
        return ops.max_pool(self.before(x), self.size, self.strides, self.padding)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp | None]:
        height, width = x.shape[1:3]
        x, slope = self.before.value_and_slope(x)
        tiles = height % self.size[0] == 0 and width % self.size[1] == 0
        if self.size == self.strides and tiles:
            return self._tiled(x, slope)
        made, argmax = backend.max_pool_with_argmax(x, self.size, self.strides, self.padding)

        at_winner = None if slope is None else backend.taken(ops.broadcast_to(slope, x.shape), argmax)

        def vjp(g: Any) -> tuple[Any]:
            g = g if at_winner is None else g * at_winner
            return (backend.max_pool_gradient(g, argmax, x, self.size, self.strides, self.padding),)

        return made, vjp, None

    def _tiled(self, x: Any, slope: Any) -> tuple[Any, Vjp, Jvp]:
        """Windows side by side: the cotangent, repeated over the window, times a mask of the winners.

        The slope of what comes before is part of the mask, so that it costs nothing per cotangent.
        """
        made = ops.max_pool(x, self.size, self.strides, self.padding)
        batch, height, width, channels = x.shape
        rows, columns = self.size
        split = (height // rows, rows, width // columns, columns, channels)
        blocks = ops.reshape(x, (batch, *split))
        free = ops.ones_like(made)
        lines = []
        for i in range(rows):
            line = []
            for j in range(columns):
                wins = ops.cast(ops.equal(blocks[:, :, i, :, j], made), x.dtype) * free
                free = free - wins
                line.append(wins)
            lines.append(ops.stack(line, axis=3))
        mask = ops.reshape(ops.stack(lines, axis=2), x.shape)
        if slope is not None:
            mask = mask * slope

        def vjp(g: Any) -> tuple[Any]:
            n = g.shape[0] * batch
            wide = ops.reshape(g, (n, split[0], 1, split[2], 1, channels))
            wide = ops.broadcast_to(wide, (n, *split))
            return (ops.reshape(wide, (g.shape[0], *x.shape)) * mask,)

        def jvp(t: Any) -> Any:
            return ops.sum(ops.reshape(t * mask, (t.shape[0], batch, *split)), axis=(3, 5))

        return made, vjp, jvp


@dataclass(frozen=True, eq=False)
class AveragePool:
    """Mean over windows."""

    size: tuple[int, int]
    strides: tuple[int, int]
    padding: str

    def __call__(self, x: Any) -> Any:
        return ops.average_pool(x, self.size, self.strides, self.padding)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        shape = tuple(x.shape[1:])

        def back(g: Any) -> Any:
            return backend.average_pool_gradient(
                g, (g.shape[0], *shape), self.size, self.strides, self.padding
            )

        return self(x), lambda g: (on_rows(back)(g),), on_rows(self)


@dataclass(frozen=True, eq=False)
class GlobalAverage:
    """Mean over height and width, or over all axes but the batch and the channel.

    Attributes:
        keepdims: whether they stay as axes of length one.
        axes: how many they are.
    """

    keepdims: bool = False
    axes: int = 2

    def __call__(self, x: Any) -> Any:
        return ops.mean(x, axis=tuple(range(-1 - self.axes, -1)), keepdims=self.keepdims)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        batch, *sizes, channels = x.shape

        def vjp(g: Any) -> tuple[Any]:
            small = ops.reshape(g / math.prod(sizes), (g.shape[0], batch, *[1] * len(sizes), channels))
            return (ops.broadcast_to(small, (g.shape[0], *x.shape)),)

        return self(x), vjp, self


@dataclass(frozen=True, eq=False)
class GlobalMax:
    """Maximum over height and width; equal elements share the gradient, as in TensorFlow.

    Attributes:
        keepdims: whether they stay as axes of length one.
    """

    keepdims: bool = False

    def __call__(self, x: Any) -> Any:
        return ops.max(x, axis=(1, 2), keepdims=self.keepdims)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        batch, _, _, channels = x.shape
        wins = ops.cast(ops.equal(x, ops.max(x, axis=(1, 2), keepdims=True)), x.dtype)
        share = wins / ops.sum(wins, axis=(1, 2), keepdims=True)

        def vjp(g: Any) -> tuple[Any]:
            return (ops.reshape(g, (g.shape[0], batch, 1, 1, channels)) * share,)

        def jvp(t: Any) -> Any:
            return ops.sum(t * share, axis=(2, 3), keepdims=self.keepdims)

        return self(x), vjp, jvp
