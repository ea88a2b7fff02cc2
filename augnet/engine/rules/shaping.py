"""Operations that only move elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers, ops

from augnet.engine.padding import Pads, Pair
from augnet.engine.rules.base import LinearRule, Reach, Rule, Shape, same_positions
from augnet.engine.rules.linear import Linear
from augnet.engine.rules.registry import Call, serves
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Reshape(LinearRule):
    """Another shape, without batch."""

    shape: Shape

    def __call__(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (x.shape[0], *self.shape))

    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        return ops.reshape(g, (g.shape[0], *shape))

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach | None:
        kept = len(output) >= 2 and inputs[0][:2] == output[:2]
        return same_positions(axis, output) if kept else None


@dataclass(frozen=True, eq=False)
class Permute(LinearRule):
    """Another order of axes; order counts from 1, the batch being 0."""

    order: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        return ops.transpose(x, (0, *self.order))

    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        return ops.transpose(g, (0, *(int(i) + 1 for i in np.argsort(self.order))))


@dataclass(frozen=True, eq=False)
class Pad(LinearRule):
    """Zeros round height and width; negative amounts crop."""

    rows: Pair
    columns: Pair

    def __call__(self, x: Tensor) -> Tensor:
        return _padded(x, self.rows, self.columns)

    def transposed(self, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        return _padded(g, *_negative(self.rows, self.columns))

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach:
        read = np.arange(output[axis]) - (self.rows, self.columns)[axis][0]
        return read, read


def _padded(x: Tensor, rows: Pair, columns: Pair) -> Tensor:
    height, width = x.shape[1:3]
    x = x[:, max(-rows[0], 0) : height - max(-rows[1], 0), max(-columns[0], 0) : width - max(-columns[1], 0)]
    pads = [(0, 0), *((max(a, 0), max(b, 0)) for a, b in (rows, columns)), (0, 0)]
    return ops.pad(x, pads) if any(max(pair) for pair in pads) else x


def as_image(call: Call, *rules: Rule) -> list[Rule]:
    """Rules of images; a sequence (step, channel) is taken for an image that is one pixel wide."""
    if len(call.inputs[0]) == 3:
        return list(rules)
    length, channels = call.inputs[0]
    return [Reshape((length, 1, channels)), *rules, Reshape(call.output)]


@serves(layers.Reshape, layers.Flatten, "Reshape", "Squeeze", "ExpandDims")
def _reshape(source: Op, call: Call) -> list[Rule] | None:
    # An operation may move elements from one image's axes into the batch: that is not what the rule does.
    same = len(call.inputs) == 1 and math.prod(call.inputs[0]) == math.prod(call.output)
    return [Reshape(call.output)] if same else None


@serves(layers.Permute)
def _permute(layer: Op, call: Call) -> list[Rule]:
    return [Permute(tuple(layer.dims))]


def _around(amounts: Sequence[Any]) -> Pads:
    """What a layer puts round an image, or before and after steps, or takes away there."""
    rows, columns = amounts if isinstance(amounts[0], tuple | list) else (amounts, (0, 0))
    return tuple(rows), tuple(columns)


def _negative(rows: Pair, columns: Pair) -> Pads:
    return (-rows[0], -rows[1]), (-columns[0], -columns[1])


@serves(layers.ZeroPadding1D, layers.ZeroPadding2D)
def _zero_padding(layer: Op, call: Call) -> list[Rule]:
    return as_image(call, Pad(*_around(layer.padding)))


@serves(layers.Cropping1D, layers.Cropping2D)
def _cropping(layer: Op, call: Call) -> list[Rule]:
    return as_image(call, Pad(*_negative(*_around(layer.cropping))))


@serves(layers.CenterCrop)
def _center_crop(layer: Op, call: Call) -> list[Rule]:
    if len(call.inputs[0]) == 3:
        (height, width), (rows, columns) = call.inputs[0][:2], call.output[:2]
        if height >= rows and width >= columns:
            top, left = (height - rows) // 2, (width - columns) // 2
            return [Pad((-top, top + rows - height), (-left, left + columns - width))]
    return [Linear(call.node.op)]  # Keras resizes what is smaller
