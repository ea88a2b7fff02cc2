"""How the mean of a statistic changed in every slice of the images, by label and by metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from augnet.comparison.bootstrap import intervals
from augnet.comparison.differences import compared_values
from augnet.comparison.sides import Side

SLICES_AT_ONCE = 512


def slice_changes(sides: tuple[Side, Side], names: Iterable[str], paired: bool) -> Iterator[dict[str, Any]]:
    """Rows of `schema.SLICE_CHANGES`: the mean of each statistic in each slice, by label and by metadata."""
    cuts = list(_cuts(sides, paired))
    for name in names:
        values = compared_values(sides, name, paired)
        for column, texts, codes in cuts:
            for start in range(0, len(texts), SLICES_AT_ONCE):
                part = texts[start : start + SLICES_AT_ONCE]
                inside = [_inside(code, start, len(part)) for code in codes]
                for value, row in zip(part, _changes(sides, values, inside, len(part), paired), strict=True):
                    if row["count"]:
                        yield {"column": column, "value": value, "statistic": name, **row}


def _cuts(
    sides: tuple[Side, Side], paired: bool
) -> Iterator[tuple[str, Sequence[str], tuple[np.ndarray, np.ndarray]]]:
    """What cuts both sides: its name, its values, and each image's index in them, as of `Slicer`.

    Images that are in both are cut by what BEFORE says of them, or AFTER where only that one knows.
    """
    ours, theirs = (side.slicers for side in sides)
    if paired:
        for column, slicer in (ours | theirs | ours).items():
            yield column, slicer.values, (slicer.codes, slicer.codes)
        return
    for column in (name for name in ours if name in theirs):
        values = sorted({*ours[column].values, *theirs[column].values})
        place = {value: index for index, value in enumerate(values)}
        first, second = (
            np.array([*(place[value] for value in slicer.values), len(values)])[slicer.codes]
            for slicer in (ours[column], theirs[column])
        )
        yield column, values, (first, second)


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
