"""The end of an audit, whoever has audited its units: each step reads what those before it have written."""

from __future__ import annotations

from typing import Any

from augnet.audits.finalize import fold, seal
from augnet.comparison.control import judge_by_control
from augnet.findings.decide import decide
from augnet.report.page import render
from augnet.storage.reader import Audit


def finish(output: str) -> dict[str, Any]:
    """The finished audit's manifest: fold its units, decide what they mean, render the report, seal.

    Raises:
        AuditError: a unit is missing, or a file cannot be written.
    """
    folded = fold(output)
    decide(folded)
    audit = Audit(folded.folder)
    judge_by_control(audit)
    render(audit)
    return seal(folded)
