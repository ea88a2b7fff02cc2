"""What convolutions and dense layers have in common: a kernel, a bias, and what can be folded into them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import keras
import numpy as np

from augnet.engine.backends import backend
from augnet.engine.padding import Pads, Pair, resolved_pads
from augnet.engine.rules.affine import Affine
from augnet.engine.rules.base import Reach, Rule, Shape
from augnet.engine.rules.registry import weights_of
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Weighted(Rule):
    """A rule that is linear in its input, by a kernel, plus a bias (outputs,).

    Attributes:
        input_axis: the axis of the kernel that runs over the input's channels.
    """

    kernel: np.ndarray
    bias: np.ndarray | None = None
    input_axis: ClassVar[int]

    @property
    def adds_zeros(self) -> bool:
        """Whether zeros are put round the input."""
        return False

    @abstractmethod
    def output_sums(self, kernel: np.ndarray) -> np.ndarray:
        """A kernel of this one's shape, summed to (outputs,)."""

    def scale_outputs(self, scale: np.ndarray) -> np.ndarray:
        """The kernel, float64, with each output's weights times its scale (outputs,)."""
        return self.kernel.astype(np.float64) * scale

    def affine_after(self, scale: np.ndarray, shift: np.ndarray) -> Self:
        """This rule, its output channels then scaled and shifted; both (outputs,) float64."""
        kernel = self.scale_outputs(scale)
        return replace(self, kernel=kernel, bias=shift if self.bias is None else self.bias * scale + shift)

    def affine_before(self, scale: np.ndarray, shift: np.ndarray) -> list[Rule] | None:
        """This rule after its input channels are scaled and shifted, both (inputs,) float64; None where it
        cannot be without them.
        """
        size = [1] * self.kernel.ndim
        size[self.input_axis] = len(scale)
        kernel = self.kernel.astype(np.float64)
        scaled = kernel * scale.reshape(size)
        if not shift.any():
            return [replace(self, kernel=scaled)]
        if not self.adds_zeros:
            more = self.output_sums(kernel * shift.reshape(size))
            return [replace(self, kernel=scaled, bias=more if self.bias is None else self.bias + more)]
        if not scale.all() or (scale == 1).all():
            return None  # the shift has to stay: the zeros round the image do not get it
        return [Affine(shift=shift / scale), replace(self, kernel=scaled)]


@dataclass(frozen=True, eq=False)
class Windowed(Weighted):
    """A convolution over height and width; kernel (height, width, ...).

    Attributes:
        padding: "same", "valid" or zeros before and after per axis.
    """

    strides: tuple[int, int] = (1, 1)
    padding: str | Pads = "valid"
    dilation: tuple[int, int] = (1, 1)
    fuses_on_cpu: ClassVar[bool] = False
    input_axis: ClassVar[int] = 2

    @property
    def adds_zeros(self) -> bool:
        return bool(self.padding != "valid" and (self.padding == "same" or np.any(self.padding)))

    def pads(self, sizes: Sequence[int]) -> Pads:
        """Zeros round an input of this height and width."""
        return resolved_pads(self.padding, sizes, self.kernel.shape[:2], self.strides, self.dilation)

    def pads_back(self, sizes: Sequence[int]) -> Pads:
        """The zeros round its cotangents, for an input of these sizes; below zero where they are cut."""
        reach = [(w - 1) * dilate for w, dilate in zip(self.kernel.shape[:2], self.dilation, strict=True)]
        rows, columns = ((r - a, r - b) for r, (a, b) in zip(reach, self.pads(sizes), strict=True))
        return rows, columns

    def plus_bias(self, output: Tensor) -> Tensor:
        """The output (batch, height, width, outputs) with the bias."""
        if self.bias is None:
            return output
        return backend.bias_add(output, backend.constant(self.bias, output.dtype))

    def key(self, shape: Shape) -> str:
        """What it computes for an input of this shape, in words, see Kernels.choose."""
        pads = self.pads(shape[:2])
        return f"{self.kernel.shape} stride {self.strides} pads {pads} dilation {self.dilation}"

    def padded_before(self, pads: Pads) -> Self | None:
        """This rule after so many zeros are put round its input; None where it cannot be."""
        if self.padding == "same" or min(map(min, pads)) < 0:
            return None
        own = ((0, 0), (0, 0)) if isinstance(self.padding, str) else self.padding
        rows, columns = ((a + c, b + d) for (a, b), (c, d) in zip(pads, own, strict=True))
        return replace(self, padding=(rows, columns))

    def reach(self, axis: int, inputs: Sequence[Shape], output: Shape) -> Reach:
        return self.window(axis, inputs[0][:2], np.arange(output[axis]))

    def window(self, axis: int, sizes: Sequence[int], positions: np.ndarray) -> Reach:
        """What these positions of the output read, of an input of this height and width."""
        first = positions * self.strides[axis] - self.pads(sizes)[axis][0]
        return first, first + (self.kernel.shape[axis] - 1) * self.dilation[axis]


def image_kernel(variable: keras.Variable) -> np.ndarray:
    """The kernel of a convolution over an image, or over steps as over an image one pixel wide."""
    kernel = weights_of(variable)
    return kernel if kernel.ndim == 4 else kernel[:, None]


def window_of(layer: Op) -> tuple[Pair, str, Pair]:
    """Strides, padding and dilation of such a layer."""
    strides, dilation = ((tuple(sizes) * 2)[:2] for sizes in (layer.strides, layer.dilation_rate))
    return strides, layer.padding, dilation
