"""The shape of every value of a graph, for images of one shape."""

from __future__ import annotations

from typing import Any

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Graph, Shapes, Value


def declared_shapes(graph: Graph, input_shape: tuple[int, ...]) -> Shapes | None:
    """The shapes that the values of a graph are known to have; None where one is open or not known, ()."""
    values = [graph.input, *(value for node in graph.nodes for value in node.outputs)]
    if graph.input.shape != input_shape or any(not value.shape or None in value.shape for value in values):
        return None
    return {value: tuple(size for size in value.shape if size is not None) for value in values}


def shapes_of(graph: Graph, input_shape: tuple[int, ...], dtype: str) -> Shapes:
    """Every value's shape without the batch, for images of this shape; traced, not run."""
    shapes: Shapes = {}

    def trace(x: Any) -> Any:
        tensors: dict[Value, Any] = graph.run({graph.input: x})
        shapes.update({value: tuple(tensor.shape[1:]) for value, tensor in tensors.items()})
        return tensors[graph.output]

    backend.compiled(trace, [((2, *input_shape), dtype)], weights_as_arguments=True)
    return shapes
