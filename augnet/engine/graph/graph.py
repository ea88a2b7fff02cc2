"""A trained Keras model as a flat list of operations, nested models included.

Keras keeps a functional model as a graph of layers whose layers may be models again. Here the same thing is
one list of nodes in topological order, which rewrites can read and change, and which runs on any tensors.
Sources: keras.src.ops.function.Function, keras.src.ops.node.Node (Keras 3.15).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import tree
from keras.src.models.functional import Functional  # not exported, and the only way to know one

from augnet.engine.rules.base import Rule
from augnet.engine.types import Op, Tensor
from augnet.errors import ModelError


class Value:
    """A tensor of the graph. Identity is what counts.

    Attributes:
        shape: without the batch axis; None where the model leaves a length open.
        dtype: as the model declares it.
    """

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, shape: tuple[int | None, ...], dtype: str, name: str = ""):
        self.shape = shape
        self.dtype = dtype
        self.name = name

    def __repr__(self) -> str:
        return f"<{self.name or 'value'} {self.shape} {self.dtype}>"


Shapes = dict[Value, tuple[int, ...]]
"""Of values, without the batch axis."""


@dataclass(eq=False)
class Node:
    """One call of one operation.

    Attributes:
        op: what is called: a Keras layer, a Keras operation, or any function of tensors.
        args, kwargs: structures whose Value leaves stand for tensors.
        outputs: the values it makes, flat.
    """

    op: Callable[..., Tensor]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    name: str = ""

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(leaf for leaf in tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Value))

    @property
    def source(self) -> Op:
        """The layer or operation of the model that is called, whatever way."""
        return self.op.layer if isinstance(self.op, Inference) else self.op

    @property
    def rule(self) -> Rule | None:
        """The operation, if it knows its own derivative."""
        return self.op if isinstance(self.op, Rule) else None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The output tensors, given one for each input; a value that is read twice has two."""
        queue = iter(tensors)
        args, kwargs = tree.map_structure(
            lambda leaf: next(queue) if isinstance(leaf, Value) else leaf, (self.args, self.kwargs)
        )
        return tuple(tree.flatten(self.op(*args, **kwargs)))

    def run(self, tensors: dict[Value, Tensor]) -> None:
        """Add the output tensors to those of the inputs."""
        outputs = self(*(tensors[value] for value in self.inputs))
        tensors.update(zip(self.outputs, outputs, strict=True))


@dataclass(eq=False)
class Graph:
    """Nodes in topological order from one input value to one output value."""

    input: Value
    output: Value
    nodes: list[Node] = field(default_factory=list)

    def __call__(self, x: Tensor) -> Tensor:
        """The output tensor for the input tensor x (batch, ...)."""
        return self.run({self.input: x})[self.output]

    def run(self, tensors: dict[Value, Tensor]) -> dict[Value, Tensor]:
        """Every value's tensor, starting from those given."""
        tensors = dict(tensors)
        for node in self.nodes:
            if not any(value in tensors for value in node.outputs):
                node.run(tensors)
        return tensors

    def producer(self, value: Value) -> Node | None:
        """The node that makes the value; None for the input."""
        return next((node for node in reversed(self.nodes) if value in node.outputs), None)

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value."""
        readers: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                readers.setdefault(value, []).append(node)
        return readers

    def pruned(self) -> Graph:
        """Without the nodes that the output does not need."""
        needed, kept = {self.output}, []
        for node in reversed(self.nodes):
            if any(value in needed for value in node.outputs):
                needed.update(node.inputs)
                kept.append(node)
        return Graph(self.input, self.output, kept[::-1])

    def layers(self) -> Iterator[keras.layers.Layer]:
        """Each Keras layer once, in the order of first use."""
        seen: dict[int, keras.layers.Layer] = {}
        for node in self.nodes:
            if isinstance(node.source, keras.layers.Layer) and id(node.source) not in seen:
                seen[id(node.source)] = node.source
                yield node.source


@dataclass(frozen=True)
class Inference:
    """A layer called the way a trained model is used."""

    layer: keras.layers.Layer

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.layer(*args, **{**kwargs, "training": False})


@dataclass(frozen=True)
class GroupedConvolution(Inference):
    """A Conv2D with groups, on the layer's own variables, without the XLA program that Keras makes of it.

    Keras compiles a new one at every call, and its gradient runs many times slower than these.
    """

    def __call__(self, x: Tensor) -> Tensor:  # (batch, height, width, channel) tensors
        layer, ops = self.layer, keras.ops
        kernel = ops.cast(layer.kernel, x.dtype)
        window = {"strides": layer.strides, "padding": layer.padding, "dilation_rate": layer.dilation_rate}
        if kernel.shape[2] == 1:  # a channel in each group
            kernel = ops.reshape(kernel, (*kernel.shape[:2], layer.groups, -1))
            outputs = ops.depthwise_conv(x, kernel, **window)
        else:
            parts = zip(
                ops.split(x, layer.groups, axis=-1), ops.split(kernel, layer.groups, axis=-1), strict=True
            )
            outputs = ops.concatenate([ops.conv(y, part, **window) for y, part in parts], axis=-1)
        if layer.use_bias:
            outputs = outputs + ops.cast(layer.bias, x.dtype)
        return outputs if layer.activation is None else layer.activation(outputs)

    @staticmethod
    def serves(op: Op) -> bool:
        """Whether the operation of a model is such a layer, and plain."""
        plain = type(op) is keras.layers.Conv2D and op.groups > 1 and op.data_format == "channels_last"
        return plain and not is_altered(op) and op.strides[0] == op.strides[1]


@dataclass(frozen=True)
class Cast:
    """What a nested model does to inputs of another dtype."""

    dtype: str

    def __call__(self, x: Tensor) -> Tensor:
        return keras.ops.cast(x, self.dtype)


def is_altered(layer: Op) -> bool:
    """Whether the layer's kernel is not what it computes with: it is quantized, or LoRA adds to it."""
    return bool(getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None))


