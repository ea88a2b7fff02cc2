"""Convolutions: the input gradient as whichever of several equal computations runs fastest here.

With stride s the input gradient is s * s interleaved plain convolutions of the cotangent ("phases", one per
position of an input pixel relative to the stride), which is exact and, for the few channels of an image,
several times faster on a CPU than the dedicated operation (benchmarks/engine.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.padding import Pads
from augnet.engine.rules.base import Jvp, Kernel, Kernels, Rule, Shape, Vjp, on_rows
from augnet.engine.rules.depthwise import Depthwise
from augnet.engine.rules.grouped import Grouped
from augnet.engine.rules.phases import phase_kernels, placed
from augnet.engine.rules.registry import Call, bias_of, serves
from augnet.engine.rules.shaping import Pad, as_image
from augnet.engine.rules.weighted import Windowed, image_kernel, window_of
from augnet.engine.types import Op, Tensor

FEW_CHANNELS = 16
"""Up to here the native input gradient leaves vector lanes idle, and others are tried.

Above, it takes as long as the flipped convolution and half as long as phases (seen in ResNet50's layers).
"""
LANES = 16
"""Of a vector, or of two: output channels that cost as much as one."""


@dataclass(frozen=True, eq=False)
class Convolution(Windowed):
    """2-D convolution with kernel (height, width, inputs, outputs) and bias (outputs,)."""

    def output_sums(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.sum(axis=(0, 1, 2))

    def _apply(self, x: Tensor) -> Tensor:
        if self.pointwise:
            return backend.conv2d(x, backend.constant(self.kernel, x.dtype), (1, 1), "valid", (1, 1))
        return backend.conv2d(
            x, backend.constant(self.kernel, x.dtype), self.strides, self.padding, self.dilation
        )

    def __call__(self, x: Tensor) -> Tensor:
        return self.plus_bias(self._apply(x))

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        shape, dtype = tuple(x.shape[1:]), x.dtype

        def vjp(g: Tensor) -> tuple[Tensor]:
            flat = (g.shape[0] * g.shape[1], *g.shape[2:])
            key, candidates = f"conv {self.key(shape)} to {shape}", self._candidates(shape, dtype)
            return (on_rows(kernels.choose(key, candidates, flat, dtype))(g),)

        return self(x), vjp, on_rows(self._apply)

    @property
    def pointwise(self) -> bool:
        """Whether every pixel of the output reads the pixel at its place, and no other."""
        plain = self.strides == (1, 1) and self.padding in ("same", "valid")
        return self.kernel.shape[:2] == (1, 1) and plain

    @property
    def flipped(self) -> np.ndarray:
        """The kernel (height, width, outputs, inputs) of the convolution that is the vjp, with stride 1."""
        return np.ascontiguousarray(self.kernel[::-1, ::-1].transpose(0, 1, 3, 2))

    def _candidates(self, shape: Shape, dtype: str) -> dict[str, Kernel]:
        """The kernels worth trying, the likeliest first."""
        if self.pointwise:
            return {"product": lambda g: ops.matmul(g, backend.constant(self.kernel[0, 0].T, dtype))}
        candidates: dict[str, Kernel] = {}
        pads = self.pads(shape[:2])
        size, inputs = self.kernel.shape[:2], self.kernel.shape[2]
        few = inputs <= FEW_CHANNELS
        if self.strides == (1, 1):
            flipped, back = self.flipped, self.pads_back(shape[:2])
            if min(min(pair) for pair in back) >= 0:
                tile = _tile(size, inputs)
                if few and tile != (1, 1) and self.dilation == (1, 1):
                    candidates["tiles"] = _tiles(flipped, tile, back, shape, dtype)
                candidates["flipped"] = lambda g: backend.conv2d(
                    g, backend.constant(flipped, dtype), (1, 1), back, self.dilation
                )
        elif few and self.strides[0] == self.strides[1] and self.dilation == (1, 1) and max(size) > 1:
            candidates["phases"] = self._phases(shape, pads, dtype)
        if self.dilation == (1, 1) and (few or not candidates):
            candidates["native"] = lambda g: backend.conv2d_input_gradient(
                g, backend.constant(self.kernel, dtype), (g.shape[0], *shape), self.strides, pads
            )
        if not candidates:
            candidates["tape"] = lambda g: backend.transposed(self._apply, (g.shape[0], *shape), g)
        return candidates

    def _phases(self, shape: Shape, pads: Pads, dtype: str) -> Kernel:
        stride = self.strides[0]
        inputs, outputs = self.kernel.shape[2:]
        phases, back = phase_kernels(self.kernel, stride, (pads[0][0], pads[1][0]))
        window = phases.shape[:2]
        kernel = phases.transpose(0, 1, 5, 2, 3, 4).reshape(*window, outputs, stride * stride * inputs)

        def apply(g: Tensor) -> Tensor:
            g, pad = placed(g, back, window, shape, stride)
            output = backend.conv2d(g, backend.constant(kernel, dtype), (1, 1), pad, (1, 1))
            return backend.depth_to_space(output, (stride, stride))[:, : shape[0], : shape[1]]

        return apply


def _tile(size: Shape, channels: int) -> tuple[int, int]:
    """Height and width of the tile of pixels for which `_tiles` has the least to multiply per pixel."""
    most = max(1, LANES // channels)
    tiles = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]

    def products(tile: tuple[int, int]) -> float:
        return (size[0] + tile[0] - 1) * (size[1] + tile[1] - 1) / math.prod(tile)

    return min(tiles, key=products)


def _tiles(kernel: np.ndarray, tile: tuple[int, int], pads: Pads, shape: Shape, dtype: str) -> Kernel:
    """A convolution that makes a tile of pixels at once, as channels of one pixel that fill a vector."""
    rows, columns, inputs, outputs = kernel.shape
    reach = (rows + tile[0] - 1, columns + tile[1] - 1)
    kernels = np.zeros((*reach, inputs, *tile, outputs), kernel.dtype)
    for y, x in np.ndindex(*tile):
        kernels[y : y + rows, x : x + columns, :, y, x] = kernel
    kernels = kernels.reshape(*reach, inputs, math.prod(tile) * outputs)
    # The last tiles may reach beyond the edge.
    (top, bottom), (left, right) = pads
    around = (top, bottom + -shape[0] % tile[0]), (left, right + -shape[1] % tile[1])

    def apply(g: Tensor) -> Tensor:
        output = backend.conv2d(g, backend.constant(kernels, dtype), tile, around, (1, 1))
        return backend.depth_to_space(output, tile)[:, : shape[0], : shape[1]]

    return apply


@serves(layers.Conv1D, layers.Conv2D)
def _convolution(layer: Op, call: Call) -> list[Rule]:
    kernel, (strides, padding, dilation) = image_kernel(layer.kernel), window_of(layer)
    causal = [Pad(((len(kernel) - 1) * dilation[0], 0), (0, 0))] if padding == "causal" else []
    padding = "valid" if causal else padding
    return as_image(
        call, *causal, _in_groups(kernel, bias_of(layer), layer.groups, strides, padding, dilation)
    )


def _in_groups(
    kernel: np.ndarray,
    bias: np.ndarray | None,
    groups: int,
    strides: tuple[int, int],
    padding: str,
    dilation: tuple[int, int],
) -> Rule:
    """A convolution in which each group of outputs reads a group of channels of its own."""
    if groups == 1:
        return Convolution(kernel, bias, strides, padding, dilation)
    if kernel.shape[2] == 1 and strides[0] == strides[1]:  # a channel in each group
        kernel = kernel.reshape(*kernel.shape[:2], groups, -1)
        return Depthwise(kernel, bias, strides, padding, dilation)
    kernels = np.split(kernel, groups, axis=-1)
    biases = [None] * groups if bias is None else np.split(bias, groups)
    parts = (Convolution(*own, strides, padding, dilation) for own in zip(kernels, biases, strict=True))
    return Grouped(tuple(parts))


@serves(layers.SeparableConv1D, layers.SeparableConv2D)
def _separable(layer: Op, call: Call) -> list[Rule] | None:
    if layer.padding == "causal":
        return None
    first, second = image_kernel(layer.depthwise_kernel), image_kernel(layer.pointwise_kernel)
    return as_image(call, Depthwise(first, None, *window_of(layer)), Convolution(second, bias_of(layer)))
