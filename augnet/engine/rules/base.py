"""What a rule is, what it says of itself, and what several rules need.

A new operation is one file of this folder, or one class in one, and is found there without any list of rules.
The class says how the operation is computed and differentiated; a function beside it says which Keras layers
it serves and how it is made from them:

>>> import numpy as np, keras
>>> from dataclasses import dataclass
>>> from augnet.engine.rules.registry import Call, serves
>>> class Halve(keras.layers.Layer):
...     def call(self, x):
...         return x / 2
>>> @dataclass(frozen=True, eq=False)
... class Half(Pixelwise):
...     def __call__(self, x):
...         return x * 0.5
...     def linearize(self, kernels, x):
...         return self(x), lambda cotangents: (self(cotangents),), self
>>> @serves(Halve)
... def _halve(layer: Halve, call: Call) -> list[Rule]:
...     return [Half()]

From here on a model with such a layer is differentiated by the rule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from typing import ClassVar

import numpy as np
from keras import ops

from augnet.engine.kernels import Kernel, Kernels
from augnet.engine.types import Tensor

Shape = tuple[int, ...]
"""Of a tensor, without the batch axis."""

Vjp = Callable[[Tensor], tuple[Tensor | None, ...]]
"""Vector-Jacobian product: cotangents (row, batch, *output) -> one (row, batch, *input) per input tensor, or
None for an input that no gradient flows to."""

Jvp = Callable[..., Tensor]
"""Jacobian-vector product: tangents (row, batch, *input), one per input, None for zero, though not for all of
them -> (row, batch, *output), or None for zero."""

Reach = tuple[np.ndarray, np.ndarray]
"""First and last position (output,) of the input that each position of the output reads; some are outside."""


class Rule(ABC):
    """An operation of one output tensor that knows its own derivative.

    Attributes:
        fuses_on_cpu: whether XLA may gain something with it on a CPU; its convolutions and pools are slower
            there than TensorFlow's own.
        passes_gradient: whether its output depends on every input by a way along which a gradient flows.
    """

    fuses_on_cpu: ClassVar[bool] = True
    passes_gradient: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, *tensors: Tensor) -> Tensor:
        """The output (batch, ...)."""

    @abstractmethod
    def linearize(self, kernels: Kernels, *tensors: Tensor) -> tuple[Tensor, Vjp, Jvp | None]:
        """The output, and at these tensors the vjp and, where there is one, the jvp."""

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        """What each position of the output reads along an axis; None where it may read everything.

        Args:
            axis: 0 for height, 1 for width.
            inputs: shapes of the inputs that depend on the image.
            output: shape of the output.
        """
        return None

    def fused_after(self, before: Elementwise) -> Rule | None:
        """This rule and an elementwise one before it as one; None where that gains nothing."""
        return None

    def arrays(self) -> Iterator[np.ndarray]:
        """Those that it holds, and that the rules hold which it is made of."""
        return _arrays(self)


class Pixelwise(Rule):
    """A rule that reads, for each position of height and width, nothing but that position of its inputs."""

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        same = all(len(shape) == len(output) and shape[:2] == output[:2] for shape in inputs)
        return same_positions(axis, output) if same and len(output) >= 2 else None


class Mixing(Pixelwise):
    """A rule that mixes what is along some axes, such as all channels of a position.

    Attributes:
        axes: counted from behind.
    """

    axes: tuple[int, ...]

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        apart = all(len(output) + mixed >= 2 for mixed in self.axes)
        return super().reach(axis, inputs, output) if apart else None


class Elementwise(Pixelwise):
    """A function of one element: its slope is computed once and multiplies every cotangent."""

    @abstractmethod
    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The output, and d output / d input of each element; None for 1."""

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        output, slope = self.value_and_slope(x)
        if slope is None:
            return output, lambda g: (g,), lambda t: t
        return output, lambda g: (g * slope,), lambda t: t * slope


class LinearRule(Rule):
    """A rule that is linear in its one input, but for a constant."""

    @abstractmethod
    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Cotangents (n, *output) as those (n, *shape) of the input, whose shape is without the batch."""

    def linear(self, x: Tensor) -> Tensor:
        """The output without the constant."""
        return self(x)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        back = on_rows(lambda g: self.transposed(g, tuple(x.shape[1:])))
        return self(x), lambda g: (back(g),), on_rows(self.linear)


def same_positions(axis: int, output: Shape) -> Reach:
    """The reach of what reads the position that it makes."""
    positions = np.arange(output[axis])
    return positions, positions


def _arrays(part: object) -> Iterator[np.ndarray]:
    if isinstance(part, np.ndarray):
        yield part
    parts = part if isinstance(part, tuple) else vars(part).values() if is_dataclass(part) else ()
    for inner in parts:
        yield from _arrays(inner)


def on_rows(function: Kernel) -> Kernel:
    """A function of a batch, applied to (row, batch, ...)."""

    def apply(rows: Tensor) -> Tensor:
        made = function(ops.reshape(rows, (rows.shape[0] * rows.shape[1], *rows.shape[2:])))
        return ops.reshape(made, (*rows.shape[:2], *made.shape[1:]))

    return apply


def reduced_to(rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Cotangents (row, batch, *output) of a broadcast tensor, summed to (row, *shape) of its own."""
    lead = len(rows.shape) - 1 - len(shape)
    if lead:  # the tensor had fewer axes: those in front, after the row, were added
        rows = ops.sum(rows, axis=tuple(range(1, 1 + lead)))
    axes = tuple(i + 1 for i, size in enumerate(shape) if size == 1 and rows.shape[i + 1] != 1)
    return ops.sum(rows, axis=axes, keepdims=True) if axes else rows


def split(x: Tensor, sizes: Sequence[int], axis: int) -> list[Tensor]:
    """Consecutive parts of these sizes along an axis."""
    if len(sizes) == 1:
        return [x]
    # As a table of lines with what is split at their ends: slices of few axes are copied faster.
    axis %= len(x.shape)
    inner = math.prod(x.shape[axis + 1 :])
    table = ops.reshape(x, (math.prod(x.shape[:axis]), x.shape[axis] * inner))
    parts, start = [], 0
    for size in sizes:
        part = table[:, start * inner : (start + size) * inner]
        parts.append(ops.reshape(part, (*x.shape[:axis], size, *x.shape[axis + 1 :])))
        start += size
    return parts
