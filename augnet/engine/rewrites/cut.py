"""The narrowest cut: where a graph can be parted so that the fewest numbers cross.

If every path from input to output crosses d numbers, J = J_head (R x d) times J_trunk (d x inputs): d
backward passes through the trunk instead of R. The input itself is a cut too; then nothing is pulled back at
all, and as many tangents as there are inputs are pushed forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from augnet.engine.graph.graph import Graph, Node, Shapes, Value
from augnet.engine.types import is_float


@dataclass(frozen=True)
class Cut:
    """A graph in two parts.

    Attributes:
        trunk: nodes from the input to the cut; empty where the cut is the input.
        values: what crosses.
        head: nodes from the cut to the output.
        width: numbers per image that cross.
    """

    trunk: list[Node]
    values: tuple[Value, ...]
    head: list[Node]
    width: int


def narrowest_cut(graph: Graph, shapes: Shapes, rows: int) -> Cut | None:
    """The narrowest of all cuts between consecutive nodes, if it is narrower than the rows wanted.

    Of several equally narrow ones it is the last, so that the head stays small.
    """
    if any(_moves_batch(node) for node in graph.nodes):
        return None
    last_use: dict[Value, int] = {graph.output: len(graph.nodes)}
    depends = {graph.input}
    for i, node in enumerate(graph.nodes):
        for value in node.inputs:
            if value is not graph.output:
                last_use[value] = i
        if any(value in depends for value in node.inputs):
            depends.update(node.outputs)
    best: tuple[int, int, tuple[Value, ...]] | None = None
    live = [graph.input]
    for i in range(len(graph.nodes)):  # the cut before node i
        crossing = tuple(value for value in live if last_use.get(value, -1) >= i)
        width = sum(math.prod(shapes[value]) for value in crossing)
        # A condition has no rows; what it decides is behind the cut or before it.
        numbers = all(is_float(value.dtype) for value in crossing)
        if numbers and graph.output not in crossing and (best is None or width <= best[0]):
            best = width, i, crossing
        live = [*crossing, *(value for value in graph.nodes[i].outputs if value in depends)]
    if best is None or best[0] >= rows:
        return None
    width, at, crossing = best
    return Cut(graph.nodes[:at], crossing, graph.nodes[at:], width)


def _moves_batch(node: Node) -> bool:
    """Whether pixels become images or the other way round, so that what crosses a cut is not of one image."""
    return node.rule is None and type(node.op).__name__ == "Reshape"
