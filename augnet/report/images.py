"""The images that the page holds: which, in what order, and all that is known of each."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.redact import without_secrets
from augnet.report.assets import numbers
from augnet.storage.catalog import statistic_of
from augnet.storage.reader import Audit

COLUMNS = ("image_id", "uri", "label", "predicted", "correct", "rival", "flags")
"""Of `statistics/`, beside those that are one number for each image."""


def held_rows(audit: Audit) -> pa.Table:
    """The rows of `statistics/` of the images in gallery.npz, in the page's order; read part by part."""
    wanted = pa.array(audit.gallery.get("image_id", np.array([], str)), pa.string())
    names = [*COLUMNS, *audit.scalars]
    found = [audit.statistics_schema.empty_table().select(names)]
    for part in audit.parts("statistics", names) if len(wanted) else ():
        found.append(part.filter(pc.is_in(part["image_id"], wanted)))
    rows = pa.concat_tables(found)
    first = first_order(rows)
    order = "ascending" if first["order"] == "lowest" else "descending"
    return rows.sort_by([(first["sort"], order), ("image_id", "ascending")])


def first_order(rows: pa.Table) -> dict[str, str]:
    """What the page is sorted by at first, so that the first images lie in the first sheets, and which end.

    The distance to the nearest boundary, or the norm where there are none.
    """
    name = "margin_l2" if rows["margin_l2"].null_count < len(rows) else "frobenius"
    return {"sort": name, "order": statistic_of(name).worst or "lowest"}


def image_columns(rows: pa.Table) -> dict[str, list[Any]]:
    """The rows by column, as JSON values; `href` opens the file where a browser can."""
    columns: dict[str, list[Any]] = {name: rows[name].to_pylist() for name in COLUMNS}
    scalars = [name for name in rows.column_names if name not in COLUMNS]
    columns |= {name: numbers(rows[name].to_numpy()) for name in scalars}
    columns["uri"] = [without_secrets(uri) for uri in columns["uri"]]
    columns["href"] = [address(uri) for uri in columns["uri"]]
    return columns


def address(uri: str) -> str | None:
    """What a link to an image opens: its file, or the file that holds it; None where a browser cannot."""
    if urlsplit(uri).scheme.lower() in ("http", "https"):
        return uri
    path = PurePosixPath(uri.removeprefix("file://"))
    container, place, _ = str(path).partition("#")
    if place and PurePosixPath(container).suffix:
        path = PurePosixPath(container)
    return path.as_uri() if path.is_absolute() else None


def reasons_left_out(audit: Audit, held: int) -> str:
    """A sentence on the images that the page does not hold; empty where it holds all."""
    audited = audit.counts["audited"]
    if held == audited:
        return ""
    return (
        f"{held:,} of the {audited:,} audited images are here: those at either end of each statistic, "
        "flagged ones, and a random sample of each label (report.images). Histograms, slices and matrices "
        "are over all images; statistics/ has a row for each."
    )
