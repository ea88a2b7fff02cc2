"""A change of precision inside a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from augnet.engine.rules.base import Paths, Pull, Push


@dataclass(frozen=True)
class Convert:
    """x in another floating-point dtype; cotangents come back in the dtype of x."""

    dtype: str

    def __call__(self, x: Any) -> Any:
        return ops.cast(x, self.dtype)

    def linearize(self, paths: Paths, x: Any) -> tuple[Any, Pull, Push]:
        def pull(g: Any) -> tuple[Any]:
            return (ops.cast(g, x.dtype),)

        return self(x), pull, self
