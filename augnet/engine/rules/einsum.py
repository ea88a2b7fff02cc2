"""Products of tensors: matrix products, dot products, and Einstein sums of two factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

import numpy as np
from keras import layers, ops

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Value
from augnet.engine.rules.affine import Affine
from augnet.engine.rules.base import Jvp, Kernels, Rule, Vjp
from augnet.engine.rules.dense import Dense
from augnet.engine.rules.linear import linear_operation
from augnet.engine.rules.registry import Call, serves, weights_of
from augnet.engine.rules.shaping import Reshape
from augnet.engine.types import Op, Tensor

ROW = "Z"
"""The letter of the row axis; letters of equations are small ones."""


@dataclass(frozen=True, eq=False)
class Einsum(Rule):
    """The Einstein sum of two factors, such as "abc,acd->abd": a is the batch.

    Attributes:
        factors: letters of the axes of each.
        product: letters of the output; each letter of a factor is in the other one or here.
        constant: the second factor where that is no tensor.
    """

    factors: tuple[str, str]
    product: str
    constant: np.ndarray | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        return ops.einsum(f"{','.join(self.factors)}->{self.product}", *self._filled(tensors))

    def _filled(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.constant is None:
            return tensors
        return tensors[0], backend.constant(self.constant, tensors[0].dtype)

    def linearize(self, kernels: Kernels, *tensors: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        left, right = self.factors
        filled = self._filled(tensors)
        others = [(left, right, filled[1]), (right, left, filled[0])][: len(tensors)]

        def vjp(g: Tensor) -> tuple[Tensor, ...]:
            return tuple(
                ops.einsum(f"{ROW}{self.product},{other}->{ROW}{own}", g, factor)
                for own, other, factor in others
            )

        def jvp(*tangents: Tensor | None) -> Tensor:
            terms = [
                ops.einsum(f"{ROW}{own},{other}->{ROW}{self.product}", tangent, factor)
                for tangent, (own, other, factor) in zip(tangents, others, strict=True)
                if tangent is not None
            ]
            return terms[0] if len(terms) == 1 else terms[0] + terms[1]

        return self(*tensors), vjp, jvp


def _einsum(equation: str, ranks: Sequence[int], constant: np.ndarray | None = None) -> Einsum | None:
    """The rule of an equation; None where it repeats or drops a letter, or mixes the batch.

    Args:
        equation: as keras.ops.einsum takes it, of two factors.
        ranks: numbers of axes of the factors, the batch included.
    """
    given, arrow, product = equation.replace(" ", "").partition("->")
    factors = given.split(",")
    if not arrow or len(factors) != 2:
        return None
    extra = [rank - len(factor.replace("...", "")) for factor, rank in zip(factors, ranks, strict=True)]
    spare = "".join(letter for letter in ascii_lowercase if letter not in equation)
    dots = spare[: max(extra)]
    left, right = (
        factor.replace("...", dots[len(dots) - own :]) for factor, own in zip(factors, extra, strict=True)
    )
    product = product.replace("...", dots)
    repeated = any(len(set(letters)) < len(letters) for letters in (left, right, product))
    lost = (set(left) - set(right + product)) | (set(right) - set(left + product))
    batch = left[:1]
    mixed = product[:1] != batch or (right[:1] != batch if constant is None else batch in right)
    if repeated or lost or mixed or not equation.islower():
        return None
    return Einsum((left, right), product, constant)


@serves("Einsum")
def _einsum_operation(op: Op, call: Call) -> Sequence[Rule] | None:
    values = call.node.args
    if len(values) == 2 and not call.node.kwargs and all(isinstance(value, Value) for value in values):
        rule = _einsum(op.subscripts, [len(shape) + 1 for shape in call.inputs])
        return None if rule is None else [rule]
    return linear_operation(op, call)


@serves("Matmul")
def _matmul(op: Op, call: Call) -> Sequence[Rule] | None:
    left, right = call.node.args
    if isinstance(left, Value) and isinstance(right, Value):
        first, second = call.inputs
        if len(first) < 2 or len(first) != len(second) or first[:-2] != second[:-2]:
            return None
        outer = "abcdefgh"[: len(first) - 1]
        return [Einsum((f"{outer}xy", f"{outer}yz"), f"{outer}xz")]
    if isinstance(left, Value) and isinstance(right, np.ndarray) and right.ndim == 2:
        return [Dense(right)]
    return linear_operation(op, call)


@serves(layers.Dot)
def _dot(layer: Op, call: Call) -> Sequence[Rule] | None:
    if layer.normalize:
        return None
    ranks = [len(shape) + 1 for shape in call.inputs]
    axes = [layer.axes] * 2 if isinstance(layer.axes, int) else list(layer.axes)
    first, second = (axis % rank for axis, rank in zip(axes, ranks, strict=True))
    if not first or not second:
        return None
    left = list("abcdefgh"[: ranks[0]])
    right = ["a", *"nopqrstuvw"[: ranks[1] - 1]]
    right[second] = left[first]
    product = [letter for letter in left + right[1:] if letter != left[first]]
    return [Einsum(("".join(left), "".join(right)), "".join(product)), Reshape(call.output)]


@serves(layers.EinsumDense)
def _einsum_dense(layer: Op, call: Call) -> Sequence[Rule] | None:
    kernel = weights_of(layer.kernel)
    rule = _einsum(layer.equation, (len(call.inputs[0]) + 1, kernel.ndim), kernel)
    if rule is None:
        return None
    return [rule] if layer.bias is None else [rule, Affine(shift=weights_of(layer.bias))]
