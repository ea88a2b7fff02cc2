"""Outputs with height and width (segmentation, autoencoders) as one number per channel."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from augnet.engine.graph.graph import Graph, Node, Value
from augnet.engine.rules.affine import Affine
from augnet.engine.rules.base import Rule
from augnet.engine.rules.global_pooling import GlobalAverage
from augnet.engine.rules.shaping import Pad, Reshape
from augnet.engine.types import Tensor
from augnet.errors import ConfigError, ModelError

AT = re.compile(r"at:\[\s*(\d+)\s*,\s*(\d+)\s*\]")


def _steps(shape: tuple[int, ...], reduce: str) -> list[Rule]:
    """The reduction of outputs (n, height, width, channel), as operations one after the other."""
    if len(shape) != 4:
        raise ModelError(
            f"`reduce`: the model's outputs have shape {shape[1:]}, not (height, width, channel)"
        )
    _, height, width, channels = shape
    if reduce == "mean":
        return [GlobalAverage()]
    if reduce == "sum":
        return [GlobalAverage(), Affine(np.asarray(float(height * width)))]
    at = AT.fullmatch(reduce)
    if at is None:
        raise ConfigError(f"`reduce`: {reduce!r} is not mean, sum or at:[y,x]")
    y, x = int(at[1]), int(at[2])
    if y >= height or x >= width:
        raise ConfigError(f"`reduce`: at:[{y},{x}] is outside the model's output of {height} x {width}")
    return [Pad((-y, y + 1 - height), (-x, x + 1 - width)), Reshape((channels,))]


def reduced_function(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...], reduce: str
) -> Callable[[Tensor], Tensor]:
    """The function with its outputs (n, height, width, channel) reduced to (n, channel)."""
    steps = _steps(shape, reduce)

    def apply(x: Tensor) -> Tensor:
        outputs = function(x)
        for step in steps:
            outputs = step(outputs)
        return outputs

    return apply


def reduced_graph(graph: Graph, shape: tuple[int, ...], reduce: str) -> Graph:
    """The graph with the reduction at its end."""
    nodes, value = list(graph.nodes), graph.output
    for step in _steps(shape, reduce):
        reduced = Value((), value.dtype, f"{value.name}_{reduce}")
        nodes.append(Node(step, (value,), {}, (reduced,), "reduce"))
        value = reduced
    return Graph(graph.input, value, nodes)
