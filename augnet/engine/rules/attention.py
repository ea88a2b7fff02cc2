"""Normalization over features, softmax and dot-product attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.backends.tensorflow import constant
from augnet.engine.rules.base import Jvp, Kernels, Vjp


@dataclass(frozen=True, eq=False)
class LayerNorm:
    """Each position's features to mean 0 and variance 1, then scale and shift (features,).

    Ba, Kiros, Hinton 2016, arXiv 1607.06450.
    """

    scale: np.ndarray | None
    shift: np.ndarray | None
    epsilon: float

    def __call__(self, x: Any) -> Any:
        return self._finished(self._normal(x)[0])

    def _normal(self, x: Any) -> tuple[Any, Any]:
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        inverse = ops.rsqrt(ops.mean(ops.square(centred), axis=-1, keepdims=True) + self.epsilon)
        return centred * inverse, inverse

    def _finished(self, normal: Any) -> Any:
        if self.scale is not None:
            normal = normal * constant(self.scale, normal.dtype)
        return normal if self.shift is None else normal + constant(self.shift, normal.dtype)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        normal, inverse = self._normal(x)

        def project(g: Any) -> Any:
            mean = ops.mean(g, axis=-1, keepdims=True)
            along = ops.mean(g * normal, axis=-1, keepdims=True)
            return (g - mean - normal * along) * inverse

        def scaled(g: Any) -> Any:
            return g if self.scale is None else g * constant(self.scale, x.dtype)

        return self._finished(normal), lambda g: (project(scaled(g)),), lambda t: scaled(project(t))


@dataclass(frozen=True, eq=False)
class Softmax:
    """Softmax over the last axis."""

    def __call__(self, x: Any) -> Any:
        return ops.softmax(x, axis=-1)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        made = self(x)

        def apply(g: Any) -> Any:
            return softmax_product(made, g)

        return made, lambda g: (apply(g),), apply


def softmax_product(p: Any, g: Any) -> Any:
    """(diag p - p p^T) g over the last axis."""
    weighted = g * p
    return weighted - p * ops.sum(weighted, axis=-1, keepdims=True)


@dataclass(frozen=True, eq=False)
class Attention:
    """softmax(q k^T scale) v for each head; q, k, v are (batch, position, head * width).

    Vaswani et al. 2017, arXiv 1706.03762.
    """

    heads: int
    scale: float

    def _heads(self, x: Any) -> Any:
        """(..., position, head * width) -> (..., head, position, width)."""
        split = ops.reshape(x, (*x.shape[:-1], self.heads, x.shape[-1] // self.heads))
        return ops.swapaxes(split, -3, -2)

    def _joined(self, x: Any) -> Any:
        x = ops.swapaxes(x, -3, -2)
        return ops.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))

    def _weights(self, q: Any, k: Any) -> Any:
        return ops.softmax(ops.matmul(q * self.scale, _swapped(k)), axis=-1)

    def __call__(self, q: Any, k: Any, v: Any) -> Any:
        q, k, v = self._heads(q), self._heads(k), self._heads(v)
        return self._joined(ops.matmul(self._weights(q, k), v))

    def linearize(self, kernels: Kernels, q: Any, k: Any, v: Any) -> tuple[Any, Vjp, None]:
        q, k, v = self._heads(q), self._heads(k), self._heads(v)
        p = self._weights(q, k)
        turned = _swapped(p)

        def vjp(g: Any) -> tuple[Any, ...]:
            g = self._heads(g)
            scores = softmax_product(p, ops.matmul(g, _swapped(v))) * self.scale
            made = ops.matmul(scores, k), ops.matmul(_swapped(scores), q), ops.matmul(turned, g)
            return tuple(self._joined(part) for part in made)

        return self._joined(ops.matmul(p, v)), vjp, None


def _swapped(x: Any) -> Any:
    return ops.swapaxes(x, -1, -2)
