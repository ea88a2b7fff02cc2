"""Convolutions: the input gradient as whichever of several equal computations runs fastest here.

With stride s the input gradient is s * s interleaved plain convolutions of the cotangent ("phases", one per
position of an input pixel relative to the stride), which is exact and, for the few channels of an image,
several times faster on a CPU than the dedicated operation (benchmarks/engine.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.backends import tensorflow as backend
from augnet.engine.backends.tensorflow import constant
from augnet.engine.padding import Pads, resolved_pads
from augnet.engine.rules.base import Jvp, Kernels, Vjp, on_rows, split

FEW_CHANNELS = 16
"""Up to here the native input gradient leaves vector lanes idle, and others are tried.

Above, it takes as long as the flipped convolution and half as long as phases (seen in ResNet50's layers).
"""
LANES = 16
"""Of a vector, or of two: output channels that cost as much as one."""
PACKED_CHANNELS = 32
"""Below this many channels a depthwise convolution leaves vector lanes idle; rows are packed into them."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """2-D convolution with kernel (height, width, inputs, outputs) and bias (outputs,).

    Attributes:
        padding: "same", "valid" or zeros before and after per axis.
    """

    kernel: np.ndarray
    bias: np.ndarray | None
    strides: tuple[int, int] = (1, 1)
    padding: str | Pads = "valid"
    dilation: tuple[int, int] = (1, 1)

    def _apply(self, x: Any) -> Any:
        if self.pointwise:
            return backend.conv2d(x, constant(self.kernel, x.dtype), (1, 1), "valid", (1, 1))
        return backend.conv2d(x, constant(self.kernel, x.dtype), self.strides, self.padding, self.dilation)

    def __call__(self, x: Any) -> Any:
        made = self._apply(x)
        return made if self.bias is None else backend.bias_add(made, constant(self.bias, x.dtype))

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        made = self(x)
        shape, dtype = tuple(x.shape[1:]), x.dtype
        pads = resolved_pads(self.padding, shape[:2], self.kernel.shape[:2], self.strides, self.dilation)

        def vjp(g: Any) -> tuple[Any]:
            candidates = self._candidates(shape, pads, dtype)
            flat = (g.shape[0] * g.shape[1], *g.shape[2:])
            name = f"{self.kernel.shape} stride {self.strides} pads {pads} dilation {self.dilation}"
            key = f"conv {name} to {shape}"
            return (on_rows(kernels.choose(key, candidates, flat, dtype))(g),)

        return made, vjp, on_rows(self._apply)

    @property
    def pointwise(self) -> bool:
        """Whether every pixel of the output reads the pixel at its place, and no other."""
        plain = self.strides == (1, 1) and self.padding in ("same", "valid")
        return self.kernel.shape[:2] == (1, 1) and plain

    @property
    def flipped(self) -> np.ndarray:
        """The kernel (height, width, outputs, inputs) of the convolution that is the vjp, with stride 1."""
        return np.ascontiguousarray(self.kernel[::-1, ::-1].transpose(0, 1, 3, 2))

    def pads_back(self, sizes: Any) -> Pads:
        """The zeros round its cotangents, for an input of these sizes; below zero where they are cut."""
        pads = resolved_pads(self.padding, sizes, self.kernel.shape[:2], self.strides, self.dilation)
        reach = [(w - 1) * dilate for w, dilate in zip(self.kernel.shape[:2], self.dilation, strict=True)]
        rows, columns = ((r - a, r - b) for r, (a, b) in zip(reach, pads, strict=True))
        return rows, columns

    def _candidates(self, shape: tuple[int, ...], pads: Pads, dtype: str) -> dict[str, Any]:
        """The kernels worth trying, the likeliest first."""
        if self.pointwise:
            return {"product": lambda g: ops.matmul(g, constant(self.kernel[0, 0].T, dtype))}
        candidates: dict[str, Any] = {}
        size, inputs = self.kernel.shape[:2], self.kernel.shape[2]
        few = inputs <= FEW_CHANNELS
        if self.strides == (1, 1):
            flipped, back = self.flipped, self.pads_back(shape[:2])
            if min(min(pair) for pair in back) >= 0:
                tile = _tile(size, inputs)
                if few and tile != (1, 1) and self.dilation == (1, 1):
                    candidates["tiles"] = _tiles(flipped, tile, back, shape, dtype)
                candidates["flipped"] = lambda g: backend.conv2d(
                    g, constant(flipped, dtype), (1, 1), back, self.dilation
                )
        elif few and self.strides[0] == self.strides[1] and self.dilation == (1, 1) and max(size) > 1:
            candidates["phases"] = self._phases(shape, pads, dtype)
        if self.dilation == (1, 1) and (few or not candidates):
            candidates["native"] = lambda g: backend.conv2d_input_gradient(
                g, constant(self.kernel, dtype), (g.shape[0], *shape), self.strides, pads
            )
        if not candidates:
            candidates["tape"] = lambda g: backend.transposed(self._apply, (g.shape[0], *shape), g)
        return candidates

    def _phases(self, shape: tuple[int, ...], pads: Pads, dtype: str) -> Any:
        stride = self.strides[0]
        inputs, outputs = self.kernel.shape[2:]
        taps, back = phase_taps(self.kernel.shape[:2], stride, (pads[0][0], pads[1][0]))
        rows, columns = taps.shape[:2]
        kernel = np.zeros((rows, columns, outputs, stride, stride, inputs), self.kernel.dtype)
        for index in np.ndindex(rows, columns, stride, stride):
            a, b, i, j = index
            y, x = taps[index]
            if y >= 0 and x >= 0:
                kernel[a, b, :, i, j] = self.kernel[y, x].T
        kernel = kernel.reshape(rows, columns, outputs, stride * stride * inputs)

        def apply(g: Any) -> Any:
            g, pad = _placed(g, back, taps.shape[:2], shape, stride)
            made = backend.conv2d(g, constant(kernel, dtype), (1, 1), pad, (1, 1))
            return backend.depth_to_space(made, (stride, stride))[:, : shape[0], : shape[1]]

        return apply


def _tile(size: tuple[int, ...], channels: int) -> tuple[int, int]:
    """Height and width of the tile of pixels for which `_tiles` has the least to multiply per pixel."""
    most = max(1, LANES // channels)
    tiles = [(rows, columns) for rows in range(1, most + 1) for columns in range(1, most // rows + 1)]

    def products(tile: tuple[int, int]) -> float:
        return (size[0] + tile[0] - 1) * (size[1] + tile[1] - 1) / math.prod(tile)

    return min(tiles, key=products)


@dataclass(frozen=True, eq=False)
class Grouped:
    """Convolutions of consecutive groups of channels, as many channels each, side by side."""

    parts: tuple[Convolution, ...]

    def _apart(self, x: Any) -> list[Any]:
        return split(x, [x.shape[-1] // len(self.parts)] * len(self.parts), -1)

    def __call__(self, x: Any) -> Any:
        return ops.concatenate([part(y) for part, y in zip(self.parts, self._apart(x), strict=True)], axis=-1)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        groups = zip(self.parts, self._apart(x), strict=True)
        made, vjps, jvps = zip(*(part.linearize(kernels, y) for part, y in groups), strict=True)

        def vjp(g: Any) -> tuple[Any]:
            rows = [back(h)[0] for back, h in zip(vjps, self._apart(g), strict=True)]
            return (ops.concatenate(rows, axis=-1),)

        def jvp(t: Any) -> Any:
            return ops.concatenate([on(s) for on, s in zip(jvps, self._apart(t), strict=True)], axis=-1)

        return ops.concatenate(made, axis=-1), vjp, jvp


@dataclass(frozen=True, eq=False)
class Transposed:
    """Transposed 2-D convolution, kernel (height, width, outputs, inputs), to a given shape without batch.

    Attributes:
        padding: "same" or "valid", of the convolution that it is the transpose of.
    """

    kernel: np.ndarray
    bias: np.ndarray | None
    strides: tuple[int, int]
    padding: str
    shape: tuple[int, ...]

    def _apply(self, x: Any) -> Any:
        pads = resolved_pads(self.padding, self.shape[:2], self.kernel.shape[:2], self.strides, (1, 1))
        shape = (x.shape[0], *self.shape)
        return backend.conv2d_input_gradient(x, constant(self.kernel, x.dtype), shape, self.strides, pads)

    def _back(self, g: Any) -> Any:
        return backend.conv2d(g, constant(self.kernel, g.dtype), self.strides, self.padding, (1, 1))

    def __call__(self, x: Any) -> Any:
        made = self._apply(x)
        return made if self.bias is None else backend.bias_add(made, constant(self.bias, x.dtype))

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        return self(x), lambda g: (on_rows(self._back)(g),), on_rows(self._apply)


def _tiles(kernel: np.ndarray, tile: tuple[int, int], pads: Any, shape: tuple[int, ...], dtype: str) -> Any:
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

    def apply(g: Any) -> Any:
        made = backend.conv2d(g, constant(kernels, dtype), tile, around, (1, 1))
        return backend.depth_to_space(made, tile)[:, : shape[0], : shape[1]]

    return apply


def phase_taps(
    size: tuple[int, ...], stride: int, before: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Which kernel tap each phase reads where.

    Input pixel stride * q + r gets g[o] * kernel[r + before + (q - o) * stride] for every o where that tap
    exists.

    Returns:
        taps (rows, columns, stride, stride, 2), the kernel position for a window position and a phase, -1 for
        none; and how far the window reaches before q, per axis.
    """
    axes, back = [], []
    for width, pad in zip(size, before, strict=True):
        reach = [
            d
            for d in range(-width, width + 1)
            if any(0 <= r + pad + d * stride < width for r in range(stride))
        ]
        back.append(max(reach))
        axes.append(
            [[r + pad + d * stride for r in range(stride)] for d in range(max(reach), min(reach) - 1, -1)]
        )
    taps = np.full((len(axes[0]), len(axes[1]), stride, stride, 2), -1)
    for a, b, i, j in np.ndindex(taps.shape[:4]):
        y, x = axes[0][a][i], axes[1][b][j]
        if 0 <= y < size[0] and 0 <= x < size[1]:
            taps[a, b, i, j] = y, x
    return taps, (back[0], back[1])


def _placed(g: Any, back: tuple[int, int], window: Any, shape: Any, stride: int) -> tuple[Any, Pads]:
    """The cotangent, and zeros round it, so that the phases cover the whole input and no more.

    What no input pixel sees (a padding larger than the kernel) is cut away.
    """
    pads = []
    for axis in range(2):
        wanted = -(-shape[axis] // stride)
        before = back[axis]
        pads.append((before, wanted + window[axis] - 1 - before - g.shape[1 + axis]))
    (top, bottom), (left, right) = pads
    height, width = g.shape[1:3]
    g = g[:, max(-top, 0) : height - max(-bottom, 0), max(-left, 0) : width - max(-right, 0)]
    return g, ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))


