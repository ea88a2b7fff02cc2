"""Doing again what failed: the units that hold a failed image, whole, so that the others stay as they are."""

from __future__ import annotations

from augnet.audits.records import unit_records
from augnet.audits.run import Run
from augnet.errors import ConfigError
from augnet.storage import names
from augnet.storage.files import OutputFolder


def nothing_failed(output: str) -> bool:
    """Whether the audit in the folder is finished, and no image of it failed.

    Raises:
        ConfigError: there is no audit, neither finished nor begun.
    """
    folder = OutputFolder(output)
    if not folder.exists(names.RUN):
        raise ConfigError(f"--retry-failed: {folder} holds no audit ({names.RUN} is missing); leave it out")
    return folder.exists(names.MANIFEST) and not folder.read_sealed(names.MANIFEST)["counts"]["failed"]


def forget_failures(output: str, run: Run) -> list[int]:
    """Take the record of every unit in which an image failed, and the report, out of an audit's folder.

    An image's bytes depend on those it is computed with, in the last digit, so a unit is done again whole:
    then they are the bytes of a run without the failure. A unit without a record is what an interrupted audit
    goes on from, so this one may be interrupted as well.

    Returns:
        The units to do: those that have no record now.
    """
    folder = OutputFolder(output)
    records = unit_records(folder, run)
    for record in records:
        if record and record.failed:
            folder.remove(names.shard("records", record.unit_id, run.units))
    for name in folder.names(names.REPORT_FOLDER):  # of pictures that the next report may not have
        folder.remove(name)
    return [unit for unit, record in enumerate(records) if record is None or record.failed]
