"""From what an audit has written to findings.json and triage.json: what it means."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from augnet.audits.run import Run
from augnet.errors import AuditError
from augnet.findings.candidates import STANDS_OUT
from augnet.findings.decision import Effect, Tried, confirmed, effects, looked_at
from augnet.findings.design import Design
from augnet.findings.errors import triage
from augnet.findings.outcomes import ENOUGH
from augnet.findings.predictions import doubted_predictions
from augnet.findings.trials import Target
from augnet.findings.words import looks_sentence, output_name, sentence
from augnet.statistics.intervals import mean_interval
from augnet.statistics.paired import smallest_effect
from augnet.storage import names
from augnet.storage.files import OutputFolder
from augnet.storage.reader import Audit
from augnet.storage.shards import read_table

log = logging.getLogger(__name__)

SHOWN_IMAGES = 6
"""Images named with a finding."""


def decide(output: str) -> None:
    """Decide what the interventions of an audit show and what tells errors; write findings.json, triage.json.

    Raises:
        AuditError: a unit of interventions is missing.
    """
    folder = OutputFolder(output)
    run = Run.read(folder)
    audit = Audit(folder)
    design = Design.from_json(folder.read_json(names.CANDIDATES))
    tried = [entry for unit in range(len(design.targets)) for entry in _tried(folder, design, unit)]
    minimum = run.config.findings.min_effect
    measured = effects(tried)
    size = run.model.input_shape[:2]
    found = confirmed(measured, minimum, size)
    doubts = _doubts(audit, run)
    looks = looked_at(tried, found, STANDS_OUT)
    strongest = {(entry.tried.target, entry.tried.number): entry for entry in sorted(measured, key=_effect)}
    tree = {
        "judged": {
            "outputs": len({target.output for target in design.targets}),
            "images": len(design.images),
        },
        "confirmed": [_as_json(entry, design, run, _confirmed_text) for entry in found],
        "looks_at": [
            _as_json(strongest[entry.target, entry.number], design, run, _looks_text) for entry in looks
        ],
        "tried": _kinds(measured, minimum, size),
        "doubts": doubts,
    }
    folder.write_json(names.FINDINGS, tree)
    folder.write_json(names.TRIAGE, triage(audit, run))


def _doubts(audit: Audit, run: Run) -> list[str]:
    """Reasons to doubt the predictions; of a regression, whose largest output is no prediction, none."""
    if run.task == "regression":
        return []
    doubts = doubted_predictions(
        images_by(audit.slices, "predicted"),
        images_by(audit.slices, "label"),
        audit.summary["judged"],
        audit.summary["accuracy"],
    )
    for doubt in doubts:
        log.warning("predictions: %s", doubt)
    return doubts


def _effect(entry: Effect) -> float:
    return entry.effect


def _tried(folder: OutputFolder, design: Design, unit: int) -> list[Tried]:
    """What the arms of each candidate of a target changed."""
    name = names.shard("interventions", unit, len(design.targets))
    try:
        with folder.open(name) as stream:
            table = read_table(stream, ["candidate", "arm", "before", "after"])
    except FileNotFoundError:
        raise AuditError(f"{folder}: {name} is missing; run the same command again to make it") from None
    columns = {key: table[key].to_numpy(zero_copy_only=False) for key in table.column_names}
    gained = columns["after"] - columns["before"]
    target = design.targets[unit]
    judged = target.output if target.task == "regression" else unit
    found = []
    for number, candidate in enumerate(design.candidates[unit]):
        own = columns["candidate"] == number
        evidence = {
            arm: gained[own & (columns["arm"] == arm)] * (1 if arm in ENOUGH else -1)
            for arm in dict.fromkeys(columns["arm"][own])
        }
        found.append(Tried(unit, judged, number, candidate, evidence))
    return found


def _as_json(entry: Effect, design: Design, run: Run, text: Any) -> dict[str, Any]:
    """One entry of findings.json."""
    candidate, target = entry.tried.candidate, design.targets[entry.tried.target]
    groups, change = design.groups[entry.tried.target], entry.tried.candidate.change
    donors = candidate.donors or range(len(groups.donors))
    shares = candidate.shares or (1.0,) * SHOWN_IMAGES  # of a property of the whole image
    shown = [
        {"image_id": design.images[groups.donors[k]].image_id, "share": share}
        for k, share in zip(donors[:SHOWN_IMAGES], shares, strict=False)
    ]
    low, high = mean_interval(entry.effect, entry.error)
    label = next((name for name, output in run.label_outputs.items() if output == target.output), None)
    return {
        "kind": change.kind,
        "output": target.output,
        "name": label,
        "places": [vars(box) for box in change.places],
        "effect": entry.effect,
        "interval": [low, high if target.task == "regression" else min(1.0, high)],
        "unit": "standard deviations" if target.task == "regression" else "predictions",
        "changed": entry.changed,
        "control": entry.changed - entry.effect,
        "q_value": entry.q_value,
        "donors": len(donors),
        "receivers": entry.enough.count,
        "images": shown,
        "sentence": text(entry, target, output_name(target.output, label), run),
    }


def _confirmed_text(entry: Effect, target: Target, name: str, run: Run) -> str:
    return sentence(entry, target, name, run.model.input_shape[:2])


def _looks_text(entry: Effect, target: Target, name: str, run: Run) -> str:
    size = run.model.input_shape[:2]
    return looks_sentence(entry.tried.candidate.change, name, size, run.config.findings.min_effect)


def _kinds(measured: Sequence[Effect], minimum: float, size: tuple[int, int]) -> list[dict[str, Any]]:
    """By kind, how much was tried and the smallest effect that would have been seen."""
    counts: dict[str, list[int]] = defaultdict(list)
    least: dict[str, float] = {}
    for entry in measured:
        change = entry.tried.candidate.change
        counts[change.kind].append(entry.enough.count)
        least[change.kind] = min(least.get(change.kind, math.inf), change.least(minimum, size))
    return [
        {
            "kind": kind,
            "candidates": len(found),
            "smallest_effect": max(least[kind], smallest_effect(int(np.median(found)))),
        }
        for kind, found in sorted(counts.items())
    ]


def images_by(slices: pa.Table, column: str) -> dict[str, int]:
    """Value of a slice column -> images with it, of `schema.SLICES`."""
    counts: dict[str, int] = {}
    for row in slices.select(["column", "value", "count"]).to_pylist():
        if row["column"] == column:  # a statistic that is null for an image does not count it
            counts[row["value"]] = max(row["count"], counts.get(row["value"], 0))
    return counts
