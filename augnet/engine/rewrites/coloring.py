"""Rows that share a backward pass, because their outputs see separate parts of the image.

Where outputs have height and width and each reads only a window of the image (segmentation, autoencoders),
those whose windows do not overlap get one colour. One backward pass gives the sum of a colour's rows, and the
windows tell them apart again, exactly. Windows are boxes, so lines and columns are coloured by themselves.

Source: A. R. Curtis, M. J. D. Powell, J. K. Reid, On the estimation of sparse Jacobian matrices, IMA J. Appl.
Math. 13 (1974).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.graph.graph import Graph, Node, Shapes, Value
from augnet.engine.padding import resolved_pads
from augnet.engine.rules.attention import LayerNorm, Softmax
from augnet.engine.rules.casting import Convert
from augnet.engine.rules.combining import Add, Concatenate, Multiply
from augnet.engine.rules.convolution import Convolution, Depthwise, Grouped, Transposed
from augnet.engine.rules.elementwise import Chain, Clip, Elementwise
from augnet.engine.rules.linear import Affine, Dense
from augnet.engine.rules.pooling import AveragePool, MaxPool
from augnet.engine.rules.shaping import Pad, Reshape
from augnet.engine.rules.upsampling import Upsample, UpsampledConvolution

Windows = np.ndarray
"""(position, 2): the first and the last line of the image that each line of a value reads, or column; of
positions that read nothing, the last is before the first."""


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

    def cotangents(self, outputs: Any) -> Any:
        """(colour, batch, K) for outputs (batch, K): 1 for the outputs of each colour."""
        colors = ops.convert_to_tensor(self._colors(), dtype="int32")
        seeds = ops.transpose(ops.one_hot(colors, self.count, dtype=outputs.dtype))
        return ops.broadcast_to(seeds[:, None], (self.count, *outputs.shape))

    def split(self, sums: Any, shape: tuple[int, ...]) -> Any:
        """The rows (batch, K, inputs), given the sum (batch, colour, inputs) of every colour's.

        Args:
            sums: over images of this shape, (height, width) or (height, width, channel).
        """
        batch, places = sums.shape[0], len(self.rows) * len(self.columns)
        made = ops.take(sums, self._colors(), axis=1)
        made = ops.reshape(made, (batch, places, self.channels, shape[0] * shape[1], -1))
        rows, columns = (_inside(self.rows, shape[0]), _inside(self.columns, shape[1]))
        inside = ops.logical_and(rows[:, None, :, None], columns[None, :, None, :])
        inside = ops.reshape(inside, (places, 1, shape[0] * shape[1], 1))
        return ops.reshape(ops.where(inside, made, 0), (batch, places * self.channels, -1))

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


def _separate(windows: Windows) -> np.ndarray:
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


def _windows(graph: Graph, shapes: Shapes) -> dict[Value, tuple[Windows, Windows] | None]:
    """What the lines and columns of every value read that depends on the image; None for all of it."""
    found: dict[Value, tuple[Windows, Windows] | None] = {graph.input: None}
    if len(shapes[graph.input]) >= 2:
        height, width = (np.repeat(np.arange(size)[:, None], 2, 1) for size in shapes[graph.input][:2])
        found[graph.input] = height, width
    for node in graph.nodes:
        read = [value for value in node.inputs if value in found]
        if read:
            known = [windows for value in read if (windows := found[value]) is not None]
            local = len(known) == len(read) and _is_local(node, read, shapes)
            found.update(dict.fromkeys(node.outputs, _passed(node, read, known, shapes) if local else None))
    return found


def _is_local(node: Node, read: list[Value], shapes: Shapes) -> bool:
    """Whether a position of the output reads only a window of positions of the inputs."""
    made, given = shapes[node.outputs[0]], [shapes[value] for value in read]
    if isinstance(node.op, Reshape):
        return given[0][:2] == made[:2] and len(made) >= 2
    if isinstance(node.op, Concatenate):
        return len(made) == 3 and node.op.axis == 3
    if isinstance(node.op, CHANNELS):
        return len(made) == 3
    same = all(len(shape) == len(made) and shape[:2] == made[:2] for shape in given)
    return type(node.op) in REACHES or (isinstance(node.op, ELEMENTS) and same)


def _passed(
    node: Node, read: list[Value], known: list[tuple[Windows, Windows]], shapes: Shapes
) -> tuple[Windows, Windows]:
    """The windows of a local operation's output."""
    reach = REACHES.get(type(node.op))
    if reach is None:
        rows, columns = (_united([windows[axis] for windows in known]) for axis in (0, 1))
    else:
        given, made = shapes[read[0]], shapes[node.outputs[0]]
        rows, columns = (
            _through(*reach(node.op, axis, given, np.arange(made[axis])), known[0][axis]) for axis in (0, 1)
        )
    return rows, columns


