"""Whether a finished audit is still what it was when it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from augnet.audits.records import unit_record
from augnet.audits.run import Run
from augnet.errors import AuditError
from augnet.storage import names, schema
from augnet.storage.files import FileEntry, OutputFolder, json_digest
from augnet.storage.shards import read_table

SCHEMAS = {
    names.PLAN: schema.PLAN,
    names.OUTPUTS: schema.OUTPUTS,
    names.SLICES: schema.SLICES,
    names.OUTPUT_PAIRS: schema.OUTPUT_PAIRS,
    "interventions": schema.INTERVENTIONS,
    "failures": schema.FAILURES,
}
"""Columns by file, or by the folder of the file; but for statistics, whose columns depend on the config."""


def check(output: str) -> list[str]:
    """What is wrong with the finished audit in a folder, one line each; nothing when it is whole.

    Every file has the size and checksum that the manifest gives, none is missing and none is foreign; the
    manifest and run.json agree with the checksums that they hold themselves; tables have their columns; every
    planned image is there once, audited or failed, in the plan's order, and the counts say so.

    Raises:
        AuditError: there is no finished audit.
    """
    folder = OutputFolder(output)
    for name in (names.RUN, names.MANIFEST):
        if not folder.exists(name):
            raise AuditError(f"{folder}: no finished audit here ({name} is missing)")
    try:
        manifest, run = folder.read_sealed(names.MANIFEST), Run.read(folder)
    except AuditError as error:
        return [str(error)]
    problems = list(_identity_problems(manifest, run))
    problems += _file_problems(folder, manifest)
    # Tables and counts are read only from files that are as they were written.
    return problems or [*_schema_problems(folder, manifest, run), *_image_problems(folder, manifest, run)]


def _identity_problems(manifest: dict[str, Any], run: Run) -> Iterator[str]:
    if run.fingerprint != json_digest(run.identity):
        yield f"{names.RUN}: the fingerprint is not that of its contents"
    if manifest["fingerprint"] != run.fingerprint:
        yield f"{names.MANIFEST}: belongs to another run than {names.RUN}"


def _file_problems(folder: OutputFolder, manifest: dict[str, Any]) -> Iterator[str]:
    entries = [FileEntry(**entry) for entry in manifest["files"]]
    for entry in entries:
        if not folder.exists(entry.name):
            yield f"{entry.name}: is missing"
        elif not folder.intact(entry):
            yield f"{entry.name}: is not as it was written (size or checksum differs)"
    known = {entry.name for entry in entries} | {names.RUN, names.MANIFEST}
    for name in (*folder.audit_names(), *folder.foreign_names()):
        if name not in known:
            yield f"{name}: is no file of this audit"


def _schema_problems(folder: OutputFolder, manifest: dict[str, Any], run: Run) -> Iterator[str]:
    schemas = SCHEMAS | {"statistics": schema.statistics(run.catalog)}
    for name in (entry["name"] for entry in manifest["files"]):
        expected = schemas.get(name.partition("/")[0])
        if expected is not None and name.endswith(".parquet"):
            with folder.open(name) as stream:
                found = pq.read_schema(stream)
            if not found.equals(expected):
                yield f"{name}: has other columns than an audit of this version writes"


def _image_problems(folder: OutputFolder, manifest: dict[str, Any], run: Run) -> Iterator[str]:
    """Unit by unit, so that memory holds the plan's names and one unit's tables."""
    files = {entry["name"] for entry in manifest["files"]}
    totals: Counter[str] = Counter()
    with folder.open(names.PLAN) as stream, pq.ParquetFile(stream, pre_buffer=False) as plan:
        if plan.num_row_groups != run.units:
            yield f"{names.PLAN}: has {plan.num_row_groups} units, {names.RUN} says {run.units}"
            return
        for unit in range(run.units):
            planned = plan.read_row_group(unit, ["image_id"], use_threads=False)["image_id"].to_pylist()
            statistics = names.shard("statistics", unit, run.units)
            audited = _column(folder, statistics, "image_id")
            failed = _column(folder, names.shard("failures", unit, run.units), "image_id")
            in_order = [[name for name in planned if name in found] for found in (set(audited), set(failed))]
            if in_order[0] + in_order[1] != audited + failed or len(planned) != len(audited) + len(failed):
                yield f"unit {unit}: its images are not those of the plan, each once"
            record = unit_record(folder, run, unit)
            counts = {"planned": len(planned), "audited": len(audited), "failed": len(failed)}
            if record is None or any(getattr(record, key) != value for key, value in counts.items()):
                yield f"unit {unit}: its record does not fit its tables"
            if not set(_column(folder, statistics, "jacobian_file")) - {None} <= files:
                yield f"unit {unit}: refers to Jacobians that are no file of this audit"
            totals.update(counts)
        everything = plan.read(columns=["image_id"])["image_id"]
    if pc.count_distinct(everything).as_py() != len(everything):
        yield f"{names.PLAN}: an image is planned twice"
    if totals != manifest["counts"] or totals["planned"] != run.images:
        yield f"{names.MANIFEST}: counts {manifest['counts']}, found {dict(totals)}, planned {run.images}"


def _column(folder: OutputFolder, name: str, column: str) -> list[str | None]:
    with folder.open(name) as stream:
        found: list[str | None] = read_table(stream, [column])[column].to_pylist()
    return found
