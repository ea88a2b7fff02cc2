"""Survival under noise, foretold and seen, as the page shows it."""

from __future__ import annotations

import math
from typing import Any

from augnet.report.sentences import space
from augnet.storage.catalog import noise_column
from augnet.storage.reader import Audit

LARGEST_DOT = 6.0


def noise(audit: Audit) -> dict[str, Any]:
    """A row for each sigma under which survival is foretold, with dots in a square of side 100."""
    found = audit.summary["noise"]
    described = audit.summary["statistics"]
    rows = []
    for entry in found["sigmas"]:
        survive = described[noise_column("survival", entry["sigma"])]
        if survive["count"]:
            rows.append(
                {
                    "sigma": f"{entry['sigma']:g}",
                    "survive": f"{survive['mean']:.1%}",
                    "images": f"{entry['images']:,}",
                    "foretold": _share(entry["foretold"]),
                    "seen": _share(entry["seen"]),
                    "error": _share(entry["mean_abs_error"]),
                    "sampling": _share(entry["sampling_error"]),
                    "points": _points(entry["bins"]),
                }
            )
    copies = audit.run["config"]["statistics"]["noise_copies"]
    return {
        "asked": bool(audit.noise),
        "unit": space(audit),
        "copies": copies,
        "passes": found["passes"],
        "rows": rows,
    }


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _points(bins: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """x, y and radius of a dot for each bin, its area as the number of images."""
    most = max((part["images"] for part in bins), default=1)
    return [
        (
            f"{100 * part['foretold']:.1f}",
            f"{100 * (1 - part['seen']):.1f}",
            f"{max(1.0, LARGEST_DOT * math.sqrt(part['images'] / most)):.1f}",
        )
        for part in bins
    ]
