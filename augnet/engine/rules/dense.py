"""Dense layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.rules.base import Jvp, Kernels, Mixing, Rule, Vjp
from augnet.engine.rules.registry import Call, bias_of, serves, weights_of
from augnet.engine.rules.weighted import Weighted
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Dense(Weighted, Mixing):
    """x (..., inputs) @ kernel (inputs, outputs) + bias (outputs,)."""

    input_axis: ClassVar[int] = 0
    axes = (-1,)

    def output_sums(self, kernel: np.ndarray) -> np.ndarray:
        return kernel.sum(axis=0)

    def _times(self, x: Tensor, kernel: np.ndarray) -> Tensor:
        flat = ops.reshape(x, (-1, kernel.shape[0]))
        product = ops.matmul(flat, backend.constant(kernel, x.dtype))
        return product if len(x.shape) == 2 else ops.reshape(product, (*x.shape[:-1], kernel.shape[1]))

    def __call__(self, x: Tensor) -> Tensor:
        product = self._times(x, self.kernel)
        return product if self.bias is None else product + backend.constant(self.bias, x.dtype)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        transposed = np.ascontiguousarray(self.kernel.T)
        return self(x), lambda g: (self._times(g, transposed),), lambda t: self._times(t, self.kernel)


@serves(layers.Dense)
def _dense(layer: Op, call: Call) -> list[Rule]:
    return [Dense(weights_of(layer.kernel), bias_of(layer))]
