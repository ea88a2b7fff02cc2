"""From what interventions changed to what an output leans on: effects over controls, and which are sure.

For each candidate of a target two effects are measured, see `trials`:

- enough: the share of other images that become the target's with the donors' property, less the largest share
  that becomes so in a control. What any part of the right object does is no shortcut: so the median of what
  the same kind of change does for the other targets is taken off too.
- needed: the share of the donors that stop being the target's without the property, in whichever way it is
  taken, less the share that stops when as much is taken elsewhere. Damage is easier to do than a likeness,
  so the largest of the other targets is taken off.

The larger one is the candidate's effect. A finding is one of at least `min_effect` at a false discovery rate
of RATE over all that was tried. Of a regression, shares are replaced by standard deviations of the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from augnet.findings.candidates import Candidate
from augnet.findings.trials import (
    ELSEWHERE,
    FILLED,
    FOREIGN,
    GIVEN,
    OTHER_PAINTED,
    OTHER_TAKEN,
    PAINTED,
    TAKEN,
)
from augnet.statistics.paired import benjamini_hochberg, interval, p_value, standard_error

RATE = 0.05
"""False discovery rate of the findings."""
AS_GOOD = 0.9
"""Of the best candidate's effect: among those that reach it, the smallest place carries it."""
MORE = 0.1
"""By so much several places, or a change of the whole image, must do better to be the explanation."""

Question = Literal["enough", "needed"]
Evidence = Mapping[str, np.ndarray]
"""Arm -> (n,) how far each image was changed; of one candidate."""


@dataclass(frozen=True)
class Tried:
    """One candidate, and what its arms changed."""

    target: int
    number: int
    candidate: Candidate
    evidence: Evidence


@dataclass(frozen=True)
class Effect:
    """What a candidate does.

    Attributes:
        question: which of the two ways to ask gave it.
        effect: over control and baseline; a share of predictions, or standard deviations.
        low, high: its interval.
        changed: of the images, without anything taken off.
        control: the larger of what controls changed and what other targets' candidates of the kind did.
        count: images that were changed.
    """

    tried: Tried
    question: Question
    effect: float
    low: float
    high: float
    changed: float
    control: float
    p_value: float
    count: int
    q_value: float = 1.0


def effects(tried: Sequence[Tried]) -> list[Effect]:
    """Both effects of every candidate, with q-values over all of them."""
    found: list[Effect] = []
    for question in ("enough", "needed"):
        measured = [_measured(entry.evidence, question) for entry in tried]
        own = [float(gain.mean() - max(control.mean(), 0)) for gain, control in measured]
        for entry, (gain, control), value in zip(tried, measured, own, strict=True):
            baseline = _baseline(entry, tried, own, question)
            effect, error = value - baseline, standard_error(gain - control)
            low, high = interval(effect, error)
            found.append(
                Effect(
                    tried=entry,
                    question=question,
                    effect=effect,
                    low=low,
                    high=high,
                    changed=float(gain.mean()),
                    control=float(gain.mean()) - effect,
                    p_value=p_value(effect, error),
                    count=len(gain),
                )
            )
    q_values = benjamini_hochberg(np.array([effect.p_value for effect in found]))
    return [
        Effect(**{**vars(effect), "q_value": float(q)}) for effect, q in zip(found, q_values, strict=True)
    ]


def _measured(evidence: Evidence, question: Question) -> tuple[np.ndarray, np.ndarray]:
    """Per image, what the change did and what the strongest control did; no control where none was run."""
    if question == "enough":
        gain = evidence[GIVEN]
        controls = [evidence[name] for name in (FOREIGN, ELSEWHERE, FILLED) if name in evidence]
        return gain, max(controls, key=lambda control: control.mean()) if controls else np.zeros_like(gain)
    ways = [evidence[name] for name in (TAKEN, PAINTED) if name in evidence]
    controls = [evidence[name] for name in (OTHER_TAKEN, OTHER_PAINTED) if name in evidence]
    gain = np.min(ways, axis=0)
    return gain, np.max(controls, axis=0) if controls else np.zeros_like(gain)


def _baseline(entry: Tried, tried: Sequence[Tried], own: Sequence[float], question: Question) -> float:
    """What candidates of this kind do for the other targets, at their best."""
    best: dict[int, float] = {}
    for other, value in zip(tried, own, strict=True):
        if other.target != entry.target and other.candidate.change.kind == entry.candidate.change.kind:
            confirmed = len(other.evidence) > 2
            best[other.target] = max(best.get(other.target, 0.0), value if confirmed else 0.0)
    if not best:
        return 0.0
    values = list(best.values())
    return float(np.median(values) if question == "enough" else max(values))


def confirmed(effects: Sequence[Effect], min_effect: float) -> list[Effect]:
    """What is found, the strongest first: of each target one of its places, and one of the whole image."""
    sure = [entry for entry in effects if entry.effect >= min_effect and entry.q_value <= RATE]
    found: list[Effect] = []
    for target in sorted({entry.tried.target for entry in sure}):
        own = [entry for entry in sure if entry.tried.target == target]
        place = _best([entry for entry in own if entry.tried.candidate.change.kind == "place"])
        moving = _best([entry for entry in own if entry.tried.candidate.change.kind == "moving"])
        whole = _best([entry for entry in own if not entry.tried.candidate.change.local])
        local = _better(place, moving)
        if local and whole and whole.tried.candidate.change.kind == "background":
            whole = whole if whole.effect > local.effect + MORE else None  # a place may lie in the background
        found += [entry for entry in (local, whole) if entry]
    return sorted(found, key=lambda entry: -entry.effect)


def _best(entries: Sequence[Effect]) -> Effect | None:
    """The strongest; of those as good, the one of fewest pixels, unless two places together do more."""
    if not entries:
        return None
    strongest = max(entry.effect for entry in entries)
    single = [entry for entry in entries if len(entry.tried.candidate.change.places) < 2]
    alone = max((entry.effect for entry in single), default=0.0)
    if strongest <= alone + MORE:
        entries, strongest = single, alone
    good = [entry for entry in entries if entry.effect >= AS_GOOD * strongest]
    return min(good, key=lambda entry: (_area(entry), -entry.effect))


def _area(entry: Effect) -> int:
    return sum(box.area for box in entry.tried.candidate.change.places)


def _better(place: Effect | None, moving: Effect | None) -> Effect | None:
    """What lies at a fixed place seems to move as well: it is found in every image where it is."""
    if place and moving:
        return moving if moving.effect > place.effect + MORE else place
    return place or moving


def looked_at(tried: Sequence[Tried], found: Sequence[Effect], stands_out: float) -> list[Tried]:
    """Of each target without a finding of a place, the place that stands out most in its gradients."""
    local = {entry.tried.target for entry in found if entry.tried.candidate.change.local}
    best: dict[int, Tried] = {}
    for entry in tried:
        score = entry.candidate.score
        known = best.get(entry.target)
        if entry.target not in local and score >= max(stands_out, known.candidate.score if known else 0):
            best[entry.target] = known or entry
    return sorted(best.values(), key=lambda entry: -entry.candidate.score)
