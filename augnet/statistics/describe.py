"""One statistic over many images: its figures and its slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Columns = Callable[[str], pa.ChunkedArray]
"""Column name -> that column of all statistics parts, in the order of the parts. Called for one at a time."""

MOST_VALUES = 100
"""Metadata with more values than this is no cut into groups, as names and times of single images are none."""

QUANTILES = (0.01, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99)

ROUNDING = 8 * float(np.finfo(np.float32).eps)
"""Relative difference that the same number may show when it is computed from float32 rows."""


def describe(ascending: np.ndarray) -> dict[str, float | int | None]:
    """The figures of `schema.SLICES`, of values in ascending order; None where there are too few.

    std divides by n - 1, standard_error is std / sqrt(n), and quantiles interpolate linearly, as NumPy's do.
    """
    n = len(ascending)
    std = float(np.std(ascending, ddof=1)) if n > 1 else None
    figures: dict[str, float | int | None] = {
        "count": n,
        "mean": float(np.mean(ascending)) if n else None,
        "std": std,
        "standard_error": None if std is None else std / math.sqrt(n),
        "min": float(ascending[0]) if n else None,
    }
    for q in QUANTILES:
        figures[f"q{round(100 * q):02d}"] = _quantile(ascending, q) if n else None
    return figures | {"max": float(ascending[-1]) if n else None}


def _quantile(ascending: np.ndarray, q: float) -> float:
    rank = q * (len(ascending) - 1)
    below = math.floor(rank)
    low, high = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    return float(low + (high - low) * (rank - below))


def varies(values: np.ndarray) -> bool:
    """Whether numbers (n,) differ by more than rounding, or there is only one; NaN, of a null, is left out.

    A statistic that is the same for all images, as the norm of a linear model's Jacobian, has no ends and no
    order, but for what float32 rows are rounded to.
    """
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return len(known) == 1
    low, high = known.min(), known.max()
    return bool(high - low > ROUNDING * max(abs(low), abs(high)))


@dataclass(frozen=True)
class Slicer:
    """A column whose values cut the images into slices.

    Attributes:
        values: the values as text, in ascending order.
        codes: (n,) integers, each image's index in `values`; len(values) for an image without a value.
    """

    values: tuple[str, ...]
    codes: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Slicer:
        """The slicer of a column of text, integers or truth values; a null is in no slice."""
        found = column.unique().drop_null()
        found = found.take(pc.array_sort_indices(found))
        codes = pc.fill_null(pc.index_in(column, found), len(found)).to_numpy()
        names = (str(value).lower() if isinstance(value, bool) else str(value) for value in found.to_pylist())
        short = len(found) < 1 << 16  # NumPy sorts 16 bits by radix
        return cls(tuple(names), codes.astype(np.uint16 if short else np.int32))

    @classmethod
    def of_metadata(cls, column: pa.ChunkedArray) -> dict[str, Slicer]:
        """The slicers of a column of `schema.STATISTICS.metadata`, by name, in the order of the names."""
        keys = sorted({key for chunk in column.chunks for key in chunk.keys.unique().to_pylist()})
        return {key: cls.of(pc.map_lookup(column, key, "first")) for key in keys}

    def cut(self, images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """For every value that occurs: its index in `values`, and the positions in `images` that have it."""
        codes = self.codes[images]
        order = np.argsort(codes, kind="stable")
        edges = np.searchsorted(codes[order], np.arange(len(self.values) + 1))
        for k in range(len(self.values)):
            if edges[k] < edges[k + 1]:
                yield k, order[edges[k] : edges[k + 1]]


def cut_by(columns: Columns, names: Iterable[str]) -> tuple[dict[str, Slicer], dict[str, int]]:
    """What cuts the images into slices: these columns and the metadata, as slicers by name.

    Returns:
        The slicers; and of metadata with more than MOST_VALUES values, which cuts nothing, their number.
    """
    slicers = {name: Slicer.of(columns(name)) for name in names}
    uncut: dict[str, int] = {}
    for name, slicer in Slicer.of_metadata(columns("metadata")).items():
        if len(slicer.values) > MOST_VALUES:
            uncut[name] = len(slicer.values)
        else:
            slicers.setdefault(name, slicer)  # metadata called "correct" is not what augnet calls so
    return slicers, uncut
