"""The page of a comparison: one HTML file that holds all it shows, for a browser without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augnet.comparison.control import ControlVerdict
from augnet.comparison.documents import PAGE, figure_rows, headline, sentences
from augnet.comparison.gate import Verdict
from augnet.comparison.pair import Comparison
from augnet.comparison.pictures import Exhibits
from augnet.comparison.series import Series, most_varied
from augnet.report.assets import templates
from augnet.storage.catalog import SCALARS
from augnet.storage.files import OutputFolder
from augnet.storage.reader import Audit

SHOWN_IMAGES = 8
SHOWN_SLICES = 200
SHOWN_WORST = ("margin_l2", "frobenius")
"""Statistics whose worst images are shown."""
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
    html = (
        templates("augnet.comparison")
        .get_template("template.html")
        .render(
            audits=[_described(audit) for audit in audits],
            headline=headline(verdicts),
            passed=all(verdict.outcome == "passed" for verdict in verdicts),
            verdicts=verdicts,
            sentences=sentences(comparison, None),
            control=control,
            figures=figure_rows(comparison),
            plots=[_plot(name, found.histogram) for name, found in comparison.statistics.items()],
            flips=comparison.flips,
            images=_images(comparison, series, exhibits, audits),
            slices=_slices(comparison),
            only={"before": comparison.images.listed_before, "after": comparison.images.listed_after},
            counts={"before": comparison.images.only_before, "after": comparison.images.only_after},
            series=series,
            series_plots=_series_plots(series) if series else [],
            size=PLOT,
        )
    )
    folder.write_bytes(PAGE, html.encode())
    return folder.path(PAGE)


def _described(audit: Audit) -> dict[str, str]:
    config = audit.run["config"]
    return {
        "folder": str(audit.folder),
        "model": config["model"]["path"] + (" (random weights)" if audit.run.get("control_of") else ""),
        "images": config["images"]["path"],
        "audited": f"{audit.counts['audited']:,}",
        "fingerprint": audit.run["fingerprint"][:12],
    }


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
            title = f"{name} {'fell' if SCALARS[name].worst == 'lowest' else 'rose'} most"
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
    for side in ("before", "after"):
        counts = histogram[side]
        largest, step = max(counts) or 1, width / len(counts)
        levels = [height * (1 - count / largest) for count in counts]
        corners = [(k * step, y, (k + 1) * step) for k, y in enumerate(levels)]
        lines.append(" ".join(f"{left:.1f},{y:.1f} {right:.1f},{y:.1f}" for left, y, right in corners))
    ends = [f"{histogram[end]:.4g}" for end in ("low", "high")]
    return {"name": name, "label": SCALARS[name].label, "lines": lines, "ends": ends}


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
        points = {
            key: " ".join(
                f"{k * step:.1f},{PLOT[1] * (1 - (value - low) / span):.1f}"
                for k, value in enumerate(line)
                if value is not None
            )
            for key, line in lines.items()
        }
        plots.append({"name": name, "points": points, "low": f"{low:.4g}", "high": f"{high:.4g}"})
    return plots


def _slices(comparison: Comparison) -> list[list[str]]:
    """The means that changed most for the worse in a slice, where the interval leaves no doubt of it."""
    signs = {name: {"lowest": -1, "highest": 1}.get(kind.worst or "", 0) for name, kind in SCALARS.items()}
    signs["correct"] = -1
    rows = []
    for row in comparison.slices:
        harm = sorted(signs[row["statistic"]] * (row[key] or 0.0) for key in ("low", "high"))
        if harm[0] > 0 and row["before"]:
            rows.append((harm[0] / abs(row["before"]), row))
    rows.sort(key=lambda item: -item[0])
    return [
        [
            f"{row['column']}: {row['value']}",
            row["statistic"],
            f"{row['count']:,}",
            *(f"{row[key]:.4g}" for key in ("before", "after")),
            f"{row['low']:+.4g} to {row['high']:+.4g}",
        ]
        for _, row in rows[:SHOWN_SLICES]
    ]
