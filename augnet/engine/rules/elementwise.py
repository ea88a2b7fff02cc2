"""Functions of one element: their slope is computed once and multiplies every cotangent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops

from augnet.engine.backends import tensorflow as backend
from augnet.engine.rules.base import Jvp, Kernels, Vjp
from augnet.engine.rules.linear import Affine


@dataclass(frozen=True, eq=False)
class Elementwise:
    """Any function of one element."""

    function: Callable[[Any], Any]

    def __call__(self, x: Any) -> Any:
        return self.function(x)

    def value_and_slope(self, x: Any) -> tuple[Any, Any]:
        return backend.elementwise_slope(self.function, x)

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        return _diagonal(*self.value_and_slope(x))


@dataclass(frozen=True, eq=False)
class Clip:
    """ReLU and its kin: slope `below` under zero, 1 above, 0 beyond `ceiling` and, as in tf.nn.relu, at 0.

    At the ceiling it is what TensorFlow's operation has there: 0 of tf.nn.relu6, 1 of tf.clip_by_value.
    """

    below: float = 0.0
    ceiling: float | None = None

    def __call__(self, x: Any) -> Any:
        if self.below:
            return ops.leaky_relu(x, self.below)
        if self.ceiling is None:
            return ops.relu(x)
        return ops.relu6(x) if self.ceiling == 6 else ops.minimum(ops.relu(x), self.ceiling)

    def value_and_slope(self, x: Any) -> tuple[Any, Any]:
        made = self(x)
        # From the output, so that TensorFlow may fuse the convolution before it with the ReLU; by sign,
        # which takes a third of the time of a comparison and a cast.
        inside = made
        if self.ceiling == 6:
            inside = made * (6 - made)
        elif self.ceiling is not None:
            inside = made * ops.cast(x <= self.ceiling, made.dtype)
        if self.below:
            inside = ops.relu(inside)
        slope = ops.sign(inside)
        return made, slope * (1 - self.below) + self.below if self.below else slope

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        return _diagonal(*self.value_and_slope(x))


@dataclass(frozen=True, eq=False)
class Chain:
    """Elementwise operations one after the other: one slope, their product, for all of them."""

    steps: tuple[Elementwise | Clip | Affine, ...]

    def __call__(self, x: Any) -> Any:
        for step in self.steps:
            x = step(x)
        return x

    def value_and_slope(self, x: Any) -> tuple[Any, Any]:
        """The output, and d output / d input, or None for 1."""
        total = None
        for step in self.steps:
            if isinstance(step, Affine):
                slope = step.slope(x)
                x = step(x)
            else:
                x, slope = step.value_and_slope(x)
            if slope is not None:
                total = slope if total is None else total * slope
        return x, total

    def linearize(self, kernels: Kernels, x: Any) -> tuple[Any, Vjp, Jvp]:
        made, slope = self.value_and_slope(x)
        if slope is None:
            return made, lambda g: (g,), lambda t: t
        return _diagonal(made, slope)


def _diagonal(made: Any, slope: Any) -> tuple[Any, Vjp, Jvp]:
    return made, lambda g: (g * slope,), lambda t: t * slope
