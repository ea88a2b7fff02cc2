"""Figures over all images: histograms, slices, and matrices of labels, predictions and outputs."""

from __future__ import annotations

import base64
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from augnet.plots.colors import COLORS, color_table
from augnet.report.assets import numbers
from augnet.storage.reader import Audit

SLICE_FIGURES = ("mean", "q05", "q25", "q50", "q75", "q95")
PAIRS = 5000
"""Pairs of outputs, and of label and prediction, that the page holds: those met most often."""


def color_tables() -> dict[str, str]:
    """256 colours of each kind, as base64 of red, green and blue bytes."""
    return {kind: base64.b64encode(color_table(kind).tobytes()).decode() for kind in COLORS}


def statistics(audit: Audit) -> list[dict[str, Any]]:
    """Each statistic that has values: what it is, its figures, and its histogram over all images."""
    found = []
    for name, kind in audit.scalars.items():
        figures = audit.summary["statistics"][name]
        if not figures["count"]:
            continue
        about = {"name": name, "label": kind.label, "unit": kind.unit, "worst": kind.worst}
        shown = {key: value if key == "count" else numbers([value])[0] for key, value in figures.items()}
        values = audit.column(name).drop_null().to_numpy()
        found.append(about | {"meaning": kind.meaning, "figures": shown, "histogram": histogram(values)})
    return found


def histogram(values: np.ndarray) -> dict[str, Any]:
    """Edges of the whole and counts of equal bins, of (n,) finite numbers."""
    low, high = float(values.min()), float(values.max())
    least = max(abs(low), abs(high), 1e-300) * 1e-6  # equal but for rounding: one bar, not noise
    if high - low < least:
        low, high = low - least, high + least
    bins = min(60, max(8, int(np.sqrt(len(values)))))
    counts, _ = np.histogram(values, bins=bins, range=(low, high))
    return {"low": low, "high": high, "counts": counts.tolist()}


def slices(audit: Audit) -> dict[str, Any]:
    """Column -> its values, and for each statistic the figures of every value, in that order."""
    rows = audit.slices.to_pylist()
    places: dict[str, dict[str, int]] = {}
    for row in rows:
        places.setdefault(row["column"], {}).setdefault(row["value"], len(places[row["column"]]))
    columns: dict[str, Any] = {
        column: {"values": list(values), "statistics": {}} for column, values in places.items()
    }
    for row in rows:
        values = places[row["column"]]
        cells = columns[row["column"]]["statistics"].setdefault(row["statistic"], [None] * len(values))
        cells[values[row["value"]]] = [row["count"], *numbers([row[key] for key in SLICE_FIGURES], 4)]
    return {"figures": ["count", *SLICE_FIGURES], "columns": columns}


def confusion(audit: Audit) -> dict[str, Any]:
    """How often images of a label are predicted as an output: [label, output, images], the most first."""
    counts: Counter[tuple[str, int]] = Counter()
    for part in audit.parts("statistics", ["label", "predicted"]):
        grouped = part.drop_null().group_by(["label", "predicted"]).aggregate([([], "count_all")])
        for row in grouped.to_pylist():
            counts[row["label"], row["predicted"]] += row["count_all"]
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    cells = [[label, predicted, count] for (label, predicted), count in ordered[:PAIRS]]
    return {"cells": cells, "left_out": max(0, len(ordered) - PAIRS)}


def pairs(audit: Audit) -> dict[str, Any]:
    """[output, other, mean cosine of their rows, images with other as the rival], the most rivals first."""
    table = audit.output_pairs.sort_by(
        [("rival_count", "descending"), ("output", "ascending"), ("other", "ascending")]
    )
    shown = table.slice(0, PAIRS)
    columns = [shown[name].to_pylist() for name in ("output", "other", "mean_cosine", "rival_count")]
    columns[2] = numbers(columns[2], 3)
    return {"cells": [list(row) for row in zip(*columns, strict=True)], "left_out": len(table) - len(shown)}


def failures(table: pa.Table, shown: int) -> dict[str, Any]:
    """Stages with their numbers of images, and the first of the images."""
    stages = Counter(table["stage"].to_pylist()).most_common()
    rows = table.slice(0, shown).select(["image_id", "stage", "error"]).to_pylist()
    return {"stages": stages, "rows": rows, "count": len(table)}
