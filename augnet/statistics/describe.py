"""One statistic over many images: its figures, its slices, and how well it tells wrong predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

QUANTILES = (0.01, 0.05, 0.25, 0.50, 0.75, 0.95, 0.99)


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


def auroc(ascending: np.ndarray, positive: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a positive's value is above a negative's, a tie counting one half.

    Of (n,) values in ascending order, and whether each is a positive, (n,) bool. In [0, 1], below 1/2 when
    low values mark the positives; None when all are of one kind.
    """
    positives = int(np.count_nonzero(positive))
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    ties = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
    positive_tied = np.add.reduceat(positive, ties, dtype=np.int64)
    negative_tied = np.diff(ties, append=len(positive)) - positive_tied
    negative_below = np.cumsum(negative_tied) - negative_tied
    won = np.sum(positive_tied * (negative_below + negative_tied / 2))
    return float(won / positives / negatives)


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
