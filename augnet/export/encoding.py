"""Pictures and maps as image files, small ones enlarged: viewers show them no larger than they are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from augnet.plots.colors import color_table

SEEN_PIXELS = 64
"""What is smaller on its longest side is enlarged to about this side, by a whole factor."""

LOSSLESS_PIXELS = 96
"""Pictures up to this side are kept as they are: compression would show in them."""
QUALITY = 90


def picture_format(picture: np.ndarray) -> str:
    """What a picture (height, width, 1 or 3) is kept as: png, above LOSSLESS_PIXELS jpeg."""
    return "png" if max(picture.shape[:2]) <= LOSSLESS_PIXELS else "jpeg"


def encoded_picture(picture: np.ndarray) -> bytes:
    """A uint8 picture (height, width, 1 or 3) in its `picture_format`."""
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    return _saved(image, format=picture_format(picture), quality=QUALITY)


def colored_map(values: np.ndarray) -> bytes:
    """A map (height, width) that is not negative, in the report's colours, its largest value brightest."""
    image = Image.fromarray(_steps(values))
    image.putpalette(color_table("magnitude").tobytes())
    return _saved(image, format="PNG")


def grey_map(values: np.ndarray) -> bytes:
    """The same in 256 steps of grey, for a program that has colours of its own."""
    return _saved(Image.fromarray(_steps(values)), format="PNG")


def _steps(values: np.ndarray) -> np.ndarray:
    largest = float(values.max()) or 1.0
    return np.rint(values / largest * 255).astype(np.uint8)


def _saved(image: Image.Image, **settings: Any) -> bytes:
    factor = max(1, round(SEEN_PIXELS / max(image.size)))
    enlarged = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    enlarged.save(buffer, **settings)
    return buffer.getvalue()
