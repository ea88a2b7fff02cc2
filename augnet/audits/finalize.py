"""The end of an audit: its units folded into tables, maps and a gallery; and, last of all, its manifest."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from augnet.audits.records import commonest, unit_records
from augnet.audits.run import Run
from augnet.errors import AuditError
from augnet.statistics.aggregate import Aggregate
from augnet.statistics.gallery import exhibit_arrays
from augnet.statistics.summary import summarize
from augnet.storage import names
from augnet.storage.files import FileEntry, OutputFolder, UnitRecord
from augnet.storage.reader import Audit
from augnet.storage.shards import write_table


def fold(output: str) -> Aggregate:
    """All units of the plan as one, in order; writes the summary, its tables, the maps and the gallery.

    Raises:
        AuditError: a unit is missing.
    """
    folder = OutputFolder(output)
    run = Run.read(folder)
    _records(folder, run)
    aggregate = _merged(folder, run)
    audit = Audit(folder)
    summary = summarize(
        audit.column,
        aggregate,
        scalars=audit.scalars,
        label_names=run.mapped_labels,
        border=run.config.statistics.border,
        noise=run.config.statistics.noise,
    )
    folder.write_json(names.SUMMARY, summary.figures)
    tables = {
        names.SLICES: summary.slices,
        names.OUTPUTS: summary.outputs,
        names.OUTPUT_PAIRS: summary.output_pairs,
    }
    for name, table in tables.items():
        with folder.writing(name) as path:
            write_table(path, table)
    gallery = exhibit_arrays(aggregate.gallery.shown())
    for name, arrays in {names.MAPS: summary.maps, names.GALLERY: gallery}.items():
        with folder.writing(name) as path, path.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)
    return aggregate


def seal(output: str) -> dict[str, Any]:
    """Write, and return, the manifest of an audit whose every other result is written."""
    folder = OutputFolder(output)
    run = Run.read(folder)
    folder.sweep()  # what workers left that were killed on the way
    manifest = _manifest(folder, run, _records(folder, run))
    folder.write_sealed(names.MANIFEST, manifest)
    finished = run.times | {"finished": time.time()}
    replace(run, engines=_engines(folder), times=finished).write(folder)
    return manifest


def reseal(folder: OutputFolder) -> None:
    """Bring the manifest up to date with a report that was rendered again, and with nothing else."""
    manifest = folder.read_sealed(names.MANIFEST)
    rendered = {names.CONTROL, *folder.names(names.REPORT_FOLDER)}
    files = [entry for entry in manifest["files"] if not _is_rendered(entry["name"])]
    files += [asdict(folder.entry(name)) for name in rendered if folder.exists(name)]
    manifest["files"] = sorted(files, key=lambda entry: entry["name"])
    folder.write_sealed(names.MANIFEST, manifest)


def _is_rendered(name: str) -> bool:
    return name == names.CONTROL or name.startswith(f"{names.REPORT_FOLDER}/")


def _engines(folder: OutputFolder) -> dict[str, dict[str, Any]]:
    """By kind of device, what was chosen; without the way of every operation, which are many."""
    engines = {}
    for name in folder.engine_names():
        choice = folder.read_json(name)
        device = name.removeprefix("engine-").removesuffix(".json")
        engines[device] = {key: part for key, part in choice.items() if key != "paths"}
    return engines


def _records(folder: OutputFolder, run: Run) -> tuple[UnitRecord, ...]:
    """The record of every unit, in order."""
    found = unit_records(folder, run)
    missing = [unit for unit, record in enumerate(found) if record is None]
    if missing:
        raise AuditError(
            f"{folder}: {len(missing)} of {run.units} units are missing (the first is {missing[0]}); "
            "run the same command again to audit them"
        )
    return tuple(record for record in found if record)


def _merged(folder: OutputFolder, run: Run) -> Aggregate:
    """The units' aggregates, merged in unit order, so that rounding is the same every time."""

    def aggregate(unit: int) -> Aggregate:
        with folder.open(names.shard("aggregates", unit, run.units)) as stream:
            return Aggregate.load(stream)

    total = aggregate(0)  # a plan has at least one unit
    for unit in range(1, run.units):
        total.merge(aggregate(unit))
    return total


def _manifest(folder: OutputFolder, run: Run, records: tuple[UnitRecord, ...]) -> dict[str, Any]:
    """Counts and checksums. run.json is left out: its times are no result, and it holds its own checksum."""
    counts = {
        key: sum(getattr(record, key) for record in records) for key in ("planned", "audited", "failed")
    }
    if not counts["planned"] == run.images == counts["audited"] + counts["failed"]:
        raise AuditError(f"{folder}: {run.images} images were planned, but the units' counts are {counts}")
    subfolders = [
        name for part in ("records", "interventions", names.REPORT_FOLDER) for name in folder.names(part)
    ]
    files: list[FileEntry] = [entry for record in records for entry in record.files]
    control = [names.CONTROL] if folder.exists(names.CONTROL) else []
    files += [folder.entry(name) for name in (*names.RESULTS, *control, *subfolders, *folder.engine_names())]
    return {
        "fingerprint": run.fingerprint,
        "counts": counts,
        "files": [asdict(entry) for entry in sorted(files, key=lambda entry: entry.name)],
    }


def refuse_failures(output: str, max_fraction: float) -> None:
    """Raise AuditError, with the commonest reasons, when more than this share of the images failed."""
    audit = Audit.open(output)
    planned, failed = audit.counts["planned"], audit.counts["failed"]
    if failed > max_fraction * planned:
        raise AuditError(
            f"{failed} of {planned} images failed, more than failures.max_fraction ({max_fraction:g}) "
            f"allows; the results are written. The commonest reasons: {'; '.join(commonest(audit.failures))}"
        )
