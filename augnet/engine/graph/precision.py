"""The same graph in another arithmetic: float64 for a check, bfloat16 for speed, float32 for a mixed one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
from keras import tree

from augnet.engine.backends import backend
from augnet.engine.graph.final_activation import WithoutActivation, without_activation
from augnet.engine.graph.graph import Cast, Graph, Inference, Node, Value
from augnet.engine.types import Op, is_float
from augnet.errors import ConfigError, ModelError


def refuse_missing(precision: str) -> None:
    """Raise ConfigError where this machine's device does not have the precision."""
    if precision == "tf32" and not backend.has_tensor_float_32():
        raise ConfigError(
            "`precision`: tf32 needs an NVIDIA GPU of the Ampere generation or later, and there is none "
            "here; use float32, or bfloat16 where that is fast"
        )


def in_precision(graph: Graph, dtype: str) -> Graph:
    """The graph with every floating-point layer computing in dtype; itself when it already does.

    In bfloat16 its images and outputs stay float32: they are converted on the way in and on the way out. So
    do the weights, which layers convert when they are used.

    Layers are made again from their configuration with copies of their weights; the model is left as it is.

    Raises:
        ModelError: a layer cannot be made again from its configuration.
    """
    if all(computes_in(node, dtype) for node in graph.nodes) and graph.input.dtype == dtype:
        return graph
    if dtype == "bfloat16":
        return _between_casts(_retyped(graph, dtype), "float32")
    return _retyped(graph, dtype)


def _between_casts(graph: Graph, outside: str) -> Graph:
    """The graph for images, and with outputs, of another dtype than it computes in."""
    first, last = Value(graph.input.shape, outside, "image"), Value(graph.output.shape, outside, "outputs")
    into = Node(Cast(graph.input.dtype), (first,), {}, (graph.input,), "cast_in")
    out = Node(Cast(outside), (graph.output,), {}, (last,), "cast_out")
    return Graph(first, last, [into, *graph.nodes, out])


def _retyped(graph: Graph, dtype: str) -> Graph:
    values: dict[Value, Value] = {}
    clones: dict[int, keras.layers.Layer] = {}

    def retyped(value: Value) -> Value:
        if value not in values:
            values[value] = Value(value.shape, dtype if is_float(value.dtype) else value.dtype, value.name)
        return values[value]

    def retyped_op(node: Node, args: Any, kwargs: Any) -> Op:
        op: Op = node.op
        layer = node.source
        if not isinstance(layer, keras.layers.Layer):
            return Cast(dtype) if type(op).__name__ == "Cast" and is_float(op.dtype) else op
        if id(layer) not in clones:
            clones[id(layer)] = _clone(layer, args, kwargs, dtype)
        clone = clones[id(layer)]
        if isinstance(op, WithoutActivation):
            return without_activation(clone, args[0])
        return replace(op, layer=clone) if isinstance(op, Inference) else clone

    nodes = []
    for node in graph.nodes:
        args, kwargs = tree.map_structure(
            lambda leaf: retyped(leaf) if isinstance(leaf, Value) else leaf, (node.args, node.kwargs)
        )
        outputs = tuple(retyped(value) for value in node.outputs)
        nodes.append(Node(retyped_op(node, args, kwargs), args, kwargs, outputs, node.name))
    return Graph(retyped(graph.input), retyped(graph.output), nodes)


def computes_in(node: Node, dtype: str) -> bool:
    """Whether all that the node does with floats is done in dtype."""
    op = node.op
    if isinstance(op, Cast):
        return not is_float(op.dtype) or op.dtype == dtype
    if isinstance(node.source, keras.layers.Layer):
        return all(inner.compute_dtype == dtype for inner in node.source._flatten_layers())
    return all(value.dtype == dtype for value in node.outputs if is_float(value.dtype))


def _clone(layer: keras.layers.Layer, args: Any, kwargs: Any, dtype: str) -> keras.layers.Layer:
    """The layer made again, built for arguments like these, with its weights."""
    policy = "mixed_bfloat16" if dtype == "bfloat16" else dtype
    try:
        if isinstance(layer, keras.layers.Lambda):
            clone = keras.layers.Lambda(
                layer.function, arguments=layer.arguments, dtype=policy, name=layer.name
            )
        else:
            clone = type(layer).from_config(_with_dtype(layer.get_config(), policy))
        zeros = tree.map_structure(
            lambda leaf: (
                keras.ops.zeros((1, *(size or 32 for size in leaf.shape)), leaf.dtype)
                if isinstance(leaf, Value)
                else leaf
            ),
            (args, kwargs),
        )
        clone(*zeros[0], **zeros[1])  # builds it
        for target, source in zip(clone.weights, layer.weights, strict=True):
            target.assign(keras.ops.cast(source.value, target.dtype))
        for inner in clone._flatten_layers():
            if isinstance(inner, keras.layers.Normalization):
                inner.finalize_state()  # what it computes with is derived from its weights
    except Exception as error:  # whatever a user's layer raises, the remedy is the same
        raise ModelError(
            f"`precision`: layer {layer.name!r} ({type(layer).__name__}) cannot be made again in "
            f"{dtype} ({type(error).__name__}: {error}); give it a get_config, or use its own precision"
        ) from error
    return clone


def _with_dtype(config: Any, dtype: str) -> Any:
    """A layer configuration with every dtype policy in it, nested layers included, replaced."""
    if isinstance(config, dict):
        return {key: dtype if key == "dtype" else _with_dtype(value, dtype) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_dtype(item, dtype) for item in config)
    return config