def functional_of(model: Op) -> Functional | None:
    """The functional graph that says what model.call does; None where the call is its own code."""
    if isinstance(model, keras.Sequential):
        inner = getattr(model, "_functional", None)
        return inner if type(model).call is keras.Sequential.call else None
    if isinstance(model, Functional) and type(model).call is Functional.call:
        return model
    return None


def trace(model: keras.Model, output: int | str | None = None) -> Graph | None:
    """The model's flat graph, or None for a model without one (subclassed, masking).

    Args:
        model: a built Keras model.
        output: which of several outputs, by position or name.

    Raises:
        ModelError: the model has several inputs, or several outputs and none was chosen.
    """
    functional = functional_of(model)
    if functional is None:
        return None
    if len(functional.inputs) != 1:
        raise ModelError(
            f"model: has {len(functional.inputs)} inputs ({', '.join(x.name for x in functional.inputs)}); "
            "an audit needs a model of one image"
        )
    chosen = choose_output(functional.outputs, list(functional.output_names), output)
    source = functional.inputs[0]
    value = Value(tuple(source.shape[1:]), source.dtype, source.name)
    nodes: list[Node] = []
    outputs = _flatten(functional, [value], nodes)
    if outputs is None:
        return None
    return Graph(value, outputs[chosen], nodes).pruned()


def choose_output(outputs: list[keras.KerasTensor], names: list[str], output: int | str | None) -> int:
    """Position of the chosen output of a model.

    Raises:
        ModelError: no such output, or several and none chosen.
    """
    listed = ", ".join(f"{i}: {name}" for i, name in enumerate(names))
    if output is None:
        if len(outputs) > 1:
            raise ModelError(
                f"`output`: the model has {len(outputs)} outputs ({listed}); choose one by position or name"
            )
        return 0
    if isinstance(output, str):
        if output not in names:
            raise ModelError(f"`output`: no output named {output!r}; the model has {listed}")
        return names.index(output)
    if not 0 <= output < len(outputs):
        raise ModelError(f"`output`: no output {output}; the model has {listed}")
    return output


def _flatten(functional: Functional, inputs: list[Value], nodes: list[Node]) -> list[Value] | None:
    values: dict[int, Value] = {}
    for symbolic, value in zip(functional.inputs, inputs, strict=True):
        values[id(symbolic)] = value
    depths = functional._nodes_by_depth
    for depth in sorted(depths, reverse=True):
        for source in depths[depth]:
            if not source.operation or source.is_input:
                continue
            if any(id(x) in values for x in source.outputs):
                continue  # the outputs are inputs of this (sub)model
            if any(id(x) not in values for x in source.input_tensors):
                continue
            args, kwargs = tree.map_structure(
                lambda leaf: values[id(leaf)] if isinstance(leaf, keras.KerasTensor) else leaf,
                (source.arguments.args, source.arguments.kwargs),
            )
            op = source.operation
            if isinstance(op, keras.layers.Masking) or getattr(op, "mask_zero", False):
                return None  # masks travel beside the tensors, where this graph does not look
            inner = functional_of(op) if isinstance(op, keras.Model) else None
            if inner is not None:
                inlined = _inline(inner, args, kwargs, nodes)
                if inlined is None:
                    return None
                if inlined:
                    values.update(zip((id(x) for x in source.outputs), inlined, strict=True))
                    continue
            outputs = tuple(Value(tuple(x.shape[1:]), x.dtype, x.name) for x in source.outputs)
            if isinstance(op, keras.layers.Layer) and op._call_has_training_arg:
                kwargs = {key: value for key, value in kwargs.items() if key != "training"}
                op = Inference(op)
            elif GroupedConvolution.serves(op):
                op = GroupedConvolution(op)
            nodes.append(Node(op, args, kwargs, outputs, source.operation.name))
            values.update(zip((id(x) for x in source.outputs), outputs, strict=True))
    return [values[id(x)] for x in functional.outputs]


def _inline(inner: Functional, args: Any, kwargs: Any, nodes: list[Node]) -> list[Value] | None:
    """The values of a nested model's outputs; empty where it has to stay one node."""
    given = [leaf for leaf in tree.flatten((args, kwargs)) if isinstance(leaf, Value)]
    if (
        len(given) != len(inner.inputs)
        or set(kwargs) - {"training", "mask"}
        or isinstance(inner._inputs_struct, dict)
    ):
        return []
    if any(len(value.shape) + 1 != len(x.shape) for value, x in zip(given, inner.inputs, strict=True)):
        return []  # Keras adds or drops an axis here
    for i, x in enumerate(inner.inputs):
        if given[i].dtype != x.dtype:
            cast = Value(given[i].shape, x.dtype, f"{given[i].name}_cast")
            nodes.append(Node(Cast(x.dtype), (given[i],), {}, (cast,), "cast"))
            given[i] = cast
    return _flatten(inner, given, nodes)
