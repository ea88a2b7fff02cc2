"""Findings that are new in an audit, gone from it, or the same as before."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from augnet.comparison.join import JoinedOutputs
from augnet.storage.reader import Audit

Finding = dict[str, Any]
"""One entry of findings.json."""


@dataclass(frozen=True)
class FindingChanges:
    """Confirmed findings of two audits. Two are the same when kind, output and place are.

    Attributes:
        same: (of BEFORE, of AFTER).
        new: of AFTER only; BEFORE would have seen one of this effect.
        perhaps_new: of AFTER only, where BEFORE could not have seen that effect, or saw it unconfirmed.
        gone, perhaps_gone: of BEFORE only, likewise.
        reason: why nothing is known, or "".
    """

    same: list[tuple[Finding, Finding]]
    new: list[Finding]
    perhaps_new: list[Finding]
    gone: list[Finding]
    perhaps_gone: list[Finding]
    reason: str = ""


@dataclass(frozen=True)
class Findings:
    """What one audit found.

    Attributes:
        confirmed: strongest first.
        looks_at: shown by gradients, not confirmed.
        smallest: kind -> the smallest effect that would have been seen.
    """

    confirmed: list[Finding]
    looks_at: list[Finding]
    smallest: dict[str, float]


def findings_of(audit: Audit) -> Findings | None:
    """The findings of an audit; None where it looked for none."""
    if not audit.run["config"]["findings"]["enabled"]:
        return None
    found = audit.findings
    smallest = {tried["kind"]: tried["smallest_effect"] for tried in found["tried"]}
    return Findings(found["confirmed"], found["looks_at"], smallest)


def compare_findings(audits: tuple[Audit, Audit], outputs: JoinedOutputs) -> FindingChanges:
    """What became of the confirmed findings."""
    before, after = (findings_of(audit) for audit in audits)
    if before is None or after is None:
        missing = ", ".join(
            str(audit.folder) for audit, found in zip(audits, (before, after), strict=True) if found is None
        )
        return FindingChanges(
            [], [], [], [], [], f"{missing} looked for none; audit with findings.enabled: true"
        )
    forth = dict(outputs.pairs)
    back = {second: first for first, second in outputs.pairs}
    matches = [(_match(finding, before.confirmed, back), finding) for finding in after.confirmed]
    new, perhaps_new = _split((found for match, found in matches if not match), before, back)
    lost = (found for found in before.confirmed if not _match(found, after.confirmed, forth))
    gone, perhaps_gone = _split(lost, after, forth)
    same = [(match, found) for match, found in matches if match]
    return FindingChanges(same, new, perhaps_new, gone, perhaps_gone)


def _split(
    found: Iterable[Finding], other: Findings, outputs: dict[int, int]
) -> tuple[list[Finding], list[Finding]]:
    """Those that the other audit would have seen, and the rest."""
    sure: list[Finding] = []
    unsure: list[Finding] = []
    for finding in found:
        (sure if _would_be_seen(finding, other, outputs) else unsure).append(finding)
    return sure, unsure


def _match(finding: Finding, others: Iterable[Finding], outputs: dict[int, int]) -> Finding | None:
    """The first of `others` that is the same; `outputs` translates the finding's output to theirs."""
    for other in others:
        if (other["kind"], other["output"]) == (finding["kind"], outputs.get(finding["output"])) and (
            _overlap(finding["places"], other["places"])
        ):
            return other
    return None


def _would_be_seen(finding: Finding, other: Findings, outputs: dict[int, int]) -> bool:
    """Whether another audit would surely have confirmed an effect like this one, had it been there."""
    shown = _match(finding, other.looks_at, outputs)
    if shown:
        return bool(shown["interval"][1] < finding["interval"][0])
    smallest = other.smallest.get(finding["kind"])
    return smallest is not None and smallest <= finding["interval"][0]


def _overlap(places: list[dict[str, int]], others: list[dict[str, int]]) -> bool:
    """Whether any two of the places share a pixel; findings that are of no place always do."""
    if not places or not others:
        return not places and not others
    return any(
        max(a["y"], b["y"]) < min(a["y"] + a["height"], b["y"] + b["height"])
        and max(a["x"], b["x"]) < min(a["x"] + a["width"], b["x"] + b["width"])
        for a in places
        for b in others
    )
