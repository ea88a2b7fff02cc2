"""Operations of several tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras import ops

from augnet.engine.rules.base import Jvp, Kernels, Vjp, reduced_to, split


@dataclass(frozen=True, eq=False)
class Add:
    """Sum of tensors, each broadcast, each with its sign."""

    signs: tuple[int, ...]

    def __call__(self, *tensors: Any) -> Any:
        total = tensors[0] if self.signs[0] > 0 else -tensors[0]
        for sign, tensor in zip(self.signs[1:], tensors[1:], strict=True):
            total = total + tensor if sign > 0 else total - tensor
        return total

    def linearize(self, kernels: Kernels, *tensors: Any) -> tuple[Any, Vjp, Jvp]:
        made = self(*tensors)

        def vjp(g: Any) -> tuple[Any, ...]:
            return tuple(
                reduced_to(g if sign > 0 else -g, tuple(tensor.shape))
                for sign, tensor in zip(self.signs, tensors, strict=True)
            )

        def jvp(*tangents: Any) -> Any:
            total: Any = None
            for sign, tangent in zip(self.signs, tangents, strict=True):
                if tangent is not None:
                    term = tangent if sign > 0 else -tangent
                    total = term if total is None else total + term
            return ops.broadcast_to(total, (total.shape[0], *made.shape))

        return made, vjp, jvp


@dataclass(frozen=True, eq=False)
class Multiply:
    """Product of two tensors, each broadcast."""

    def __call__(self, a: Any, b: Any) -> Any:
        return a * b

    def linearize(self, kernels: Kernels, a: Any, b: Any) -> tuple[Any, Vjp, Jvp]:
        def vjp(g: Any) -> tuple[Any, ...]:
            return reduced_to(g * b, tuple(a.shape)), reduced_to(g * a, tuple(b.shape))

        def jvp(s: Any, t: Any) -> Any:
            terms = [left * right for left, right in ((s, b), (t, a)) if left is not None]
            return terms[0] if len(terms) == 1 else terms[0] + terms[1]

        return a * b, vjp, jvp


@dataclass(frozen=True, eq=False)
class Concatenate:
    """Tensors side by side along an axis, counted with the batch as 0."""

    axis: int

    def __call__(self, *tensors: Any) -> Any:
        return ops.concatenate(tensors, axis=self.axis)

    def linearize(self, kernels: Kernels, *tensors: Any) -> tuple[Any, Vjp, None]:
        sizes = [tensor.shape[self.axis] for tensor in tensors]
        return self(*tensors), lambda g: tuple(split(g, sizes, self.axis + 1)), None
