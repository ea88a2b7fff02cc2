"""The report's pictures, as PNG bytes. Sensitivity is always in the same colours, so that pages compare."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

MAGNITUDE_COLORS = "magma"
OUTLINE_COLOR = (90, 220, 255)
OUTLINE_PIXELS = 2
TILE_PIXELS = 160
BACKDROP_SHARE = 0.35
"""How much of a heat map tile is the picture below it: enough to see what the heat lies on."""


def picture(image: np.ndarray) -> bytes:
    """PNG of a uint8 picture (height, width, 1, 3 or 4), enlarged in whole pixels to about TILE_PIXELS."""
    return _png(_enlarged(_rgb(image)))


def heat_map(
    heat: np.ndarray, backdrop: np.ndarray, outlines: Sequence[tuple[int, int, int, int]] = ()
) -> bytes:
    """PNG of a magnitude map in MAGNITUDE_COLORS over a faint grey picture; its largest value is brightest.

    Args:
        heat: (height, width), not negative.
        backdrop: uint8 picture (any height, any width, 1, 3 or 4), resized to the map.
        outlines: top, left, bottom, right in pixels of the map, the last two exclusive, of frames to draw.
    """
    strength = (heat / (float(heat.max()) or 1.0))[..., None]
    colors = colormaps[MAGNITUDE_COLORS](strength[..., 0])[..., :3]
    below = Image.fromarray(_rgb(backdrop)).convert("L").resize(heat.shape[::-1], Image.Resampling.BOX)
    grey = np.asarray(below, float)[..., None] / 255
    faint = BACKDROP_SHARE * (1 - strength)
    image = _enlarged((colors * (1 - faint) * 255 + grey * faint * 255).astype(np.uint8))
    for outline in outlines:
        top, left, bottom, right = (edge * image.height // heat.shape[0] for edge in outline)
        corners = (left, top, right - 1, bottom - 1)
        ImageDraw.Draw(image).rectangle(corners, outline=OUTLINE_COLOR, width=OUTLINE_PIXELS)
    return _png(image)


def over_channels(maps: np.ndarray) -> np.ndarray:
    """(height, width) l2 norm over the channels of a (height, width, channel) map."""
    return np.sqrt(np.square(maps, dtype=np.float64).sum(axis=-1))


def histogram(values: np.ndarray, median: float) -> bytes:
    """PNG of the distribution of one statistic, (n,) finite numbers, with its median marked."""
    figure = Figure(figsize=(3.2, 1.5), dpi=130)
    axes = figure.add_axes((0.04, 0.2, 0.92, 0.76))
    low, high = float(values.min()), float(values.max())
    least = max(abs(low), abs(high), 1e-300) * 1e-6  # equal but for rounding: one bar, not noise
    if high - low < least:
        low, high = low - least, high + least
    bins = min(60, max(8, int(np.sqrt(len(values)))))
    axes.hist(values, bins=bins, range=(low, high), color="#3b6ea5")
    axes.axvline(median, color="#c8452d", linewidth=1)
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def _enlarged(image: np.ndarray) -> Image.Image:
    factor = max(1, round(TILE_PIXELS / max(image.shape[:2])))
    return Image.fromarray(image.repeat(factor, axis=0).repeat(factor, axis=1))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return buffer.getvalue()
