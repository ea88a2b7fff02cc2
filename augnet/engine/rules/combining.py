"""Operations of several tensors, element by element or side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

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
class Pairwise(Pixelwise):
    """A function of two tensors, each broadcast, element by element.

    Attributes:
        function: of both -> the output.
        slopes: of both and of the output -> d output / d input for each of the two.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b)

    def linearize(self, kernels: Kernels, a: Tensor, b: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        output = self(a, b)
        slopes = self.slopes(a, b, output)

        # By keras.ops, which takes two dtypes, as the layers do that the rules stand for.
        def vjp(g: Tensor) -> tuple[Tensor, ...]:
            pairs = zip((a, b), slopes, strict=True)
            return tuple(reduced_to(ops.multiply(g, slope), tuple(tensor.shape)) for tensor, slope in pairs)

        def jvp(*tangents: Tensor | None) -> Tensor:
            pairs = zip(tangents, slopes, strict=True)
            return reduce(ops.add, [ops.multiply(t, slope) for t, slope in pairs if t is not None])

        return output, vjp, jvp


def _winners(first: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """1 where the first of two tensors is taken, and 1 where the second is."""
    wins = ops.cast(first, output.dtype)
    return wins, 1 - wins


MULTIPLY = Pairwise(ops.multiply, lambda a, b, output: (b, a))
DIVIDE = Pairwise(ops.divide, lambda a, b, output: (1 / b, -ops.divide(output, b)))
# Where both are equal the first takes the gradient, as in TensorFlow.
LARGER = Pairwise(ops.maximum, lambda a, b, output: _winners(ops.greater_equal(a, b), output))
SMALLER = Pairwise(ops.minimum, lambda a, b, output: _winners(ops.less_equal(a, b), output))


@dataclass(frozen=True, eq=False)
class Concatenate(Pixelwise):
    """Tensors side by side along an axis, counted with the batch as 0."""

    axis: int

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


def _merged(call: Call, *rules: Rule) -> list[Node]:
    """A layer's inputs joined by the first rule, pair by pair where it takes two, followed by the others.

    Keras gives an input of fewer axes more of them, behind the batch.
    """
    rank = max(map(len, call.inputs))
    values = [
        value if len(shape) == rank else call.put(Reshape((*(1,) * (rank - len(shape)), *shape)), value)
        for value, shape in zip(call.node.inputs, call.inputs, strict=True)
    ]
    first, *others = rules
    join = partial(call.put, first)
    total = reduce(join, values) if isinstance(first, Pairwise) else join(*values)
    for rule in others:
        total = call.put(rule, total)
    return call.replacement()


@serves(layers.Add, layers.Average)
def _sum(layer: Op, call: Call) -> list[Node]:
    count = len(call.inputs)
    mean = [Affine(np.asarray(1 / count))] if isinstance(layer, layers.Average) else []
    return _merged(call, Add((1,) * count), *mean)


MERGES: dict[type, Rule] = {
    layers.Subtract: Add((1, -1)),
    layers.Multiply: MULTIPLY,
    layers.Maximum: LARGER,
    layers.Minimum: SMALLER,
}


@serves(*MERGES)
def _merge(layer: Op, call: Call) -> list[Node]:
    return _merged(call, MERGES[type(layer)])


@serves(CustomScaleLayer)
def _scaled_add(layer: Op, call: Call) -> list[Node]:
    first, second = call.node.inputs
    call.put(Add((1, 1)), first, call.put(Affine(np.asarray(layer.scale, np.float64)), second))
    return call.replacement()


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
    call.put(Concatenate(axis), *[call.put(Reshape(shape), value) for value in call.node.inputs])
    return call.replacement()


def _reads_a_list(call: Call) -> bool:
    """Whether all that it was called with is one list of tensors."""
    args = call.node.args
    return len(args) == 1 and isinstance(args[0], list | tuple) and len(args[0]) == len(call.node.inputs)


PAIRS: dict[str, Rule] = {
    "Add": Add((1, 1)),
    "Subtract": Add((1, -1)),
    "Multiply": MULTIPLY,
    "Divide": DIVIDE,
    "TrueDivide": DIVIDE,
    "Maximum": LARGER,
    "Minimum": SMALLER,
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
                return [Affine(shift=constant)]
            case "Subtract", True:
                return [Affine(shift=-constant)]
            case "Subtract", False:
                return [Affine(np.asarray(-1.0), constant)]
            case "Multiply", _:
                return [Affine(constant)]
            case "Divide" | "TrueDivide", True:
                return [Affine(1 / constant)]
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
