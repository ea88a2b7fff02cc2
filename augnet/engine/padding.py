"""What the padding of a window (a convolution, a pool) stands for."""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[int, int]
"""Of height and width."""

Pads = tuple[Pair, Pair]
"""Zeros before and after, of height and of width."""

Padding = str | Pads
"""The zeros, or "same", by TensorFlow's rule (the odd zero goes behind), or "valid": none."""


def resolved_pads(
    padding: Padding,
    sizes: Sequence[int],
    window: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    """The zeros that a padding stands for.

    Args:
        sizes, window, strides, dilation: of height and width, in pixels.
    """
    if not isinstance(padding, str):
        return padding
    if padding == "valid":
        return (0, 0), (0, 0)
    pads = []
    for size, width, stride, dilate in zip(sizes, window, strides, dilation, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilate + 1 - size, 0)
        pads.append((total // 2, total - total // 2))
    return pads[0], pads[1]
