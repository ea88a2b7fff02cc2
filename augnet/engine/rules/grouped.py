"""Convolutions of groups of channels, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from keras import ops

from augnet.engine.rules.base import Jvp, Kernels, Reach, Rule, Shape, Vjp, split
from augnet.engine.rules.weighted import Weighted
from augnet.engine.types import Tensor


@dataclass(frozen=True, eq=False)
class Grouped(Rule):
    """Convolutions of consecutive groups of channels, as many channels each, side by side."""

    parts: tuple[Weighted, ...]

    fuses_on_cpu: ClassVar[bool] = False

    def _apart(self, x: Tensor) -> list[Tensor]:
        return split(x, [x.shape[-1] // len(self.parts)] * len(self.parts), -1)

    def __call__(self, x: Tensor) -> Tensor:
        return ops.concatenate([part(y) for part, y in zip(self.parts, self._apart(x), strict=True)], axis=-1)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        groups = zip(self.parts, self._apart(x), strict=True)
        outputs, vjps, jvps = zip(*(part.linearize(kernels, y) for part, y in groups), strict=True)

        def vjp(g: Tensor) -> tuple[Tensor]:
            rows = [back(h)[0] for back, h in zip(vjps, self._apart(g), strict=True)]
            return (ops.concatenate(rows, axis=-1),)

        def jvp(t: Tensor) -> Tensor:
            return ops.concatenate([on(s) for on, s in zip(jvps, self._apart(t), strict=True)], axis=-1)

        return ops.concatenate(outputs, axis=-1), vjp, jvp

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        return self.parts[0].reach(axis, inputs, output)
