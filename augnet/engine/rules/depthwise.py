"""Depthwise convolutions, with rows packed into channels where these are few."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.padding import Padding, Pads, Pair
from augnet.engine.rules.base import Jvp, Kernel, Kernels, Rule, Shape, Vjp, on_rows
from augnet.engine.rules.phases import phase_kernels, placed
from augnet.engine.rules.registry import Call, bias_of, serves
from augnet.engine.rules.shaping import as_image
from augnet.engine.rules.weighted import Windowed, image_kernel, window_of
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
        return self.plus_bias(self._native(x))

    @property
    def _single(self) -> np.ndarray:
        """The kernel (height, width, outputs, 1) for an input whose channels are repeated."""
        return self.kernel.reshape(*self.kernel.shape[:2], -1, 1)

    def _wide(self, x: Tensor) -> Tensor:
        """Every channel as often as there are outputs of it; then a multiplier of one is enough."""
        multiplier = self.kernel.shape[3]
        if multiplier == 1:
            return x
        return ops.repeat(x, multiplier, -1) if x.shape[-1] > 1 else ops.concatenate([x] * multiplier, -1)

    def _native(self, x: Tensor) -> Tensor:
        return _plain(x, self.kernel, self.strides, self.padding, self.dilation)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        shape, dtype = tuple(x.shape[1:]), x.dtype
        name, multiplier = self.key(shape), self.kernel.shape[3]
        forward: dict[str, Kernel] = {}

        def by(convolution: Callable[..., Tensor]) -> Kernel:
            window = self.strides, self.padding, self.dilation
            return lambda x: convolution(self._wide(x), self._single, *window)

        few = self.kernel.shape[2] * multiplier < PACKED_CHANNELS
        if few and x.shape[0] > 1:
            forward["packed"] = by(_packed)
        if multiplier > 1:
            forward["repeated"] = by(_plain)
        if few or multiplier == 1:  # else it takes several times as long on a CPU
            forward["native"] = self._native
        output = kernels.choose(f"depthwise forward {name} on {shape}", forward, tuple(x.shape), dtype)(x)

        def vjp(g: Tensor) -> tuple[Tensor]:
            flat = (g.shape[0] * g.shape[1], *g.shape[2:])
            candidates = self._candidates(shape, dtype, flat[0])
            return (on_rows(kernels.choose(f"depthwise {name} to {shape}", candidates, flat, dtype))(g),)

        best = forward.get("repeated", self._native)
        return self.plus_bias(output), vjp, on_rows(best)

    def _candidates(self, shape: Shape, dtype: str, count: int) -> dict[str, Kernel]:
        candidates: dict[str, Kernel] = {}
        channels, multiplier = self.kernel.shape[2:]
        pads, back = self.pads(shape[:2]), self.pads_back(shape[:2])
        if self.strides == (1, 1) and min(map(min, back)) >= 0:
            flipped = np.ascontiguousarray(self._single[::-1, ::-1])

            def by(convolution: Callable[..., Tensor]) -> Kernel:
                return lambda g: _multiplier_sum(
                    convolution(g, flipped, (1, 1), back, self.dilation), channels, multiplier
                )

            if channels * multiplier < PACKED_CHANNELS and count > 1:
                candidates["packed"] = by(_packed)
            candidates["flipped"] = by(_plain)
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
        phases, back = phase_kernels(self.kernel, stride, (pads[0][0], pads[1][0]))
        window = phases.shape[:2]
        kernel = phases.reshape(*window, -1, 1)

        def apply(g: Tensor) -> Tensor:
            g, pad = placed(g, back, window, shape, stride)
            wide = ops.concatenate([g] * (stride * stride), axis=-1)
            output = backend.depthwise(wide, backend.constant(kernel, dtype), (1, 1), pad, (1, 1))
            output = _multiplier_sum(output, stride * stride * channels, multiplier)
            return backend.depth_to_space(output, (stride, stride))[:, : shape[0], : shape[1]]

        return apply


def _plain(x: Tensor, kernel: np.ndarray, strides: Pair, padding: Padding, dilation: Pair) -> Tensor:
    return backend.depthwise(x, backend.constant(kernel, x.dtype), strides, padding, dilation)


def _packed(x: Tensor, kernel: np.ndarray, strides: Pair, padding: Padding, dilation: Pair) -> Tensor:
    """The same, for a multiplier of one, with the batch beside the channels."""
    n, height, width, channels = x.shape
    wide = ops.reshape(ops.transpose(x, (1, 2, 0, 3)), (1, height, width, n * channels))
    output = _plain(wide, np.tile(kernel, (1, 1, n, 1)), strides, padding, dilation)
    return ops.transpose(ops.reshape(output, (*output.shape[1:3], n, channels)), (2, 0, 1, 3))


def _multiplier_sum(output: Tensor, channels: int, multiplier: int) -> Tensor:
    if multiplier == 1:
        return output
    return ops.sum(ops.reshape(output, (*output.shape[:3], channels, multiplier)), axis=-1)


@serves(layers.DepthwiseConv1D, layers.DepthwiseConv2D)
def _depthwise(layer: Op, call: Call) -> list[Rule]:
    return as_image(call, Depthwise(image_kernel(layer.kernel), bias_of(layer), *window_of(layer)))
