"""How far an audit is, told from its folder alone; whoever is at work on it is not asked."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from augnet.audits.records import commonest, unit_records
from augnet.audits.run import Run
from augnet.errors import AuditError
from augnet.storage import names, schema
from augnet.storage.files import OutputFolder
from augnet.storage.shards import read_table

RECENT = 20
"""Units that the rate is told by."""


@dataclass(frozen=True)
class Status:
    """An audit as its folder shows it now.

    Attributes:
        units_done, units: how many have a record, of how many.
        images_done, images: audited or failed, of those planned.
        failed: of those done.
        images_per_second: of the last units, by the times of their records; None before the third.
        idle_seconds: since the last unit, by the clock of this machine; None before the first.
        missing: numbers of the first units without a record.
    """

    finished: bool
    units_done: int
    units: int
    images_done: int
    images: int
    failed: int
    reasons: tuple[str, ...]
    images_per_second: float | None
    idle_seconds: float | None
    missing: tuple[int, ...]

    @property
    def remaining_seconds(self) -> float | None:
        """At this rate; None where there is none."""
        if not self.images_per_second:
            return None
        return (self.images - self.images_done) / self.images_per_second


def status(output: str, now: float) -> Status:
    """How far the audit in a folder is, `now` in seconds since the epoch. Checksums are `augnet check`'s.

    Raises:
        AuditError: no audit, or a damaged one.
    """
    folder = OutputFolder(output)
    if not folder.exists(names.RUN):
        raise AuditError(f"{folder}: no audit here ({names.RUN} is missing)")
    run = Run.read(folder)
    records = unit_records(folder, run)
    found = [record for record in records if record]
    finished_at = sorted(
        (folder.modified(names.shard("records", record.unit_id, run.units)), record.planned)
        for record in found
    )
    parts = [_failures(folder, run, record.unit_id) for record in found if record.failed]
    return Status(
        finished=folder.exists(names.MANIFEST),
        units_done=len(found),
        units=run.units,
        images_done=sum(record.planned for record in found),
        images=run.images,
        failed=sum(record.failed for record in found),
        reasons=tuple(commonest(pa.concat_tables(parts))) if parts else (),
        images_per_second=_rate(finished_at[-RECENT:]),
        idle_seconds=max(0.0, now - finished_at[-1][0]) if finished_at else None,
        missing=tuple(unit for unit, record in enumerate(records) if not record)[:10],
    )


def _rate(finished_at: list[tuple[float, int]]) -> float | None:
    """Images per second between the first and the last of these (time, images)."""
    if len(finished_at) < 3 or finished_at[-1][0] <= finished_at[0][0]:
        return None
    return sum(images for _, images in finished_at[1:]) / (finished_at[-1][0] - finished_at[0][0])


def _failures(folder: OutputFolder, run: Run, unit: int) -> pa.Table:
    try:
        with folder.open(names.shard("failures", unit, run.units)) as stream:
            return read_table(stream)
    except FileNotFoundError:  # the audit is being made anew
        return schema.FAILURES.empty_table()
