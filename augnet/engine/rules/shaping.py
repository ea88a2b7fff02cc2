"""Operations that only move elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.rules.base import Jvp, Kernels, Vjp, on_rows


@dataclass(frozen=True, eq=False)
class Reshape:
    """Another shape, without batch."""

    shape: tuple[int, ...]

    def __call__(self, x: Any) -> Any:
        return ops.reshape(x, (x.shape[0], *self.shape))

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        shape = tuple(x.shape)
        made = self(x)
        return (
            made,
            lambda g: (ops.reshape(g, (g.shape[0], *shape)),),
            lambda t: ops.reshape(t, (t.shape[0], shape[0], *made.shape[1:])),
        )


@dataclass(frozen=True, eq=False)
class Permute:
    """Another order of axes; order counts from 1, the batch being 0."""

    order: tuple[int, ...]

    def __call__(self, x: Any) -> Any:
        return ops.transpose(x, (0, *self.order))

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        inverse = tuple(int(i) + 2 for i in np.argsort(self.order))
        forward = tuple(i + 1 for i in self.order)
        return (
            self(x),
            lambda g: (ops.transpose(g, (0, 1, *inverse)),),
            lambda t: ops.transpose(t, (0, 1, *forward)),
        )


@dataclass(frozen=True, eq=False)
class Pad:
    """Zeros round height and width; negative amounts crop."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def __call__(self, x: Any) -> Any:
        return _padded(x, self.rows, self.columns)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        back = (-self.rows[0], -self.rows[1]), (-self.columns[0], -self.columns[1])
        return self(x), lambda g: (on_rows(lambda y: _padded(y, *back))(g),), on_rows(self)


def _padded(x: Any, rows: tuple[int, int], columns: tuple[int, int]) -> Any:
    height, width = x.shape[1:3]
    x = x[:, max(-rows[0], 0) : height - max(-rows[1], 0), max(-columns[0], 0) : width - max(-columns[1], 0)]
    pads = [(0, 0), *((max(a, 0), max(b, 0)) for a, b in (rows, columns)), (0, 0)]
    return ops.pad(x, pads) if any(max(pair) for pair in pads) else x