def _united(windows: list[Windows]) -> Windows:
    every = np.stack(windows)
    return np.stack([every[..., 0].min(axis=0), every[..., 1].max(axis=0)], axis=1)


def _through(first: np.ndarray, last: np.ndarray, windows: Windows) -> Windows:
    """What positions read that read the positions first .. last of a value with these windows."""
    nothing = [windows[:, 1].max() + 1, -1]
    parts = [windows[max(a, 0) : max(b + 1, 0)] for a, b in zip(first, last, strict=True)]
    return np.array([[part[:, 0].min(), part[:, 1].max()] if len(part) else nothing for part in parts])


Reach = tuple[np.ndarray, np.ndarray]
"""First and last position (output,) of the input that each position of the output reads; some are outside."""


def _of_kernel(op: Convolution | Depthwise, axis: int, given: tuple[int, ...], at: np.ndarray) -> Reach:
    pads = resolved_pads(op.padding, given[:2], op.kernel.shape[:2], op.strides, op.dilation)
    first = at * op.strides[axis] - pads[axis][0]
    return first, first + (op.kernel.shape[axis] - 1) * op.dilation[axis]


def _of_groups(op: Grouped, axis: int, given: tuple[int, ...], at: np.ndarray) -> Reach:
    return _of_kernel(op.parts[0], axis, given, at)


def _of_pool(op: MaxPool | AveragePool, axis: int, given: tuple[int, ...], at: np.ndarray) -> Reach:
    pads = resolved_pads(op.padding, given[:2], op.size, op.strides, (1, 1))
    first = at * op.strides[axis] - pads[axis][0]
    return first, first + op.size[axis] - 1


def _of_transposed(op: Transposed, axis: int, given: tuple[int, ...], at: np.ndarray) -> Reach:
    pads = resolved_pads(op.padding, op.shape[:2], op.kernel.shape[:2], op.strides, (1, 1))
    place = at + pads[axis][0]
    return -((op.kernel.shape[axis] - 1 - place) // op.strides[axis]), place // op.strides[axis]


def _of_upsample(op: Upsample, axis: int, given: tuple[int, ...], at: np.ndarray) -> Reach:
    return at // op.size[axis], at // op.size[axis]


def _of_upsampled(op: UpsampledConvolution, axis: int, given: tuple[int, ...], at: np.ndarray) -> Reach:
    first, last = _of_kernel(op.convolution, axis, op.upsample.sizes(given), at)
    return first // op.upsample.size[axis], last // op.upsample.size[axis]


def _of_pad(op: Pad, axis: int, given: tuple[int, ...], at: np.ndarray) -> Reach:
    before = (op.rows, op.columns)[axis][0]
    return at - before, at - before


REACHES: dict[type, Callable[..., Reach]] = {
    Convolution: _of_kernel,
    Depthwise: _of_kernel,
    Grouped: _of_groups,
    MaxPool: _of_pool,
    AveragePool: _of_pool,
    Transposed: _of_transposed,
    Upsample: _of_upsample,
    UpsampledConvolution: _of_upsampled,
    Pad: _of_pad,
}
ELEMENTS = (Add, Affine, Chain, Clip, Convert, Elementwise, Multiply)
CHANNELS = (Dense, LayerNorm, Softmax)
