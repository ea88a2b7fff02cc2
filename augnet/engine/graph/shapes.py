"""The shape of every value of a graph, for images of one shape."""

from __future__ import annotations

from keras import ops

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Graph, Shapes, Value
from augnet.engine.types import Tensor


def declared_shapes(graph: Graph, input_shape: tuple[int, ...]) -> Shapes | None:
    """The shapes that the values of a graph are known to have; None where one is open or not known, ()."""
    values = [graph.input, *(value for node in graph.nodes for value in node.outputs)]
    if graph.input.shape != input_shape or any(not value.shape or None in value.shape for value in values):
        return None
    return {value: tuple(size for size in value.shape if size is not None) for value in values}


def shapes_of(graph: Graph, input_shape: tuple[int, ...], dtype: str, known: Shapes | None = None) -> Shapes:
    """Every value's shape without the batch, for images of this shape; traced, not run.

    Args:
        known: shapes of values; only the nodes that make others are traced.
    """
    shapes: Shapes = {graph.input: input_shape} | (known or {})
    unknown = [node for node in graph.nodes if any(value not in shapes for value in node.outputs)]

    def trace(x: Tensor) -> Tensor:
        tensors: dict[Value, Tensor] = {graph.input: x}
        for node in unknown:
            for value in node.inputs:
                if value not in tensors:
                    tensors[value] = ops.zeros((x.shape[0], *shapes[value]), value.dtype)
            node.run(tensors)
            shapes.update({value: tuple(tensors[value].shape[1:]) for value in node.outputs})
        return x

    if unknown:
        backend.compiled(trace, [((2, *input_shape), dtype)], weights_as_arguments=True)
    return shapes
