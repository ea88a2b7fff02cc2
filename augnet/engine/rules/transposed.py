"""Transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import layers

from augnet.engine.backends import backend
from augnet.engine.padding import Pads, resolved_pads
from augnet.engine.rules.base import LinearRule, Reach, Rule, Shape
from augnet.engine.rules.registry import Call, bias_of, serves, weights_of
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Transposed(LinearRule):
    """Transposed 2-D convolution, kernel (height, width, outputs, inputs), to a given shape without batch.

    Attributes:
        padding: "same" or "valid", of the convolution that it is the transpose of.
    """

    kernel: np.ndarray
    bias: np.ndarray | None
    strides: tuple[int, int]
    padding: str
    shape: Shape
    fuses_on_cpu: ClassVar[bool] = False

    def linear(self, x: Tensor) -> Tensor:
        shape = (x.shape[0], *self.shape)
        return backend.conv2d_input_gradient(
            x, backend.constant(self.kernel, x.dtype), shape, self.strides, self._pads()
        )

    def _pads(self) -> Pads:
        return resolved_pads(self.padding, self.shape[:2], self.kernel.shape[:2], self.strides, (1, 1))

    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        return backend.conv2d(g, backend.constant(self.kernel, g.dtype), self.strides, self.padding, (1, 1))

    def __call__(self, x: Tensor) -> Tensor:
        output = self.linear(x)
        return output if self.bias is None else backend.bias_add(output, backend.constant(self.bias, x.dtype))

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach:
        place = np.arange(output[axis]) + self._pads()[axis][0]
        return -((self.kernel.shape[axis] - 1 - place) // self.strides[axis]), place // self.strides[axis]


@serves(layers.Conv2DTranspose)
def _transposed(layer: Op, call: Call) -> list[Rule] | None:
    if layer.output_padding is not None or tuple(layer.dilation_rate) != (1, 1):
        return None
    kernel = weights_of(layer.kernel)
    return [Transposed(kernel, bias_of(layer), tuple(layer.strides), layer.padding, call.output)]
