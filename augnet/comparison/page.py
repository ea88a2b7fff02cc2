"""The page of a comparison: one HTML file that holds all it shows, for a browser without a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from augnet.comparison.control import ControlVerdict, is_control
from augnet.comparison.documents import PAGE, figure_rows, headline, sentences
from augnet.comparison.gate import Verdict, exit_status
from augnet.comparison.pair import Comparison
from augnet.comparison.pictures import Exhibits
from augnet.comparison.series import Series, most_varied
from augnet.report.assets import STYLE, static_files, templates
from augnet.statistics.intervals import Z
from augnet.statistics.paired import benjamini_hochberg, p_value
from augnet.storage.catalog import statistic_of
from augnet.storage.files import OutputFolder
from augnet.storage.reader import Audit

SHOWN_IMAGES = 8
SHOWN_SLICES = 200
RATE = 0.05
"""False discovery rate of the slices that are shown: of a thousand intervals, fifty miss by chance."""
SHOWN_WORST = ("margin_l2", "frobenius")
"""Statistics whose worst images are shown."""
OUTCOMES = {0: "passed", 1: "failed", 3: "unsure"}
"""Of the gate, by its exit status: styles of the page."""
PLOT = (260.0, 90.0)
"""Width and height of a plot, in pixels."""


def render(
    folder: OutputFolder,
    comparison: Comparison,
    verdicts: Sequence[Verdict],
    control: ControlVerdict | None,
    series: Series | None,
    audits: Sequence[Audit],
) -> str:
    """Write index.html; returns its full path. `audits` are those compared, all of them and in order."""
    exhibits = Exhibits(audits)
    template = templates("augnet.comparison").get_template("template.html")
    html = template.render(
        style=static_files()[STYLE].decode(),
        audits=len(audits),
        described=_described(audits),
        headline=headline(verdicts),
        outcome=OUTCOMES[exit_status(verdicts)] if verdicts else "",
        verdicts=verdicts,
        sentences=sentences(comparison, None),
        control=control,
        seen=_seen(control) if control else [],
        figures=figure_rows(comparison),
        plots=[_plot(name, found.histogram) for name, found in comparison.statistics.items()],
        flips=comparison.flips,
        directions=[tuple(row.values()) for row in comparison.flips.directions] if comparison.flips else [],
        images=_images(comparison, series, exhibits, audits),
        slices=_slices(comparison),
        only={"before": comparison.images.listed_before, "after": comparison.images.listed_after},
        counts={"before": comparison.images.only_before, "after": comparison.images.only_after},
        series=series,
        series_plots=_series_plots(series) if series else [],
        size=PLOT,
    )
    folder.write_bytes(PAGE, html.encode())
    return folder.path(PAGE)


def _described(audits: Sequence[Audit]) -> list[tuple[str, ...]]:
    """Of each audit, what it is of: one row of a table."""
    places = ["before", *map(str, range(2, len(audits))), "after"]
    return [
        (
            place,
            str(audit.folder),
            audit.run["config"]["model"]["path"] + (" (random weights)" if is_control(audit) else ""),
            audit.run["config"]["images"]["path"],
            f"{audit.counts['audited']:,}",
            audit.run["fingerprint"][:12],
        )
        for place, audit in zip(places, audits, strict=True)
    ]


def _seen(control: ControlVerdict) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for part in control.seen:
        order = "" if part.order is None else f"{part.order:.2f}"
        bounds = "({:.2f} to {:.2f})".format(*part.range) if part.range else ""
        level = "" if part.level is None else f"{part.level:+.0%}"
        rows.append((part.name, part.shows, f"{order} {bounds}", level))
    return rows


def _images(
    comparison: Comparison, series: Series | None, exhibits: Exhibits, audits: Sequence[Audit]
) -> list[dict[str, Any]]:
    """Groups of images with their heat map in each audit: those that changed most for the worse."""
    groups = []
    if comparison.flips and comparison.flips.lost:
        listed = comparison.flips.lost[:SHOWN_IMAGES]
        groups.append(("Right before, wrong after", listed, [""] * len(listed)))
    for name in SHOWN_WORST:
        found = comparison.statistics.get(name)
        if found and found.worst:
            worst = found.worst[:SHOWN_IMAGES]
            said = [f"{item['before']:.4g} to {item['after']:.4g}" for item in worst]
            title = f"{name} {'fell' if statistic_of(name).worst == 'lowest' else 'rose'} most"
            groups.append((title, [item["image_id"] for item in worst], said))
    if series and series.variance:
        varied = most_varied(audits[0], series.variance)[:SHOWN_IMAGES]
        said = [f"{item['normalised']:+.1f} standard deviations of its class" for item in varied]
        groups.append(
            ("Gradient varied most across checkpoints", [item["image_id"] for item in varied], said)
        )
    return [
        {"title": title, "images": list(zip(exhibits.of(names), said, strict=True))}
        for title, names, said in groups
        if names
    ]


def _plot(name: str, histogram: dict[str, Any]) -> dict[str, Any]:
    """Both distributions as steps, each to its own largest bin."""
    width, height = PLOT
    lines = []
    for side in ("before", "after"):  # which are styles of lines too
        counts = histogram[side]
        largest, step = max(counts) or 1, width / len(counts)
        levels = [height * (1 - count / largest) for count in counts]
        corners = [(k * step, y, (k + 1) * step) for k, y in enumerate(levels)]
        points = " ".join(f"{left:.1f},{y:.1f} {right:.1f},{y:.1f}" for left, y, right in corners)
        lines.append((side, points))
    ends = [f"{histogram[end]:.4g}" for end in ("low", "high")]
    return {"name": name, "label": statistic_of(name).label, "lines": lines, "ends": ends}


def _series_plots(series: Series) -> list[dict[str, Any]]:
    """The mean and the 5 and 95 % quantiles of each statistic over the audits."""
    plots = []
    columns = {"accuracy": {"mean": series.accuracy}} | series.statistics
    for name, figures in columns.items():
        lines = {key: figures[key] for key in ("mean", "q05", "q95") if key in figures}
        values = [value for line in lines.values() for value in line if value is not None]
        if not values:
            continue
        low, high = min(values), max(values)
        span = (high - low) or 1.0
        step = PLOT[0] / max(1, len(series.audits) - 1)
        drawn = [
            (
                "before" if key == "mean" else "before edge",
                " ".join(
                    f"{k * step:.1f},{PLOT[1] * (1 - (value - low) / span):.1f}"
                    for k, value in enumerate(line)
                    if value is not None
                ),
            )
            for key, line in lines.items()
        ]
        plots.append({"name": name, "range": f"{low:.4g} to {high:.4g}", "lines": drawn})
    return plots


def _slices(comparison: Comparison) -> list[list[str]]:
    """The means that surely changed for the worse in a slice, the largest change first."""
    worst = {name: statistic_of(name).worst for name in comparison.statistics}
    signs = {name: {"lowest": -1, "highest": 1}.get(end or "", 0) for name, end in worst.items()}
    signs["correct"] = -1
    judged = [row for row in comparison.slices if signs[row["statistic"]] and row["low"] is not None]
    harms = [signs[row["statistic"]] * row["change"] for row in judged]
    errors = [(row["high"] - row["low"]) / (2 * Z) for row in judged]
    q_values = benjamini_hochberg(np.array([p_value(*pair) for pair in zip(harms, errors, strict=True)]))
    sure = [
        (harm / (abs(row["before"]) or math.inf), row)
        for row, harm, q in zip(judged, harms, q_values, strict=True)
        if q <= RATE
    ]
    sure.sort(key=lambda item: -item[0])
    return [
        [
            f"{row['column']}: {row['value']}",
            row["statistic"],
            f"{row['count']:,}",
            *(f"{row[key]:.4g}" for key in ("before", "after")),
            f"{row['low']:+.4g} to {row['high']:+.4g}",
        ]
        for _, row in sure[:SHOWN_SLICES]
    ]
