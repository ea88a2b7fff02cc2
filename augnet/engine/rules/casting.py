"""A change of precision inside a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from augnet.engine.rules.base import Jvp, Kernels, Vjp


@dataclass(frozen=True)
class Convert:
    """x in another floating-point dtype; cotangents come back in the dtype of x."""

    dtype: str

    def __call__(self, x: Any) -> Any:
        return ops.cast(x, self.dtype)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        def vjp(g: Any) -> tuple[Any]:
            return (ops.cast(g, x.dtype),)

        return self(x), vjp, self
