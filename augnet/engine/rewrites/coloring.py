"""Rows that share a backward pass, because their outputs see separate parts of the image.

Where outputs have height and width and each reads only a window of the image (segmentation, autoencoders),
those whose windows do not overlap get one colour. One backward pass gives the sum of a colour's rows, and the
windows tell them apart again, exactly. Windows are boxes, so lines and columns are coloured by themselves.

Source: A. R. Curtis, M. J. D. Powell, J. K. Reid, On the estimation of sparse Jacobian matrices, IMA J. Appl.
Math. 13 (1974).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from keras import ops

from augnet.engine.graph.graph import Graph, Node, Shapes, Value
from augnet.engine.rules.base import Shape
from augnet.engine.rules.shaping import Reshape
from augnet.engine.types import Tensor

Lines = np.ndarray
"""(position, 2): the first and the last line of the image that each line of a value reads, or column; of
positions that read nothing, the last is before the first."""

Windows = tuple[Lines, Lines]
"""Of the lines and of the columns of a value."""


@dataclass(frozen=True)
class Coloring:
    """Outputs (height, width, channel) in colours.

    Attributes:
        rows, columns: which part of the image each line and column of the outputs reads.
        row_colors, column_colors: (height,) and (width,) int.
        channels: of the outputs; each has colours of its own.
    """

    rows: np.ndarray
    columns: np.ndarray
    row_colors: np.ndarray
    column_colors: np.ndarray
    channels: int

    @property
    def count(self) -> int:
        """Colours, which is backward passes."""
        return int((self.row_colors.max() + 1) * (self.column_colors.max() + 1) * self.channels)

    def cotangents(self, outputs: Tensor) -> Tensor:
        """(colour, batch, K) for outputs (batch, K): 1 for the outputs of each colour."""
        colors = ops.convert_to_tensor(self._colors(), dtype="int32")
        seeds = ops.transpose(ops.one_hot(colors, self.count, dtype=outputs.dtype))
        return ops.broadcast_to(seeds[:, None], (self.count, *outputs.shape))

    def split(self, sums: Tensor, shape: Shape) -> Tensor:
        """The rows (batch, K, inputs), given the sum (batch, colour, inputs) of every colour's.

        Args:
            sums: over images of this shape, (height, width) or (height, width, channel).
        """
        batch, places = sums.shape[0], len(self.rows) * len(self.columns)
        colored = ops.take(sums, self._colors(), axis=1)
        colored = ops.reshape(colored, (batch, places, self.channels, shape[0] * shape[1], -1))
        rows, columns = (_inside(self.rows, shape[0]), _inside(self.columns, shape[1]))
        inside = ops.logical_and(rows[:, None, :, None], columns[None, :, None, :])
        inside = ops.reshape(inside, (places, 1, shape[0] * shape[1], 1))
        return ops.reshape(ops.where(inside, colored, 0), (batch, places * self.channels, -1))

    def _colors(self) -> np.ndarray:
        """(K,) int, the colour of each output."""
        places = self.row_colors[:, None] * (self.column_colors.max() + 1) + self.column_colors
        return (places[:, :, None] * self.channels + np.arange(self.channels)).reshape(-1)


def _inside(windows: np.ndarray, size: int) -> np.ndarray:
    """(line, position) bool: whether the position is in the line's window."""
    positions = np.arange(size)
    return (positions >= windows[:, :1]) & (positions <= windows[:, 1:])


def coloring(graph: Graph, shapes: Shapes) -> Coloring | None:
    """The colours of the outputs; None where an output may read the whole image."""
    end = graph.output
    while (node := graph.producer(end)) is not None and isinstance(node.op, Reshape):
        end = node.inputs[0]  # the outputs, before they were made flat
    found = _windows(graph, shapes).get(end)
    if found is None or len(shapes[end]) != 3:
        return None
    rows, columns = found
    return Coloring(rows, columns, _separate(rows), _separate(columns), shapes[end][2])


def _separate(windows: Lines) -> np.ndarray:
    """Colours (position,), as few as possible, so that windows of one colour do not overlap."""
    colors = np.zeros(len(windows), int)
    ends: list[int] = []  # of the last window of each colour
    for position in np.argsort(windows[:, 0], kind="stable"):
        first, last = windows[position]
        if first <= last:
            color = next((color for color, end in enumerate(ends) if end < first), len(ends))
            ends[color : color + 1] = [last]
            colors[position] = color
    return colors


def _windows(graph: Graph, shapes: Shapes) -> dict[Value, Windows | None]:
    """What the lines and columns of every value read that depends on the image; None for all of it."""
    found: dict[Value, Windows | None] = {graph.input: None}
    if len(shapes[graph.input]) >= 2:
        height, width = (np.repeat(np.arange(size)[:, None], 2, 1) for size in shapes[graph.input][:2])
        found[graph.input] = height, width
    for node in graph.nodes:
        read = [value for value in node.inputs if value in found]
        if read:
            found.update(dict.fromkeys(node.outputs, _passed(node, read, found, shapes)))
    return found


def _passed(
    node: Node, read: list[Value], found: dict[Value, Windows | None], shapes: Shapes
) -> Windows | None:
    """The windows of what a node makes of values that depend on the image."""
    given = [windows for value in read if (windows := found[value]) is not None]
    if node.rule is None or len(given) < len(read):
        return None
    inputs = [shapes[value] for value in read]
    axes = []
    for axis in (0, 1):
        reach = node.rule.reach(axis, inputs, shapes[node.outputs[0]])
        if reach is None:
            return None
        axes.append(_united([_followed(*reach, windows[axis]) for windows in given]))
    return axes[0], axes[1]


def _united(windows: list[Lines]) -> Lines:
    every = np.stack(windows)
    return np.stack([every[..., 0].min(axis=0), every[..., 1].max(axis=0)], axis=1)


def _followed(first: np.ndarray, last: np.ndarray, windows: Lines) -> Lines:
    """What positions read that read the positions first .. last of a value with these windows."""
    if first is last and first.min() >= 0 and first.max() < len(windows):
        return windows[first]
    nothing = [windows[:, 1].max() + 1, -1]
    parts = [windows[max(a, 0) : max(b + 1, 0)] for a, b in zip(first, last, strict=True)]
    return np.array([[part[:, 0].min(), part[:, 1].max()] if len(part) else nothing for part in parts])
