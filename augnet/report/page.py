"""The page of an audit, rendered from its files alone: index.html and, beside it, what it loads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from augnet.report import figures, provenance
from augnet.report.assets import SCRIPTS, STYLE, data_script, static_files, templates, write_only
from augnet.report.evidence import control, power, shown_findings, triage
from augnet.report.headline import headline, suggestions
from augnet.report.images import first_order, held_rows, image_columns, reasons_left_out
from augnet.report.maps import KINDS, map_groups, map_sheets, mean_image
from augnet.report.noise import noise
from augnet.report.sentences import output_names
from augnet.report.sprites import SHEET_COLUMNS, SHEET_IMAGES, sheets
from augnet.storage import names
from augnet.storage.reader import Audit

SHOWN_FAILURES = 500


def render(audit: Audit) -> str:
    """Write report/index.html and the files beside it; the same audit gives the same bytes.

    Returns:
        The page's full path.
    """
    written = set()
    for name, data in _files(audit):
        written.add(f"{names.REPORT_FOLDER}/{name}")
        audit.folder.write_bytes(f"{names.REPORT_FOLDER}/{name}", data)
    write_only(audit.folder, names.REPORT_FOLDER, written)
    return audit.folder.path(names.REPORT)


def _files(audit: Audit) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of the report, one after the other; the page comes last."""
    rows = held_rows(audit)
    image_ids = rows["image_id"].to_pylist()
    outputs = output_names(audit)
    findings = audit.findings
    shown = shown_findings(findings, outputs)
    yield from static_files().items()
    yield from sheets(audit.gallery, image_ids)
    yield from map_sheets(audit)
    yield "slices.js", data_script("slices", figures.slices(audit))
    data = {
        "outputs": outputs,
        "images": image_columns(rows),
        "left_out": reasons_left_out(audit, len(image_ids)),
        "first": first_order(rows),
        "sheet": {"images": SHEET_IMAGES, "columns": SHEET_COLUMNS, **_sizes(audit)},
        "colors": figures.color_tables(),
        "statistics": figures.statistics(audit),
        "kinds": KINDS,
        "maps": map_groups(audit, outputs),
        "mean": mean_image(audit),
        "findings": [{key: item[key] for key in ("output", "places", "local", "images")} for item in shown],
        "confusion": figures.confusion(audit),
        "pairs": figures.pairs(audit),
    }
    yield "data.js", data_script("report", data)
    page = (
        templates("augnet.report")
        .get_template("template.html")
        .render(
            style=STYLE,
            scripts=[*SCRIPTS, "data.js"],
            title=audit.run["config"]["model"]["path"].rstrip("/").rsplit("/", 1)[-1],
            run=audit.run,
            counts=audit.counts,
            headline=headline(audit, shown),
            doubts=findings["doubts"],
            suggestions=suggestions(audit),
            findings=shown,
            power=power(findings["tried"]),
            judged=findings["judged"],
            triage=triage(audit),
            control=control(audit),
            noise=noise(audit),
            map_pool=int(audit.maps["map_pool"]),
            held=len(image_ids),
            left_out=data["left_out"],
            failures=figures.failures(audit.failures, SHOWN_FAILURES),
            command=provenance.command(audit),
            details=provenance.details(audit),
            settings=provenance.settings(audit),
            versions=sorted(audit.run["versions"].items()),
        )
    )
    yield "index.html", page.encode()


def _sizes(audit: Audit) -> dict[str, Any]:
    """Height and width of the model's input, of the pictures and of the views."""
    empty = np.zeros((0, 0, 0, 0))
    return {
        "input": audit.run["model"]["input_shape"],
        "picture": audit.gallery.get("thumbnail", empty).shape[1:3],
        "view": audit.gallery.get("views", empty).shape[2:4],
    }
