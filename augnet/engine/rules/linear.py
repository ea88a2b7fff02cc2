"""Dense layers, scale and shift per channel, and any other linear function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.backends import tensorflow as backend
from augnet.engine.backends.tensorflow import constant
from augnet.engine.rules.base import Jvp, Kernels, Vjp, on_rows


@dataclass(frozen=True, eq=False)
class Dense:
    """x (..., inputs) @ kernel (inputs, outputs) + bias (outputs,)."""

    kernel: np.ndarray
    bias: np.ndarray | None = None

    def _times(self, x: Any, kernel: np.ndarray) -> Any:
        flat = ops.reshape(x, (-1, kernel.shape[0]))
        made = ops.matmul(flat, constant(kernel, x.dtype))
        return made if len(x.shape) == 2 else ops.reshape(made, (*x.shape[:-1], kernel.shape[1]))

    def __call__(self, x: Any) -> Any:
        made = self._times(x, self.kernel)
        return made if self.bias is None else made + constant(self.bias, x.dtype)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        transposed = np.ascontiguousarray(self.kernel.T)
        return self(x), lambda g: (self._times(g, transposed),), lambda t: self._times(t, self.kernel)


@dataclass(frozen=True, eq=False)
class Affine:
    """x * scale + shift, both broadcast over the leading axes; None where it is 1 or 0."""

    scale: np.ndarray | None
    shift: np.ndarray | None

    def __call__(self, x: Any) -> Any:
        if self.scale is not None:
            x = x * constant(self.scale, x.dtype)
        return x if self.shift is None else x + constant(self.shift, x.dtype)

    def slope(self, x: Any) -> Any:
        """d output / d input, or None for 1."""
        return None if self.scale is None else constant(self.scale, x.dtype)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        slope = self.slope(x)
        if slope is None:
            return self(x), lambda g: (g,), lambda t: t
        return self(x), lambda g: (g * slope,), lambda t: t * slope


@dataclass(frozen=True, eq=False)
class Linear:
    """Any linear function of one tensor, plus a constant; TensorFlow knows its transpose."""

    function: Callable[[Any], Any]

    def __call__(self, x: Any) -> Any:
        return self.function(x)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, None]:
        def back(g: Any) -> Any:
            return backend.transposed(self.function, (g.shape[0], *x.shape[1:]), g)

        return self(x), lambda g: (on_rows(back)(g),), None
