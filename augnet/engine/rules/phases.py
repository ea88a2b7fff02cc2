"""The input gradient of a convolution with strides, as interleaved convolutions without."""

from __future__ import annotations

import numpy as np

from augnet.engine.padding import Pads
from augnet.engine.rules.base import Shape
from augnet.engine.types import Tensor


def phase_kernels(
    kernel: np.ndarray, stride: int, before: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """The kernel of each phase, for a convolution with so many zeros before each axis.

    Input pixel stride * q + r gets g[o] * kernel[r + before + (q - o) * stride] for every o where that tap
    exists.

    Returns:
        (rows, columns, stride, stride, ...), the kernel's tap for a position of the window and a phase, 0
        where there is none; and how far the window reaches before q, per axis.
    """
    taps, back = [], []
    for width, pad in zip(kernel.shape[:2], before, strict=True):
        first, last = (width - 1 - pad) // stride, -((stride - 1 + pad) // stride)
        steps = np.arange(first, last - 1, -1)
        tap = pad + stride * steps[:, None] + np.arange(stride)
        taps.append(np.where((tap >= 0) & (tap < width), tap, width))
        back.append(first)
    rows, columns = taps
    with_zeros = np.pad(kernel, [(0, 1), (0, 1), (0, 0), (0, 0)])
    return with_zeros[rows[:, None, :, None], columns[None, :, None, :]], (back[0], back[1])


def placed(g: Tensor, back: tuple[int, int], window: Shape, shape: Shape, stride: int) -> tuple[Tensor, Pads]:
    """The cotangent, and zeros round it, so that the phases cover the whole input and no more.

    What no input pixel sees (a padding larger than the kernel) is cut away.
    """
    pads = []
    for axis in range(2):
        wanted = -(-shape[axis] // stride)
        before = back[axis]
        pads.append((before, wanted + window[axis] - 1 - before - g.shape[1 + axis]))
    (top, bottom), (left, right) = pads
    height, width = g.shape[1:3]
    g = g[:, max(-top, 0) : height - max(-bottom, 0), max(-left, 0) : width - max(-right, 0)]
    return g, ((max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))
