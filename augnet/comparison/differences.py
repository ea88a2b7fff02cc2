"""How a statistic changed from one audit to another: over all images, image by image, and per slice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from augnet.comparison.bootstrap import interval
from augnet.comparison.sides import Side
from augnet.statistics.describe import describe
from augnet.statistics.intervals import Interval, share_interval
from augnet.storage.catalog import statistic_of

FIGURES = ("mean", "p05", "p50", "p95")
"""The figures of a statistic whose change is always judged."""
LISTED = 20
"""Images named that changed most for the worse, of each statistic."""
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
    sign = {"lowest": -1.0, "highest": 1.0, None: None}[statistic_of(name).worst]
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
