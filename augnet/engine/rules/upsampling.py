"""Nearest-neighbour upsampling, alone and before a convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.backends import tensorflow as backend
from augnet.engine.backends.tensorflow import constant
from augnet.engine.rules.base import Jvp, Kernels, Vjp, on_rows
from augnet.engine.rules.convolution import Convolution


@dataclass(frozen=True, eq=False)
class Upsample:
    """Every pixel repeated over a block (nearest neighbour)."""

    size: tuple[int, int]

    def sizes(self, given: Any) -> tuple[int, int]:
        """Height and width of what an image of the given ones becomes."""
        return given[0] * self.size[0], given[1] * self.size[1]

    def __call__(self, x: Any) -> Any:
        n, height, width, channels = x.shape
        rows, columns = self.size
        wide = ops.broadcast_to(x[:, :, None, :, None, :], (n, height, rows, width, columns, channels))
        return ops.reshape(wide, (n, *self.sizes((height, width)), channels))

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        def back(g: Any) -> Any:
            # The sum over each block, by the operation that is fast at it.
            return ops.average_pool(g, self.size, self.size, "valid") * math.prod(self.size)

        return self(x), lambda g: (on_rows(back)(g),), on_rows(self)


@dataclass(frozen=True, eq=False)
class UpsampledConvolution:
    """A convolution without strides or dilation after an upsampling.

    The vjp of both is one convolution with strides, in whose kernel the sums over the upsampling's
    blocks are already made: with k x k kernels and blocks of s x s, (k + s - 1)^2 products and not (k s)^2.
    """

    upsample: Upsample
    convolution: Convolution

    def __call__(self, x: Any) -> Any:
        return self.convolution(self.upsample(x))

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        around = self.convolution.pads_back(self.upsample.sizes(x.shape[1:3]))

        def back(g: Any) -> Any:
            return backend.conv2d(g, constant(self._summed(), g.dtype), self.upsample.size, around, (1, 1))

        linear = replace(self, convolution=replace(self.convolution, bias=None))
        return self(x), lambda g: (on_rows(back)(g),), on_rows(linear)

    def _summed(self) -> np.ndarray:
        kernel = self.convolution.flipped
        rows, columns, *channels = kernel.shape
        height, width = self.upsample.size
        summed = np.zeros((rows + height - 1, columns + width - 1, *channels))
        for y, x in np.ndindex(height, width):
            summed[y : y + rows, x : x + columns] += kernel
        return summed
