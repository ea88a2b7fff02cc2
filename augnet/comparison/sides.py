"""The two sides of a comparison: the images compared of each audit, and their resamples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.comparison.bootstrap import Bootstrap
from augnet.comparison.join import Joined, join_images
from augnet.storage.catalog import SCALARS
from augnet.storage.reader import Audit

COLUMNS = ("image_id", "label", "predicted", "correct", *SCALARS)
"""Of `statistics`, what is compared: some 200 bytes for an image."""


@dataclass(frozen=True)
class Side:
    """One of two audits, as far as it is compared.

    Attributes:
        table: COLUMNS of the n images compared.
        bootstrap: of these images; where the images are the same, both sides hold the same one.
    """

    table: pa.Table
    bootstrap: Bootstrap

    def values(self, name: str) -> np.ndarray:
        """(n,) float64 of a column of numbers or truth values; NaN where it is null."""
        return np.array(pc.cast(self.table[name], pa.float64()).to_numpy())


def open_sides(before: Audit, after: Audit) -> tuple[Joined, tuple[Side, Side]]:
    """Both audits joined by image: the images in both of each; all of each where there is none in both."""
    tables = [audit.columns(COLUMNS) for audit in (before, after)]
    images = join_images(*tables)
    if len(images):
        bootstrap = Bootstrap(len(images))
        sides = [
            Side(_rows(table, rows), bootstrap)
            for table, rows in zip(tables, (images.before, images.after), strict=True)
        ]
    else:
        sides = [Side(table, Bootstrap(len(table), seed)) for seed, table in enumerate(tables)]
    return images, (sides[0], sides[1])


def _rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The rows of a table; the table itself, not a copy, where they are all of it in order."""
    whole = len(rows) == len(table) and np.array_equal(rows, np.arange(len(rows)))
    return table if whole else table.take(pa.array(rows))
