"""From the figures of a folded audit to what they mean: decided once, written beside the figures."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pyarrow as pa

from augnet.audits.finalize import FoldedAudit
from augnet.findings.errors import triage
from augnet.findings.predictions import doubted_predictions
from augnet.findings.shortcuts import Hotspot, find_hotspots
from augnet.storage import names, schema
from augnet.storage.reader import Audit
from augnet.storage.shards import write_table

log = logging.getLogger(__name__)


def decide(folded: FoldedAudit) -> None:
    """Find shortcuts and what tells errors; write summary.json, outputs.parquet and triage.json."""
    hotspots = find_hotspots(folded.aggregate.share_grids)
    shortcuts = [hotspot.as_json() for hotspot in hotspots if hotspot.shortcut]
    figures, slices = folded.summary.figures, folded.summary.slices
    doubts = doubted_predictions(
        images_by(slices, "predicted"), images_by(slices, "label"), figures["judged"], figures["accuracy"]
    )
    for doubt in doubts:
        log.warning("predictions: %s", doubt)
    folded.folder.write_json(names.TRIAGE, triage(Audit(folded.folder), folded.run))
    folded.folder.write_json(names.SUMMARY, figures | {"shortcuts": shortcuts, "doubts": doubts})
    with folded.folder.writing(names.OUTPUTS) as path:
        write_table(path, with_hotspots(folded.summary.outputs, hotspots))


def images_by(slices: pa.Table, column: str) -> dict[str, int]:
    """Value of a slice column -> images with it, of `schema.SLICES`."""
    counts: dict[str, int] = {}
    for row in slices.select(["column", "value", "count"]).to_pylist():
        if row["column"] == column:  # a statistic that is null for an image does not count it
            counts[row["value"]] = max(row["count"], counts.get(row["value"], 0))
    return counts


def with_hotspots(outputs: pa.Table, hotspots: Sequence[Hotspot]) -> pa.Table:
    """`schema.OUTPUTS` from `schema.OUTPUT_FIGURES`; null for an output without a hotspot."""
    rows = outputs.to_pylist()
    for spot in hotspots:
        rows[spot.output] |= {f"hotspot_{name}": value for name, value in vars(spot).items()}
        rows[spot.output]["shortcut"] = spot.shortcut
    return pa.Table.from_pylist(rows, schema.OUTPUTS)  # which takes only the figures that it has columns for
