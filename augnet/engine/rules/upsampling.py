"""Nearest-neighbour upsampling, alone and before a convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.rules.base import LinearRule, Reach, Rule, Shape
from augnet.engine.rules.convolution import Convolution
from augnet.engine.rules.linear import Linear
from augnet.engine.rules.registry import Call, serves
from augnet.engine.rules.shaping import as_image
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Upsample(LinearRule):
    """Every pixel repeated over a block (nearest neighbour)."""

    size: tuple[int, int]

    def sizes(self, given: Sequence[int]) -> tuple[int, int]:
        """Height and width of what an image of the given ones becomes."""
        return given[0] * self.size[0], given[1] * self.size[1]

    def __call__(self, x: Tensor) -> Tensor:
        n, height, width, channels = x.shape
        rows, columns = self.size
        wide = ops.broadcast_to(x[:, :, None, :, None, :], (n, height, rows, width, columns, channels))
        return ops.reshape(wide, (n, *self.sizes((height, width)), channels))

    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        # The sum over each block, by the operation that is fast at it.
        return ops.average_pool(g, self.size, self.size, "valid") * math.prod(self.size)

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach:
        read = np.arange(output[axis]) // self.size[axis]
        return read, read


@dataclass(frozen=True, eq=False)
class UpsampledConvolution(LinearRule):
    """A convolution without strides or dilation after an upsampling.

    The vjp of both is one convolution with strides, in whose kernel the sums over the upsampling's
    blocks are already made: with k x k kernels and blocks of s x s, (k + s - 1)^2 products and not (k s)^2.
    """

    upsample: Upsample
    convolution: Convolution
    fuses_on_cpu: ClassVar[bool] = False

    def __call__(self, x: Tensor) -> Tensor:
        return self.convolution(self.upsample(x))

    def linear(self, x: Tensor) -> Tensor:
        return replace(self.convolution, bias=None)(self.upsample(x))

    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        around = self.convolution.pads_back(self.upsample.sizes(shape))
        kernel = backend.constant(self._summed(), g.dtype)
        return backend.conv2d(g, kernel, self.upsample.size, around, (1, 1))

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach:
        sizes = self.upsample.sizes(inputs[0][:2])
        first, last = self.convolution.window(axis, sizes, np.arange(output[axis]))
        return first // self.upsample.size[axis], last // self.upsample.size[axis]

    def _summed(self) -> np.ndarray:
        kernel = self.convolution.flipped
        rows, columns, *channels = kernel.shape
        height, width = self.upsample.size
        summed = np.zeros((rows + height - 1, columns + width - 1, *channels))
        for y, x in np.ndindex(height, width):
            summed[y : y + rows, x : x + columns] += kernel
        return summed


@serves(layers.UpSampling2D)
def _upsampling(layer: Op, call: Call) -> list[Rule]:
    return [Upsample(tuple(layer.size)) if layer.interpolation == "nearest" else Linear(layer)]


@serves(layers.UpSampling1D)
def _upsampling_of_steps(layer: Op, call: Call) -> list[Rule]:
    return as_image(call, Upsample((int(layer.size), 1)))
