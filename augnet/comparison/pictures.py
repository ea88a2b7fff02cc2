"""What the page of a comparison shows of one image: its picture, and its heat map in each audit."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, ImageOps

from augnet.config import Config, PreprocessConfig
from augnet.errors import AugnetError
from augnet.sources import ImageRef, Preprocess, Source, open_source
from augnet.storage.reader import Audit

TILE_PIXELS = 120
MAP_COLORS = ("#0b0724", "#b73779", "#fcfdbf")
"""Of no, of half and of the largest sensitivity."""


@dataclass(frozen=True)
class Exhibit:
    """One image, as addresses of PNG pictures that hold their data; "" for what is not there."""

    image_id: str
    picture: str
    heats: tuple[str, ...]


class Exhibits:
    """Makes exhibits of images by name; what cannot be read any more is left out.

    Args:
        audits: the heat maps are theirs, where they stored Jacobians; the pictures are read as the first did.
    """

    def __init__(self, audits: Iterable[Audit]):
        self._audits = tuple(audits)
        self._rows: list[dict[str, int]] = [{} for _ in self._audits]

    def of(self, image_ids: Iterable[str]) -> list[Exhibit]:
        """An exhibit of each image, in order."""
        wanted = list(image_ids)
        for audit, rows in zip(self._audits, self._rows, strict=True):
            column = audit.column("image_id")
            rows.update(
                zip(wanted, pc.index_in(pa.array(wanted, pa.string()), column).to_pylist(), strict=True)
            )
        return [
            Exhibit(
                image_id,
                self._picture(image_id),
                tuple(
                    self._heat(audit, rows[image_id])
                    for audit, rows in zip(self._audits, self._rows, strict=True)
                ),
            )
            for image_id in wanted
        ]

    @cached_property
    def _reader(self) -> tuple[Source, Preprocess] | None:
        run = self._audits[0].run
        try:
            config = Config.model_validate(run["config"])
            settled = PreprocessConfig.model_validate(
                {**run["config"]["preprocess"], "scale": run["preprocess"]["scale"]}
            )
            height, width, channels = run["model"]["input_shape"]
            preprocess = Preprocess(settled, height, width, channels, False, config.images.max_pixels)
            return open_source(config.images), preprocess
        except (AugnetError, OSError, ValueError):  # the images are elsewhere by now
            return None

    def _picture(self, image_id: str) -> str:
        if self._reader is None:
            return ""
        source, preprocess = self._reader
        audit, row = self._audits[0], self._rows[0][image_id]
        uri, label = (_cell(audit, name, row) for name in ("uri", "label"))
        try:
            prepared = preprocess(source.read(ImageRef(image_id, uri, label)))
        except (AugnetError, OSError):
            return ""
        pixels = preprocess.picture(prepared.image)
        return _address(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))

    def _heat(self, audit: Audit, row: int | None) -> str:
        file = None if row is None else _cell(audit, "jacobian_file", row)
        if file is None or row is None:
            return ""
        place, predicted = (_cell(audit, name, row) for name in ("jacobian_row", "predicted"))
        outputs, rows = audit.stored_rows(file, np.array([place]))
        own = 0 if audit.run["model"]["output_count"] == 1 else predicted
        found = np.flatnonzero(outputs[0] == own)
        if not len(found):
            return ""
        magnitude = np.sqrt(np.square(rows[0, found[0]], dtype=np.float64).sum(axis=-1))
        return heat_map(magnitude)


def heat_map(magnitude: np.ndarray) -> str:
    """A (height, width) map that is not negative, its largest value brightest, as the address of a PNG."""
    largest = float(np.nan_to_num(magnitude).max()) or 1.0
    grey = Image.fromarray(np.rint(np.nan_to_num(magnitude) / largest * 255).astype(np.uint8))
    dark, middle, bright = MAP_COLORS
    return _address(ImageOps.colorize(grey, black=dark, mid=middle, white=bright))


def _address(image: Image.Image) -> str:
    factor = max(1, round(TILE_PIXELS / max(image.size)))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((2 * TILE_PIXELS, 2 * TILE_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _cell(audit: Audit, column: str, row: int) -> Any:
    return audit.column(column)[row].as_py()
