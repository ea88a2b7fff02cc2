"""The two sides of a comparison: the images compared of each audit, their slices and their resamples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.comparison.bootstrap import Bootstrap
from augnet.comparison.join import Joined, join_images
from augnet.statistics.describe import Slicer, cut_by
from augnet.storage.catalog import Statistic
from augnet.storage.reader import Audit

COLUMNS = ("image_id", "label", "predicted", "correct")
"""Of `statistics`, what is compared beside `shared_scalars`: together some 200 bytes for an image."""


@dataclass(frozen=True)
class Side:
    """One of two audits, as far as it is compared.

    Attributes:
        table: COLUMNS and `shared_scalars` of the n images compared.
        slicers: what cuts these images into slices, by name: the label and the metadata.
        bootstrap: of these images; where the images are the same, both sides hold the same one.
    """

    table: pa.Table
    slicers: dict[str, Slicer]
    bootstrap: Bootstrap

    def values(self, name: str) -> np.ndarray:
        """(n,) float64 of a column of numbers or truth values; NaN where it is null."""
        return np.array(pc.cast(self.table[name], pa.float64()).to_numpy())


def open_sides(before: Audit, after: Audit) -> tuple[Joined, tuple[Side, Side]]:
    """Both audits joined by image: the images in both of each; all of each where there is none in both."""
    scalars = shared_scalars([before, after])
    found = [_read(audit, scalars) for audit in (before, after)]
    images = join_images(*(table for table, _ in found))
    if not len(images):
        first, second = (
            Side(table, slicers, Bootstrap(len(table), seed)) for seed, (table, slicers) in enumerate(found)
        )
        return images, (first, second)
    bootstrap = Bootstrap(len(images))
    first, second = (
        Side(
            _rows(table, rows),
            {name: replace(part, codes=part.codes[rows]) for name, part in slicers.items()},
            bootstrap,
        )
        for (table, slicers), rows in zip(found, (images.before, images.after), strict=True)
    )
    return images, (first, second)


def _read(audit: Audit, scalars: Iterable[str]) -> tuple[pa.Table, dict[str, Slicer]]:
    """COLUMNS and statistics of every image, and what cuts them into slices; metadata itself is not kept."""
    table = audit.columns((*COLUMNS, *scalars, "metadata"))
    slicers, _ = cut_by(table.column, ("label",))
    return table.drop_columns(["metadata"]), slicers


def shared_scalars(audits: Sequence[Audit]) -> dict[str, Statistic]:
    """The statistics of one number that all of the audits have, by the name of their column."""
    return {
        name: kind
        for name, kind in audits[0].scalars.items()
        if all(name in other.scalars for other in audits)
    }


def _rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The rows of a table; the table itself, not a copy, where they are all of it in order."""
    whole = len(rows) == len(table) and np.array_equal(rows, np.arange(len(rows)))
    return table if whole else table.take(pa.array(rows))
