"""The input gradient of a convolution with strides, as interleaved convolutions without."""

from __future__ import annotations

import numpy as np

from augnet.engine.padding import Pads
from augnet.engine.rules.base import Shape
from augnet.engine.types import Tensor


def phase_taps(size: Shape, stride: int, before: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Which kernel tap each phase reads where.

    Input pixel stride * q + r gets g[o] * kernel[r + before + (q - o) * stride] for every o where that tap
    exists.

    Returns:
        taps (rows, columns, stride, stride, 2), the kernel position for a window position and a phase, -1 for
        none; and how far the window reaches before q, per axis.
    """
    axes, back = [], []
    for width, pad in zip(size, before, strict=True):
        reach = [
            d
            for d in range(-width, width + 1)
            if any(0 <= r + pad + d * stride < width for r in range(stride))
        ]
        back.append(max(reach))
        axes.append(
            [[r + pad + d * stride for r in range(stride)] for d in range(max(reach), min(reach) - 1, -1)]
        )
    taps = np.full((len(axes[0]), len(axes[1]), stride, stride, 2), -1)
    for a, b, i, j in np.ndindex(taps.shape[:4]):
        y, x = axes[0][a][i], axes[1][b][j]
        if 0 <= y < size[0] and 0 <= x < size[1]:
            taps[a, b, i, j] = y, x
    return taps, (back[0], back[1])


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
