"""Pictures and small maps of the images that the page holds, many to a file.

A sheet has the pictures of SHEET_IMAGES images as one WebP, cell by cell, and the bytes of their maps. The
page loads a sheet when the first of its images comes into view.
"""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from augnet.report.assets import data_script, numbers, packed

SHEET_IMAGES = 48
SHEET_COLUMNS = 8
LOSSLESS_PIXELS = 64
"""Pictures up to this side are kept as they are: compression would show in them."""
QUALITY = 88


def sheets(gallery: Mapping[str, np.ndarray], image_ids: list[str]) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of every sheet, of images in this order; encoded in parallel, the same every time.

    Args:
        gallery: as `augnet.statistics.gallery.exhibit_arrays` gives it.
        image_ids: some or all of the gallery's.
    """
    place = {image_id: k for k, image_id in enumerate(gallery.get("image_id", ()))}
    chosen = np.array([place[image_id] for image_id in image_ids], int)
    starts = range(0, len(chosen), SHEET_IMAGES)

    def sheet(start: int) -> tuple[str, bytes]:
        number, part = start // SHEET_IMAGES, chosen[start : start + SHEET_IMAGES]
        pictures = gallery["thumbnail"][part]
        value = {
            "pictures": picture_address(grid(pictures), max(pictures.shape[1:3]) <= LOSSLESS_PIXELS),
            "views": packed(gallery["views"][part]),
            "scale": [numbers(scale) for scale in gallery["scale"][part]],
        }
        name = f"images-{number:03d}"
        return f"{name}.js", data_script(name, value)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(sheet, starts)


def grid(pictures: np.ndarray) -> np.ndarray:
    """(n, h, w, c) pictures as one, SHEET_COLUMNS side by side."""
    count, height, width, channels = pictures.shape
    rows = math.ceil(count / SHEET_COLUMNS)
    cells = np.zeros((rows * SHEET_COLUMNS, height, width, channels), np.uint8)
    cells[:count] = pictures
    cells = cells.reshape(rows, SHEET_COLUMNS, height, width, channels)
    return cells.transpose(0, 2, 1, 3, 4).reshape(rows * height, SHEET_COLUMNS * width, channels)


def picture_address(picture: np.ndarray, lossless: bool) -> str:
    """A data address of a uint8 picture (height, width, 1 or 3): unlike a file's, a canvas may read it."""
    rgb = np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture[..., :3]
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "WEBP", lossless=lossless, quality=QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
