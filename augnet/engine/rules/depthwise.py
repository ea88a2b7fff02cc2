"""Depthwise convolutions, with rows packed into channels where these are few."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.padding import Pads
from augnet.engine.rules.base import Jvp, Kernel, Kernels, Rule, Shape, Vjp, on_rows
from augnet.engine.rules.phases import phase_taps, placed
from augnet.engine.rules.registry import Call, bias_of, serves, weights_of
from augnet.engine.rules.shaping import as_image
from augnet.engine.rules.weighted import Windowed
from augnet.engine.types import Op, Tensor

PACKED_CHANNELS = 32
"""Below this many channels a depthwise convolution leaves vector lanes idle; rows are packed into them."""


@dataclass(frozen=True, eq=False)
class Depthwise(Windowed):
    """Depthwise 2-D convolution, kernel (height, width, channels, multiplier), bias (outputs,)."""

    def output_sums(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.sum(axis=(0, 1)).reshape(-1)

    def scale_outputs(self, scale: np.ndarray) -> np.ndarray:
        return super().scale_outputs(scale.reshape(self.kernel.shape[2:]))

    def __call__(self, x: Tensor) -> Tensor:
        return self._biased(self._native(x))

    def _biased(self, output: Tensor) -> Tensor:
        return (
            output
            if self.bias is None
            else backend.bias_add(output, backend.constant(self.bias, output.dtype))
        )

    def _native(self, x: Tensor) -> Tensor:
        return backend.depthwise(
            x, backend.constant(self.kernel, x.dtype), self.strides, self.padding, self.dilation
        )

    def _repeated(self, x: Tensor) -> Tensor:
        """Every channel repeated, and a multiplier of one."""
        multiplier = self.kernel.shape[3]
        wide = (
            ops.repeat(x, multiplier, axis=-1) if x.shape[-1] > 1 else ops.concatenate([x] * multiplier, -1)
        )
        kernel = self.kernel.reshape(*self.kernel.shape[:2], -1, 1)
        return backend.depthwise(
            wide, backend.constant(kernel, x.dtype), self.strides, self.padding, self.dilation
        )

    def _packed(self, x: Tensor) -> Tensor:
        """The batch beside the channels, and a multiplier of one."""
        batch, height, width, channels = x.shape
        multiplier = self.kernel.shape[3]
        wide = ops.reshape(ops.transpose(x, (1, 2, 0, 3)), (1, height, width, batch * channels))
        wide = ops.repeat(wide, multiplier, axis=-1) if multiplier > 1 else wide
        kernel = np.tile(self.kernel.reshape(*self.kernel.shape[:2], -1, 1), (1, 1, batch, 1))
        output = backend.depthwise(
            wide, backend.constant(kernel, x.dtype), self.strides, self.padding, self.dilation
        )
        output = ops.reshape(output, (*output.shape[1:3], batch, channels * multiplier))
        return ops.transpose(output, (2, 0, 1, 3))

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        shape, dtype = tuple(x.shape[1:]), x.dtype
        pads = self.pads(shape[:2])
        name = f"{self.kernel.shape} stride {self.strides} pads {pads} dilation {self.dilation}"
        forward: dict[str, Kernel] = {}
        few = self.kernel.shape[2] * self.kernel.shape[3] < PACKED_CHANNELS
        if few and x.shape[0] > 1:
            forward["packed"] = self._packed
        if self.kernel.shape[3] > 1:
            forward["repeated"] = self._repeated
        if few or self.kernel.shape[3] == 1:  # else it takes several times as long on a CPU
            forward["native"] = self._native
        output = kernels.choose(f"depthwise forward {name} on {shape}", forward, tuple(x.shape), dtype)(x)

        def vjp(g: Tensor) -> tuple[Tensor]:
            flat = (g.shape[0] * g.shape[1], *g.shape[2:])
            candidates = self._candidates(shape, pads, dtype, flat[0])
            return (on_rows(kernels.choose(f"depthwise {name} to {shape}", candidates, flat, dtype))(g),)

        best = forward.get("repeated", self._native)
        return self._biased(output), vjp, on_rows(best)

    def _candidates(self, shape: Shape, pads: Pads, dtype: str, count: int) -> dict[str, Kernel]:
        candidates: dict[str, Kernel] = {}
        channels, multiplier = self.kernel.shape[2:]
        if self.strides == (1, 1):
            flipped = np.ascontiguousarray(self.kernel[::-1, ::-1]).reshape(*self.kernel.shape[:2], -1, 1)
            reach = [(w - 1) * d for w, d in zip(self.kernel.shape[:2], self.dilation, strict=True)]
            (top, bottom), (left, right) = pads
            back = (reach[0] - top, reach[0] - bottom), (reach[1] - left, reach[1] - right)
            if min(map(min, back)) >= 0:

                def plain(g: Tensor) -> Tensor:
                    output = backend.depthwise(
                        g, backend.constant(flipped, dtype), (1, 1), back, self.dilation
                    )
                    return _multiplier_sum(output, channels, multiplier)

                def packed(g: Tensor) -> Tensor:
                    n, height, width, wide = g.shape
                    kernel = np.tile(flipped, (1, 1, n, 1))
                    g = ops.reshape(ops.transpose(g, (1, 2, 0, 3)), (1, height, width, n * wide))
                    output = backend.depthwise(
                        g, backend.constant(kernel, dtype), (1, 1), back, self.dilation
                    )
                    output = _multiplier_sum(output, n * channels, multiplier)
                    return ops.transpose(ops.reshape(output, (*shape[:2], n, channels)), (2, 0, 1, 3))

                if channels * multiplier < PACKED_CHANNELS and count > 1:
                    candidates["packed"] = packed
                candidates["flipped"] = plain
        few = channels * multiplier < PACKED_CHANNELS or multiplier > 1
        if few and self.strides[0] == self.strides[1] > 1 and self.dilation == (1, 1):
            candidates["phases"] = self._phases(shape, pads, dtype)
        # With several channels per input channel the native operation is far slower than any other here.
        if self.dilation == (1, 1) and (multiplier == 1 or not candidates):
            candidates["native"] = lambda g: backend.depthwise_input_gradient(
                g, backend.constant(self.kernel, dtype), (g.shape[0], *shape), self.strides, pads
            )
        if not candidates:
            candidates["tape"] = lambda g: backend.transposed(self._native, (g.shape[0], *shape), g)
        return candidates

    def _phases(self, shape: Shape, pads: Pads, dtype: str) -> Kernel:
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

        def apply(g: Tensor) -> Tensor:
            g, pad = placed(g, back, taps.shape[:2], shape, stride)
            wide = ops.concatenate([g] * (stride * stride), axis=-1)
            output = backend.depthwise(wide, backend.constant(kernel, dtype), (1, 1), pad, (1, 1))
            output = _multiplier_sum(output, stride * stride * channels, multiplier)
            return backend.depth_to_space(output, (stride, stride))[:, : shape[0], : shape[1]]

        return apply


def _multiplier_sum(output: Tensor, channels: int, multiplier: int) -> Tensor:
    if multiplier == 1:
        return output
    return ops.sum(ops.reshape(output, (*output.shape[:3], channels, multiplier)), axis=-1)


@serves(layers.DepthwiseConv2D)
def _depthwise(layer: Op, call: Call) -> list[Rule]:
    window = layer.strides, layer.padding, layer.dilation_rate
    return [Depthwise(weights_of(layer.kernel), bias_of(layer), *window)]


@serves(layers.DepthwiseConv1D)
def _depthwise_of_steps(layer: Op, call: Call) -> list[Rule]:
    window = layer.strides * 2, layer.padding, layer.dilation_rate * 2
    return as_image(call, Depthwise(weights_of(layer.kernel)[:, None], bias_of(layer), *window))
