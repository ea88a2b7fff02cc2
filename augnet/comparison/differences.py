"""How a statistic changed from one audit to another: over all images, image by image, and per slice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.comparison.bootstrap import Interval, interval, share_interval
from augnet.comparison.sides import Side
from augnet.statistics.describe import describe
from augnet.storage.catalog import SCALARS

FIGURES = ("mean", "p05", "p50", "p95")
"""The figures of a statistic whose change is always judged."""
LISTED = 20
"""Images named that changed most for the worse, of each statistic."""
SLICED = ("label",)
"""Columns whose values cut the images into slices."""
SLICES_AT_ONCE = 128
BINS = 40


@dataclass(frozen=True)
class Change:
    """How one figure changed.

    Attributes:
        images: with a value; of the audit with fewer where the images differ.
        before, after: the figure of each audit.
        difference: after - before.
        interval: of the difference, None where there are too few images to resample.
        relative: difference / |before|, None where that is 0.
        relative_interval: of the relative change.
    """

    images: int
    before: float
    after: float
    difference: float
    interval: Interval | None
    relative: float | None
    relative_interval: Interval | None


def quantile_of(figure: str) -> float | None:
    """0.05 of "p05", None of "mean"; raises ValueError for any other."""
    if figure == "mean":
        return None
    found = re.fullmatch(r"p(\d\d)", figure)
    if not found or found[1] == "00":
        raise ValueError(f"{figure!r} is no figure; known: mean, p01 .. p99")
    return int(found[1]) / 100


def change(sides: tuple[Side, Side], values: tuple[np.ndarray, np.ndarray], figure: str) -> Change | None:
    """The change of a figure of values (n,), NaN for none; None where a side has no value."""
    known = [part[np.isfinite(part)] for part in values]
    if not all(map(len, known)):
        return None
    q = quantile_of(figure)
    before, after = (float(np.mean(part) if q is None else np.quantile(part, q)) for part in known)
    drawn = [
        side.bootstrap.mean(part) if q is None else side.bootstrap.quantile(part, q)
        for side, part in zip(sides, values, strict=True)
    ]
    difference, level = drawn[1] - drawn[0], np.abs(drawn[0])
    return Change(
        images=min(map(len, known)),
        before=before,
        after=after,
        difference=after - before,
        interval=interval(difference),
        relative=(after - before) / abs(before) if before else None,
        relative_interval=interval(difference / level) if level.all() else None,
    )


@dataclass(frozen=True)
class StatisticChange:
    """How one statistic changed.

    Attributes:
        before, after: its distribution in each audit, as of `describe`.
        changes: figure -> its change.
        paired: the distribution of after - before over the images in both, None where there are none.
        worse: images that moved towards the alarming end, and their share with its interval; None where
            neither end is alarming or the images differ.
        worst: the images that moved most so: image_id, before, after.
        histogram: low and high end, and the images of each audit in bins of equal width between.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    changes: dict[str, Change]
    paired: dict[str, Any] | None
    worse: dict[str, Any] | None
    worst: list[dict[str, Any]]
    histogram: dict[str, Any]


def compared_values(sides: tuple[Side, Side], name: str, paired: bool) -> tuple[np.ndarray, np.ndarray]:
    """Values of both sides, finite or NaN; where images are paired, NaN in both where one has none."""
    before, after = (side.values(name) for side in sides)
    for part in (before, after):
        part[~np.isfinite(part)] = np.nan
    if paired:
        missing = np.isnan(before) | np.isnan(after)
        before[missing] = after[missing] = np.nan
    return before, after


def compare_statistic(
    sides: tuple[Side, Side], name: str, paired: bool, figures: Iterable[str]
) -> StatisticChange | None:
    """The change of one statistic; None where a side has no value of it."""
    before, after = values = compared_values(sides, name, paired)
    changes = {figure: found for figure in figures if (found := change(sides, values, figure))}
    if not changes:
        return None
    described: list[dict[str, Any]] = [describe(np.sort(part[~np.isnan(part)])) for part in values]
    histogram = _histogram(before, after)
    if not paired:
        return StatisticChange(described[0], described[1], changes, None, None, [], histogram)
    difference = after - before
    sign = {"lowest": -1.0, "highest": 1.0, None: None}[SCALARS[name].worst]
    known = difference[~np.isnan(difference)]
    return StatisticChange(
        described[0],
        described[1],
        changes,
        paired=describe(np.sort(known)),
        worse=None if sign is None else _worse(sign * known),
        worst=[] if sign is None else _worst(sides[0], before, after, sign * difference),
        histogram=histogram,
    )


def _histogram(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """Over the middle 99 % of all values: what lies further out would hide the rest."""
    low, high = np.nanquantile(np.concatenate([before, after]), (0.005, 0.995)).tolist()
    counts = [np.histogram(part[~np.isnan(part)], BINS, (low, high))[0].tolist() for part in (before, after)]
    return {"low": low, "high": high, "before": counts[0], "after": counts[1]}


def _worse(harm: np.ndarray) -> dict[str, Any]:
    count = int(np.count_nonzero(harm > 0))
    return {"images": count, "share": count / len(harm), "interval": share_interval(count, len(harm))}


def _worst(side: Side, before: np.ndarray, after: np.ndarray, harm: np.ndarray) -> list[dict[str, Any]]:
    harm = np.where(np.isnan(harm), 0.0, harm)
    candidates = np.argsort(-harm, kind="stable")[:LISTED]
    chosen = candidates[harm[candidates] > 0]
    names = side.table["image_id"].take(pa.array(chosen)).to_pylist()
    return [
        {"image_id": name, "before": float(before[k]), "after": float(after[k])}
        for name, k in zip(names, chosen.tolist(), strict=True)
    ]


def slice_changes(sides: tuple[Side, Side], names: Iterable[str], paired: bool) -> Iterator[dict[str, Any]]:
    """Rows of `schema.SLICE_CHANGES`: the mean of each statistic in each slice of the images of BEFORE."""
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
                for value, row in zip(part, _means(sides, values, codes, start, len(part)), strict=True):
                    if row:
                        yield {"column": column, "value": value, "statistic": name, **row}


def _means(
    sides: tuple[Side, Side],
    values: tuple[np.ndarray, np.ndarray],
    codes: list[np.ndarray],
    start: int,
    count: int,
) -> list[dict[str, Any]]:
    """The means of slices start .. start + count and their difference; {} for a slice without values."""
    sizes, means, drawn = [], [], []
    for side, part, code in zip(sides, values, codes, strict=True):
        inside = np.where((code >= start) & (code < start + count), code - start, count)
        known = ~np.isnan(part)
        size = np.bincount(inside[known], minlength=count + 1)[:count]
        total = np.bincount(inside[known], part[known], minlength=count + 1)[:count]
        sizes.append(size)
        means.append(total / np.maximum(size, 1))
        drawn.append(side.bootstrap.means(part, inside, count))
    rows: list[dict[str, Any]] = []
    for k in range(count):
        images = int(min(sizes[0][k], sizes[1][k]))
        if not images:
            rows.append({})
            continue
        before, after = float(means[0][k]), float(means[1][k])
        low, high = interval(drawn[1][:, k] - drawn[0][:, k]) or (None, None)
        rows.append(
            {
                "count": images,
                "before": before,
                "after": after,
                "change": after - before,
                "low": low,
                "high": high,
            }
        )
    return rows
