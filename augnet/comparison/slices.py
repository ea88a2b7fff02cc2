"""How the mean of a statistic changed in every slice of the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.comparison.bootstrap import intervals
from augnet.comparison.differences import compared_values
from augnet.comparison.sides import Side

SLICED = ("label",)
"""Columns whose values cut the images into slices."""
SLICES_AT_ONCE = 512


def slice_changes(sides: tuple[Side, Side], names: Iterable[str], paired: bool) -> Iterator[dict[str, Any]]:
    """Rows of `schema.SLICE_CHANGES`: the mean of each statistic in each slice, which BEFORE cuts."""
    for column in SLICED:
        texts = [side.table[column] for side in sides]
        found = pc.unique(pa.concat_arrays([text.unique() for text in texts])).drop_null()
        found = found.take(pc.array_sort_indices(found))
        codes = [pc.fill_null(pc.index_in(text, found), len(found)).to_numpy() for text in texts]
        if paired:
            codes[1] = codes[0]
        for name in names:
            values = compared_values(sides, name, paired)
            for start in range(0, len(found), SLICES_AT_ONCE):
                part = found.slice(start, SLICES_AT_ONCE).to_pylist()
                inside = [_inside(code, start, len(part)) for code in codes]
                for value, row in zip(part, _changes(sides, values, inside, len(part), paired), strict=True):
                    if row["count"]:
                        yield {"column": column, "value": value, "statistic": name, **row}


def _inside(codes: np.ndarray, start: int, count: int) -> np.ndarray:
    """(n,) numbers of the slices start .. start + count, from 0 on; `count` for all others."""
    return np.where((codes >= start) & (codes < start + count), codes - start, count)


def _changes(
    sides: tuple[Side, Side],
    values: tuple[np.ndarray, np.ndarray],
    codes: list[np.ndarray],
    count: int,
    paired: bool,
) -> list[dict[str, Any]]:
    """The means of `count` slices and their difference; its interval where every resample has the slice."""
    sizes, means = [], []
    for part, code in zip(values, codes, strict=True):
        known = ~np.isnan(part)
        size = np.bincount(code[known], minlength=count + 1)[:count]
        total = np.bincount(code[known], part[known], minlength=count + 1)[:count]
        sizes.append(size)
        means.append(total / np.maximum(size, 1))
    if paired:
        drawn = sides[0].bootstrap.means(values[1] - values[0], codes[0], count)
    else:
        ours, theirs = (
            side.bootstrap.means(part, code, count)
            for side, part, code in zip(sides, values, codes, strict=True)
        )
        drawn = theirs - ours
    columns = {
        "count": np.minimum(*sizes).tolist(),
        "before": means[0].tolist(),
        "after": means[1].tolist(),
        "change": (means[1] - means[0]).tolist(),
    }
    low, high = intervals(drawn)
    bounds = {
        name: [None if np.isnan(value) else value for value in part.tolist()]
        for name, part in (("low", low), ("high", high))
    }
    columns |= bounds
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
