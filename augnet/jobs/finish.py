"""The end of an audit, whoever has audited its units: each step reads what those before it have written."""

from __future__ import annotations

from typing import Any

from augnet.audits.finalize import fold, seal
from augnet.audits.records import WorkUnit
from augnet.audits.unit import Auditor
from augnet.comparison.control import judge_by_control
from augnet.findings.decide import decide
from augnet.findings.unit import Investigator, design_interventions
from augnet.report.page import render
from augnet.storage.files import OutputFolder
from augnet.storage.reader import Audit


def prepare_interventions(auditor: Auditor) -> list[WorkUnit]:
    """Fold the units of an audit, and say what to try of what they show: a unit of work for each target.

    Raises:
        AuditError: a unit is missing, or a file cannot be written.
    """
    return design_interventions(fold(auditor.folder.root), auditor)


def conclude(output: str) -> dict[str, Any]:
    """The finished audit's manifest: decide what was found, render the report, seal it.

    Raises:
        AuditError: a unit of interventions is missing, or a file cannot be written.
    """
    decide(output)
    audit = Audit(OutputFolder(output))
    judge_by_control(audit)
    render(audit)
    return seal(output)


def finish(auditor: Auditor) -> dict[str, Any]:
    """The manifest of an audit whose units are done: all that is left of it, one step after the other."""
    units = prepare_interventions(auditor)
    investigator = Investigator(auditor)
    for unit in units:
        investigator.investigate(unit)
    return conclude(auditor.folder.root)
