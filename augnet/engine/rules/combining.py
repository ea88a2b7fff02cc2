"""Operations of several tensors, element by element or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers, ops
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # not exported

from augnet.engine.graph.graph import Node, Value
from augnet.engine.rules.affine import Affine
from augnet.engine.rules.base import (
    Jvp,
    Kernels,
    Pixelwise,
    Reach,
    Rule,
    Shape,
    Vjp,
    reduced_to,
    split,
)
from augnet.engine.rules.elementwise import element_operation
from augnet.engine.rules.registry import Call, serves, weights_of
from augnet.engine.rules.shaping import Reshape
from augnet.engine.types import Op, Tensor

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class Add(Pixelwise):
    """Sum of tensors, each broadcast, each with its sign."""

    signs: tuple[int, ...]

    def __call__(self, *tensors: Tensor) -> Tensor:
        total = tensors[0] if self.signs[0] > 0 else -tensors[0]
        for sign, tensor in zip(self.signs[1:], tensors[1:], strict=True):
            total = ops.add(total, tensor) if sign > 0 else ops.subtract(total, tensor)
        return total

    def linearize(self, kernels: Kernels, *tensors: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        output = self(*tensors)

        def vjp(g: Tensor) -> tuple[Tensor, ...]:
            return tuple(
                reduced_to(g if sign > 0 else -g, tuple(tensor.shape))
                for sign, tensor in zip(self.signs, tensors, strict=True)
            )

        def jvp(*tangents: Tensor | None) -> Tensor:
            total: Tensor = None
            for sign, tangent in zip(self.signs, tangents, strict=True):
                if tangent is not None:
                    term = tangent if sign > 0 else -tangent
                    total = term if total is None else ops.add(total, term)
            return ops.broadcast_to(total, (total.shape[0], *output.shape))

        return output, vjp, jvp


@dataclass(frozen=True, eq=False)
class Multiply(Pixelwise):
    """Product of two tensors, each broadcast."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.multiply(a, b)

    def linearize(self, kernels: Kernels, a: Tensor, b: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        def vjp(g: Tensor) -> tuple[Tensor, ...]:
            return _pair_vjp(g, (a, b), (b, a))

        return self(a, b), vjp, lambda s, t: _pair_jvp((s, t), (b, a))


@dataclass(frozen=True, eq=False)
class Divide(Pixelwise):
    """Quotient of two tensors, each broadcast."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.divide(a, b)

    def linearize(self, kernels: Kernels, a: Tensor, b: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        output = self(a, b)
        slopes = 1 / b, -ops.divide(output, b)

        def vjp(g: Tensor) -> tuple[Tensor, ...]:
            return _pair_vjp(g, (a, b), slopes)

        return output, vjp, lambda s, t: _pair_jvp((s, t), slopes)


@dataclass(frozen=True, eq=False)
class Extreme(Pixelwise):
    """The larger of two tensors, each broadcast; where they are equal the first takes the gradient.

    So it does in TensorFlow.

    Attributes:
        smaller: the smaller one instead.
    """

    smaller: bool = False

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.minimum(a, b) if self.smaller else ops.maximum(a, b)

    def linearize(self, kernels: Kernels, a: Tensor, b: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        output = self(a, b)
        first = ops.cast((ops.less_equal if self.smaller else ops.greater_equal)(a, b), output.dtype)
        slopes = first, 1 - first

        def vjp(g: Tensor) -> tuple[Tensor, ...]:
            return _pair_vjp(g, (a, b), slopes)

        return output, vjp, lambda s, t: _pair_jvp((s, t), slopes)


def _pair_vjp(g: Tensor, inputs: Pair, slopes: Pair) -> tuple[Tensor, ...]:
    """Cotangents of two tensors, each broadcast, given d output / d input for each element of the output."""
    # By keras.ops, which takes two dtypes, as the layers do that the rules stand for.
    return tuple(
        reduced_to(ops.multiply(g, slope), tuple(tensor.shape))
        for tensor, slope in zip(inputs, slopes, strict=True)
    )


def _pair_jvp(tangents: tuple[Tensor | None, Tensor | None], slopes: Pair) -> Tensor:
    """The tangent of the output, given those of two tensors, None for zero."""
    terms = [ops.multiply(t, slope) for t, slope in zip(tangents, slopes, strict=True) if t is not None]
    return terms[0] if len(terms) == 1 else ops.add(*terms)


@dataclass(frozen=True, eq=False)
class Concatenate(Pixelwise):
    """Tensors side by side along an axis, counted with the batch as 0."""

    axis: int
    mixed_axes: ClassVar[int] = 1

    def __call__(self, *tensors: Tensor) -> Tensor:
        return ops.concatenate(tensors, axis=self.axis)

    def linearize(self, kernels: Kernels, *tensors: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        sizes = [tensor.shape[self.axis] for tensor in tensors]

        def jvp(*tangents: Tensor | None) -> Tensor:
            count = next(tangent.shape[0] for tangent in tangents if tangent is not None)
            parts = [
                ops.zeros((count, *tensor.shape), tensor.dtype) if tangent is None else tangent
                for tensor, tangent in zip(tensors, tangents, strict=True)
            ]
            return ops.concatenate(parts, axis=self.axis + 1)

        return self(*tensors), lambda g: tuple(split(g, sizes, self.axis + 1)), jvp

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        return super().reach(axis, inputs, output) if self.axis > 2 else None


def _merged(call: Call, *rules: Rule, pairwise: bool = False) -> list[Node]:
    """A layer's inputs joined by the first rule, followed by the others.

    Keras gives an input of fewer axes more of them, behind the batch.

    Args:
        pairwise: the rule takes two tensors, so that more are joined one by one.
    """
    nodes: list[Node] = []

    def put(rule: Rule, *values: Value) -> Value:
        nodes.append(call.step(rule, *values))
        return nodes[-1].outputs[0]

    rank = max(map(len, call.inputs))
    values = [
        value if len(shape) == rank else put(Reshape((*(1,) * (rank - len(shape)), *shape)), value)
        for value, shape in zip(call.node.inputs, call.inputs, strict=True)
    ]
    if pairwise:
        total = reduce(lambda left, right: put(rules[0], left, right), values)
    else:
        total = put(rules[0], *values)
    for rule in rules[1:]:
        total = put(rule, total)
    return [*nodes[:-1], replace(nodes[-1], outputs=call.node.outputs)]


@serves(layers.Add)
def _add(layer: Op, call: Call) -> list[Node]:
    return _merged(call, Add((1,) * len(call.inputs)))


@serves(layers.Subtract)
def _subtract(layer: Op, call: Call) -> list[Node]:
    return _merged(call, Add((1, -1)))


@serves(layers.Average)
def _average(layer: Op, call: Call) -> list[Node]:
    return _merged(call, Add((1,) * len(call.inputs)), Affine(np.asarray(1 / len(call.inputs)), None))


@serves(layers.Multiply)
def _multiply(layer: Op, call: Call) -> list[Node]:
    return _merged(call, Multiply(), pairwise=True)


@serves(layers.Maximum)
def _maximum(layer: Op, call: Call) -> list[Node]:
    return _merged(call, Extreme(), pairwise=True)


@serves(layers.Minimum)
def _minimum(layer: Op, call: Call) -> list[Node]:
    return _merged(call, Extreme(smaller=True), pairwise=True)


@serves(CustomScaleLayer)
def _scaled_add(layer: Op, call: Call) -> list[Node]:
    first, second = call.node.inputs
    scaled = call.step(Affine(np.asarray(layer.scale, np.float64), None), second)
    return [scaled, call.last(Add((1, 1)), first, scaled.outputs[0])]


@serves(layers.Concatenate, "Concatenate")
def _concatenate(source: Op, call: Call) -> list[Rule] | None:
    if any(len(shape) != len(call.inputs[0]) for shape in call.inputs):
        return None
    axis = source.axis % (len(call.inputs[0]) + 1)
    return [Concatenate(axis)] if axis and _reads_a_list(call) else None


@serves("Stack")
def _stack(op: Op, call: Call) -> list[Node] | None:
    axis = op.axis % (len(call.output) + 1)
    if not axis or not _reads_a_list(call):
        return None
    shape = (*call.output[: axis - 1], 1, *call.output[axis:])
    nodes = [call.step(Reshape(shape), value) for value in call.node.inputs]
    return [*nodes, call.last(Concatenate(axis), *(node.outputs[0] for node in nodes))]


def _reads_a_list(call: Call) -> bool:
    """Whether all that it was called with is one list of tensors."""
    args = call.node.args
    return len(args) == 1 and isinstance(args[0], list | tuple) and len(args[0]) == len(call.node.inputs)


PAIRS: dict[str, Rule] = {
    "Add": Add((1, 1)),
    "Subtract": Add((1, -1)),
    "Multiply": Multiply(),
    "Divide": Divide(),
    "TrueDivide": Divide(),
    "Maximum": Extreme(),
    "Minimum": Extreme(smaller=True),
}


@serves(*PAIRS)
def _arithmetic(op: Op, call: Call) -> Sequence[Rule] | None:
    """An operation of two tensors, or of a tensor and a constant."""
    if len(call.node.args) != 2 or call.node.kwargs:
        return None
    name, (left, right) = type(op).__name__, call.node.args
    if isinstance(left, Value) and isinstance(right, Value):
        return [PAIRS[name]]
    first = isinstance(left, Value)
    constant = _constant(right if first else left)
    if constant is not None and _fits(constant, call.inputs[0]):
        match name, first:
            case "Add", _:
                return [Affine(None, constant)]
            case "Subtract", True:
                return [Affine(None, -constant)]
            case "Subtract", False:
                return [Affine(np.asarray(-1.0), constant)]
            case "Multiply", _:
                return [Affine(constant, None)]
            case "Divide" | "TrueDivide", True:
                return [Affine(1 / constant, None)]
    return element_operation(op, call)


def _constant(given: Any) -> np.ndarray | None:
    """A number or an array that stands beside a tensor; None for anything else."""
    if isinstance(given, keras.Variable):
        return weights_of(given).astype(np.float64)
    if keras.ops.is_tensor(given):
        return np.asarray(keras.ops.convert_to_numpy(given), np.float64)
    return np.asarray(given, np.float64) if isinstance(given, int | float | np.ndarray | np.number) else None


def _fits(constant: np.ndarray, shape: Shape) -> bool:
    """Whether the result has the shape of the tensor."""
    return constant.ndim <= len(shape) and np.broadcast_shapes(constant.shape, shape) == shape
