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
from PIL import Image

from augnet.audits.pictures import AuditedPictures
from augnet.plots.colors import LEVELS, color_table
from augnet.sources import ImageRef
from augnet.storage.reader import Audit

TILE_PIXELS = 120
COLUMNS = ("image_id", "uri", "label", "predicted", "jacobian_file", "jacobian_row")


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
        self._pictures = AuditedPictures(self._audits[0])

    def of(self, image_ids: Iterable[str]) -> list[Exhibit]:
        """An exhibit of each image, in order."""
        wanted = list(image_ids)
        rows = [self._rows_of(table, wanted) for table in self._tables]
        return [
            Exhibit(
                image_id,
                self._picture(rows[0][k]),
                tuple(self._heat(audit, part[k]) for audit, part in zip(self._audits, rows, strict=True)),
            )
            for k, image_id in enumerate(wanted)
        ]

    @cached_property
    def _tables(self) -> list[pa.Table]:
        return [audit.columns(COLUMNS) for audit in self._audits]

    @staticmethod
    def _rows_of(table: pa.Table, image_ids: list[str]) -> list[dict[str, Any]]:
        """COLUMNS of each image; {} of one that is not there."""
        places = pc.index_in(pa.array(image_ids, pa.string()), table["image_id"]).to_pylist()
        return [{} if place is None else table.slice(place, 1).to_pylist()[0] for place in places]

    def _picture(self, row: dict[str, Any]) -> str:
        pixels = self._pictures.of(ImageRef(row["image_id"], row["uri"], row["label"])) if row else None
        if pixels is None:
            return ""
        return _address(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))

    def _heat(self, audit: Audit, row: dict[str, Any]) -> str:
        if row.get("jacobian_file") is None:
            return ""
        outputs, rows = audit.stored_rows(row["jacobian_file"], np.array([row["jacobian_row"]]))
        own = 0 if audit.has_one_output else row["predicted"]
        found = np.flatnonzero(outputs[0] == own)
        if not len(found):
            return ""
        return heat_map(np.sqrt(np.square(rows[0, found[0]], dtype=np.float64).sum(axis=-1)))


def heat_map(magnitude: np.ndarray) -> str:
    """A (height, width) map that is not negative, its largest value brightest, as the address of a PNG."""
    known = np.nan_to_num(magnitude)
    levels = np.rint(known / (float(known.max()) or 1.0) * (LEVELS - 1)).astype(np.uint8)
    return _address(Image.fromarray(color_table("magnitude")[levels]))


def _address(image: Image.Image) -> str:
    factor = max(1, round(TILE_PIXELS / max(image.size)))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((2 * TILE_PIXELS, 2 * TILE_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
