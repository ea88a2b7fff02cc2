"""The end of a model: a final softmax or sigmoid, found and taken off.

A saturated softmax or sigmoid has a Jacobian of almost nothing; the logits before it have one. Taking it off
is exact: what remains is the same graph with the same variables, one operation shorter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras

from augnet.engine.graph.graph import Cast, Graph, Inference, Node, Value, is_altered
from augnet.engine.types import Tensor

FUSED = keras.layers.Dense | keras.layers.Conv1D | keras.layers.Conv2D
"""Layers that may carry an activation of their own."""


@dataclass(frozen=True)
class WithoutActivation(Inference):
    """A layer with its fused activation left out, on the layer's own variables."""

    clone: keras.layers.Layer

    def __call__(self, x: Tensor) -> Tensor:  # (batch, ...) tensors
        trainable = [variable.value for variable in self.layer.trainable_variables]
        other = [variable.value for variable in self.layer.non_trainable_variables]
        outputs, _ = self.clone.stateless_call(trainable, other, x)
        return outputs


def without_activation(layer: keras.layers.Layer, value: Value) -> WithoutActivation:
    """The layer, called without its fused activation."""
    config = layer.get_config()
    config["activation"] = None
    config["name"] = f"{layer.name}_linear"
    clone = type(layer).from_config(config)
    clone.build((None, *value.shape))
    # Trained and frozen weights are matched by list, so the clone has to be frozen the same way.
    clone.trainable = layer.trainable
    return WithoutActivation(layer, clone)


def split_end(graph: Graph) -> tuple[Graph, str | None]:
    """The graph up to its logits, and what was taken off: "softmax", "sigmoid" or None.

    A softmax over part of an image's outputs is left where a reshape follows it.
    """
    nodes, output = list(graph.nodes), graph.output
    while True:
        node = graph.producer(output)
        if node is None or len(node.inputs) != 1:
            return graph, None
        if not _passes_through(node):
            break
        output = node.inputs[0]
    source = node.inputs[0]
    kind = activation_of(node, output)
    if kind is None:
        return graph, None
    reshaped = output.shape != graph.output.shape
    if reshaped and math.prod(size or 1 for size in graph.output.shape) != output.shape[-1]:
        return graph, None  # a softmax over part of the outputs, hidden behind a reshape
    if isinstance(node.source, FUSED):
        logits = Value(output.shape, output.dtype, f"{output.name}_logits")
        bare = Node(without_activation(node.source, source), (source,), {}, (logits,), f"{node.name}_linear")
        nodes[nodes.index(node)] = bare
    else:
        nodes.remove(node)
        logits = source
    return Graph(graph.input, logits, nodes).pruned(), kind


def activation_of(node: Node, value: Value) -> str | None:
    """ "softmax" or "sigmoid" when that is the last thing the node does."""
    op = node.source
    last = (-1, len(value.shape))
    if isinstance(op, keras.layers.Softmax):
        return "softmax" if op.axis in last and len(node.inputs) == 1 else None
    if isinstance(op, keras.layers.Layer):
        if not isinstance(op, keras.layers.Activation | FUSED) or is_altered(op):
            return None
        return {keras.activations.softmax: "softmax", keras.activations.sigmoid: "sigmoid"}.get(op.activation)
    name = type(op).__name__
    if name == "Softmax" and getattr(op, "axis", None) in last:
        return "softmax"
    return "sigmoid" if name == "Sigmoid" else None


def _passes_through(node: Node) -> bool:
    """Whether the node changes no value at inference: a dropout, an identity, a cast, a reshape."""
    op = node.source
    if isinstance(op, keras.layers.Activation):
        return op.activation is keras.activations.linear
    identity = (keras.layers.Dropout, keras.layers.Identity, keras.layers.Flatten, keras.layers.Reshape)
    return isinstance(op, (*identity, Cast)) or type(op).__name__ in ("Cast", "Identity", "Reshape")
