"""The images of a plan, its units of work, and what became of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from augnet.audits.run import Run
from augnet.sources import ImageRef
from augnet.storage import names
from augnet.storage.files import OutputFolder, UnitRecord


@dataclass(frozen=True)
class WorkUnit:
    """The row group `unit_id` of a plan of `unit_count`. This, and the record of it, is all that travels."""

    unit_id: int
    unit_count: int


REF_COLUMNS = ("image_id", "uri", "label", "metadata")
"""The columns of `schema.PLAN` that are an ImageRef's attributes."""


def refs_of(rows: pa.Table | pa.RecordBatch) -> list[ImageRef]:
    """The images of rows of a plan, of the columns REF_COLUMNS."""
    return [ImageRef(**row | {"metadata": tuple(row["metadata"])}) for row in rows.to_pylist()]


def unit_record(folder: OutputFolder, run: Run, unit: int) -> UnitRecord | None:
    """The unit's record, if there is one of this run; its files are not looked at."""
    return read_record(folder, names.shard("records", unit, run.units), unit, run.fingerprint)


def read_record(folder: OutputFolder, name: str, unit: int, fingerprint: str) -> UnitRecord | None:
    """The record in a file, if there is one and it is of this unit and fingerprint."""
    try:
        record = UnitRecord.from_json(folder.read_bytes(name))
    except (FileNotFoundError, ValueError):
        return None
    return record if (record.fingerprint, record.unit_id) == (fingerprint, unit) else None


def unit_records(folder: OutputFolder, run: Run) -> list[UnitRecord | None]:
    """What `unit_record` gives of every unit, in order."""
    return [unit_record(folder, run, unit) for unit in range(run.units)]


def commonest(failures: pa.Table, most: int = 3) -> list[str]:
    """The commonest reasons in a table of failures, as "decode: the file is truncated (12 images)"."""
    counts = Counter(zip(failures["stage"].to_pylist(), failures["error"].to_pylist(), strict=True))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"{stage}: {error} ({count} image{'s' * (count > 1)})" for (stage, error), count in ranked[:most]]