@dataclass(frozen=True, eq=False)
class Depthwise:
    """Depthwise 2-D convolution, kernel (height, width, channels, multiplier), bias (outputs,)."""

    kernel: np.ndarray
    bias: np.ndarray | None
    strides: tuple[int, int] = (1, 1)
    padding: str | Pads = "valid"
    dilation: tuple[int, int] = (1, 1)

    def __call__(self, x: Any) -> Any:
        return self._biased(self._native(x))

    def _biased(self, made: Any) -> Any:
        return made if self.bias is None else backend.bias_add(made, constant(self.bias, made.dtype))

    def _native(self, x: Any) -> Any:
        return backend.depthwise(x, constant(self.kernel, x.dtype), self.strides, self.padding, self.dilation)

    def _repeated(self, x: Any) -> Any:
        """Every channel repeated, and a multiplier of one."""
        multiplier = self.kernel.shape[3]
        wide = (
            ops.repeat(x, multiplier, axis=-1) if x.shape[-1] > 1 else ops.concatenate([x] * multiplier, -1)
        )
        kernel = self.kernel.reshape(*self.kernel.shape[:2], -1, 1)
        return backend.depthwise(wide, constant(kernel, x.dtype), self.strides, self.padding, self.dilation)

    def _packed(self, x: Any) -> Any:
        """The batch beside the channels, and a multiplier of one."""
        batch, height, width, channels = x.shape
        multiplier = self.kernel.shape[3]
        wide = ops.reshape(ops.transpose(x, (1, 2, 0, 3)), (1, height, width, batch * channels))
        wide = ops.repeat(wide, multiplier, axis=-1) if multiplier > 1 else wide
        kernel = np.tile(self.kernel.reshape(*self.kernel.shape[:2], -1, 1), (1, 1, batch, 1))
        made = backend.depthwise(wide, constant(kernel, x.dtype), self.strides, self.padding, self.dilation)
        made = ops.reshape(made, (*made.shape[1:3], batch, channels * multiplier))
        return ops.transpose(made, (2, 0, 1, 3))

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        shape, dtype = tuple(x.shape[1:]), x.dtype
        pads = resolved_pads(self.padding, shape[:2], self.kernel.shape[:2], self.strides, self.dilation)
        name = f"{self.kernel.shape} stride {self.strides} pads {pads} dilation {self.dilation}"
        forward: dict[str, Any] = {}
        few = self.kernel.shape[2] * self.kernel.shape[3] < PACKED_CHANNELS
        if few and x.shape[0] > 1:
            forward["packed"] = self._packed
        if self.kernel.shape[3] > 1:
            forward["repeated"] = self._repeated
        if few or self.kernel.shape[3] == 1:  # else it takes several times as long on a CPU
            forward["native"] = self._native
        made = kernels.choose(f"depthwise forward {name} on {shape}", forward, tuple(x.shape), dtype)(x)

        def vjp(g: Any) -> tuple[Any]:
            flat = (g.shape[0] * g.shape[1], *g.shape[2:])
            candidates = self._candidates(shape, pads, dtype, flat[0])
            return (on_rows(kernels.choose(f"depthwise {name} to {shape}", candidates, flat, dtype))(g),)

        best = forward.get("repeated", self._native)
        return self._biased(made), vjp, on_rows(best)

    def _candidates(self, shape: tuple[int, ...], pads: Pads, dtype: str, count: int) -> dict[str, Any]:
        candidates: dict[str, Any] = {}
        channels, multiplier = self.kernel.shape[2:]
        if self.strides == (1, 1):
            flipped = np.ascontiguousarray(self.kernel[::-1, ::-1]).reshape(*self.kernel.shape[:2], -1, 1)
            reach = [(w - 1) * d for w, d in zip(self.kernel.shape[:2], self.dilation, strict=True)]
            back = tuple((r - a, r - b) for r, (a, b) in zip(reach, pads, strict=True))
            if min(min(pair) for pair in back) >= 0:

                def plain(g: Any) -> Any:
                    made = backend.depthwise(g, constant(flipped, dtype), (1, 1), back, self.dilation)
                    return _multiplier_sum(made, channels, multiplier)

                def packed(g: Any) -> Any:
                    n, height, width, wide = g.shape
                    kernel = np.tile(flipped, (1, 1, n, 1))
                    g = ops.reshape(ops.transpose(g, (1, 2, 0, 3)), (1, height, width, n * wide))
                    made = backend.depthwise(g, constant(kernel, dtype), (1, 1), back, self.dilation)
                    made = _multiplier_sum(made, n * channels, multiplier)
                    return ops.transpose(ops.reshape(made, (*shape[:2], n, channels)), (2, 0, 1, 3))

                if channels * multiplier < PACKED_CHANNELS and count > 1:
                    candidates["packed"] = packed
                candidates["flipped"] = plain
        few = channels * multiplier < PACKED_CHANNELS or multiplier > 1
        if few and self.strides[0] == self.strides[1] > 1 and self.dilation == (1, 1):
            candidates["phases"] = self._phases(shape, pads, dtype)
        # With several channels per input channel the native operation is far slower than any other here.
        if self.dilation == (1, 1) and (multiplier == 1 or not candidates):
            candidates["native"] = lambda g: backend.depthwise_input_gradient(
                g, constant(self.kernel, dtype), (g.shape[0], *shape), self.strides, pads
            )
        if not candidates:
            candidates["tape"] = lambda g: backend.transposed(self._native, (g.shape[0], *shape), g)
        return candidates

    def _phases(self, shape: tuple[int, ...], pads: Pads, dtype: str) -> Any:
        stride = self.strides[0]
        channels, multiplier = self.kernel.shape[2:]
        taps, back = phase_taps(self.kernel.shape[:2], stride, (pads[0][0], pads[1][0]))
        rows, columns = taps.shape[:2]
        kernel = np.zeros((rows, columns, stride, stride, channels * multiplier), self.kernel.dtype)
        for index in np.ndindex(rows, columns, stride, stride):
            y, x = taps[index]
            if y >= 0 and x >= 0:
                kernel[index] = self.kernel[y, x].reshape(-1)
        kernel = kernel.reshape(rows, columns, -1, 1)

        def apply(g: Any) -> Any:
            g, pad = _placed(g, back, taps.shape[:2], shape, stride)
            wide = ops.concatenate([g] * (stride * stride), axis=-1)
            made = backend.depthwise(wide, constant(kernel, dtype), (1, 1), pad, (1, 1))
            made = _multiplier_sum(made, stride * stride * channels, multiplier)
            return backend.depth_to_space(made, (stride, stride))[:, : shape[0], : shape[1]]

        return apply


def _multiplier_sum(made: Any, channels: int, multiplier: int) -> Any:
    if multiplier == 1:
        return made
    return ops.sum(ops.reshape(made, (*made.shape[:3], channels, multiplier)), axis=-1)
