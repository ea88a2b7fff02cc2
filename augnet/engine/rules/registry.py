"""Which rules stand for which Keras layers, activation functions and operations.

Each file of this folder says it of its own rules, by functions marked with `serves`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import keras
import numpy as np

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Node, Shapes, Value
from augnet.engine.rules.base import Rule, Shape
from augnet.engine.types import Op

Kind = type | Callable[..., Any] | str
"""A layer's class, an activation function, or the class name of a Keras operation such as "Add" (which is
what `x + y` is in a model)."""

Builder = Callable[[Op, "Call"], Sequence[Rule] | Sequence[Node] | None]
"""(layer, function or operation, its call) -> rules one after the other, the first of which reads all inputs;
or nodes, where the rules are connected otherwise; or None where it does not mean what any rule does. The
caller appends a layer's `activation`."""

AnyBuilder = TypeVar("AnyBuilder", bound=Builder)

_BUILDERS: dict[Kind, Builder] = {}


def serves(*kinds: Kind) -> Callable[[AnyBuilder], AnyBuilder]:
    """Marks the function that makes rules of these kinds.

    Raises:
        ValueError: another function makes rules of one of them.
    """

    def register(builder: AnyBuilder) -> AnyBuilder:
        for kind in kinds:
            if kind in _BUILDERS:
                raise ValueError(
                    f"serves: {kind!r} has a builder in {_BUILDERS[kind].__module__} already; change it, or "
                    f"leave it out in {builder.__module__}"
                )
            _BUILDERS[kind] = builder
        return builder

    return register


def builder_of(kind: Kind) -> Builder | None:
    """The function that makes rules of this kind."""
    _load_rules()
    return _BUILDERS.get(kind)


@cache
def _load_rules() -> None:
    """Imports every file of this folder, so that its builders are registered."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{module.name}")


@dataclass(frozen=True)
class Call:
    """One call of a layer or operation in a graph.

    Attributes:
        node: of the graph.
        shapes: of every value, without the batch.
        nodes: what stands for it, as far as it was put together.
    """

    node: Node
    shapes: Shapes
    nodes: list[Node] = field(default_factory=list)

    @property
    def inputs(self) -> tuple[Shape, ...]:
        """Shapes of the input tensors, without the batch."""
        return tuple(self.shapes[value] for value in self.node.inputs)

    @property
    def output(self) -> Shape:
        """Shape of the (first) output tensor, without the batch."""
        return self.shapes[self.node.outputs[0]]

    @property
    def is_unary(self) -> bool:
        """Whether it was called with one tensor and nothing else."""
        return len(self.node.args) == 1 and isinstance(self.node.args[0], Value) and not self.node.kwargs

    def from_behind(self, axes: int | Sequence[int]) -> tuple[int, ...] | None:
        """Axes of the first input, the batch being 0, counted from behind; None where the batch is one."""
        rank = len(self.inputs[0])
        given = [axes] if isinstance(axes, int) else list(axes)
        counted = sorted(axis if axis < 0 else axis - rank - 1 for axis in given)
        return tuple(counted) if counted[0] >= -rank else None

    def put(self, rule: Rule, *inputs: Value, output: Value | None = None) -> Value:
        """Append the rule on these values to the replacement; what it makes, by default a new value."""
        output = output or Value((), self.node.outputs[0].dtype, self.node.name)
        self.nodes.append(Node(rule, inputs, {}, (output,), self.node.name))
        return output

    def replacement(self) -> list[Node]:
        """The nodes that were put, the last of which gives the call's output."""
        return [*self.nodes[:-1], replace(self.nodes[-1], outputs=self.node.outputs)]


def existing_layers(*names: str) -> list[type]:
    """Those of Keras' layers with these names that this version of Keras has."""
    return [getattr(keras.layers, name) for name in names if hasattr(keras.layers, name)]


def weights_of(variable: keras.Variable) -> np.ndarray:
    """A copy of a variable's values."""
    return backend.values_of(variable).copy()


def bias_of(layer: Op) -> np.ndarray | None:
    """The bias of a layer that may have one."""
    return weights_of(layer.bias) if layer.use_bias else None


def activation_rules(function: Op, call: Call) -> Sequence[Rule] | None:
    """The rules of an activation function; none for the identity, None where there is no rule."""
    hashable = callable(function) and isinstance(function, Hashable)
    builder = builder_of(function) if hashable else None
    return None if builder is None else builder(function, call)  # type: ignore[return-value]
