"""From what interventions changed to what an output leans on: effects over controls, and which are sure.

For each candidate of a target two shares are measured, see `trials`:

- enough: how far other images come towards the target with the donors' property, less how far in the
  strongest control;
- needed: how far the donors go from the target without the property, in whichever way it is taken, less how
  far when as much is taken elsewhere, or from others.

What any part of the right object does, or any light of the right class, is no shortcut: so of what a change
does is taken off what changes of its kind, of places that are not much larger, do for the other targets, at
their best; where there are many, at their second best, as another target may have a shortcut of its own.
The effect is the mean of both: the average over images that lack the property and images that have it; of
a property of the whole image the first alone, where the second is less or the first next to nothing. Of a
mark, of blur and of the background only the first is asked: what lies under a mark would go with it, and
detail or surroundings cannot be taken from an image and leave the rest as it is.

A finding is an effect of at least `min_effect`, of what classes differ in by nature of more (`Change.least`),
and one of its shares is no accident, at a false discovery rate of RATE over all that was tried. Of a
regression, shares are standard deviations of the output.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from augnet.findings.candidates import Candidate
from augnet.findings.interventions import Box, Mark, Moving, Place
from augnet.findings.outcomes import FOREIGN, Evidence, Outcome, enough, needed, weighed
from augnet.statistics.paired import benjamini_hochberg, p_value

RATE = 0.05
"""False discovery rate of the findings."""
MANY = 4
"""Other targets, from which on one of them may have a shortcut of its own without hiding this one's."""
AS_GOOD = 0.9
"""Of the best candidate's effect: among those that reach it, the smallest place carries it."""
AS_MANY = 0.75
"""Of what the strongest change of the whole image does: the first that reaches it is named."""
NO_LARGER = 1.5
"""Times as many pixels: other targets' places that have more do more by nature, and are no measure."""
MORE = 0.1
"""By so much several places, or a change of the whole image, must do better to be the explanation; a place
must be needed by so much to explain such a change."""


@dataclass(frozen=True)
class Tried:
    """One candidate, and what its arms changed.

    Attributes:
        judged: what it counts for: the target, but for both directions of a number its output.
    """

    target: int
    judged: int
    number: int
    candidate: Candidate
    evidence: Evidence

    @property
    def promising(self) -> bool:
        """Whether the first few images changed, so that the controls were run."""
        return FOREIGN in self.evidence


@dataclass(frozen=True)
class Effect:
    """What a candidate does.

    Attributes:
        enough, needed: the two ways to ask; the second only of what can be taken from images.
        baselines: of each, what its like does for other targets.
        p_value: of neither doing anything.
    """

    tried: Tried
    enough: Outcome
    needed: Outcome | None
    baselines: tuple[float, ...] = (0.0, 0.0)
    p_value: float = 1.0
    q_value: float = 1.0

    @property
    def effect(self) -> float:
        """Over controls and baselines; what is less than these is none."""
        return float(np.mean([max(0.0, share) for _, share in self.counted]))

    @property
    def shares(self) -> list[float]:
        """Of each that was asked, what is over control and baseline."""
        return [part.over_control - less for part, less in zip(self.parts, self.baselines, strict=False)]

    @property
    def error(self) -> float:
        """Standard error of the effect."""
        return math.hypot(*(part.error for part, _ in self.counted)) / len(self.counted)

    @property
    def changed(self) -> float:
        """The same with nothing taken off."""
        return float(np.mean([part.changed for part, _ in self.counted]))

    @property
    def counted(self) -> list[tuple[Outcome, float]]:
        """What the effect is the mean of: those of `parts`, each with its share."""
        shares = weighed(self.shares, self.tried.candidate.change.local)
        return list(zip(self.parts, shares, strict=False))

    @property
    def parts(self) -> tuple[Outcome, ...]:
        """What was asked."""
        return (self.enough,) if self.needed is None else (self.enough, self.needed)


def effects(tried: Sequence[Tried]) -> list[Effect]:
    """The effect of every candidate, with q-values over all of them."""
    raw = [Effect(entry, enough(entry.evidence), needed(entry.evidence)) for entry in tried]
    found = []
    for entry in raw:
        entry = replace(entry, baselines=tuple(_baseline(entry, raw, k) for k in range(len(entry.parts))))
        found.append(replace(entry, p_value=_p_value(entry)))
    q_values = benjamini_hochberg(np.array([entry.p_value for entry in found]))
    return [replace(entry, q_value=float(q)) for entry, q in zip(found, q_values, strict=True)]


def _p_value(entry: Effect) -> float:
    if not entry.tried.promising:
        return 1.0
    each = [p_value(share, part.error) for part, share in entry.counted]
    return min(1.0, len(each) * min(each))


def _baseline(entry: Effect, raw: Sequence[Effect], part: int) -> float:
    """What its like does for the other targets at their best; with MANY of them, at their second best."""
    best: dict[int, float] = {}
    for other in raw:
        if other.tried.judged != entry.tried.judged and _is_like(other, entry):
            parts = other.parts if other.tried.promising else ()  # and not all were asked both ways
            value = parts[part].over_control if part < len(parts) else 0.0
            best[other.tried.judged] = max(best.get(other.tried.judged, 0.0), value)
    values = sorted(best.values(), reverse=True)
    return values[int(len(values) >= MANY)] if values else 0.0


def _is_like(other: Effect, entry: Effect) -> bool:
    """Whether another change is of the same sort, and of a place that is not much larger."""
    same = type(other.tried.candidate.change) is type(entry.tried.candidate.change)
    return same and _area(other) <= NO_LARGER * _area(entry)


def confirmed(effects: Sequence[Effect], min_effect: float, size: tuple[int, int]) -> list[Effect]:
    """What is found, the strongest first: of each target that which explains most of what its changes do.

    Args:
        min_effect: the smallest that is a finding, see `Change.least`.
        size: height and width of the images.
    """
    sure = [
        entry
        for entry in effects
        if entry.effect >= entry.tried.candidate.change.least(min_effect, size) and entry.q_value <= RATE
    ]
    found = []
    for judged in sorted({entry.tried.judged for entry in sure}):
        own = [entry for entry in sure if entry.tried.judged == judged]
        place, mark, moving = (
            _best([entry for entry in own if type(entry.tried.candidate.change) is sort])
            for sort in (Place, Mark, Moving)
        )
        whole = _first_of([entry for entry in own if not entry.tried.candidate.change.local])
        if whole and _is_of_parts(whole, effects):
            whole = None
        found.append(whole or _better(place or mark, moving))
    return sorted((entry for entry in found if entry), key=lambda entry: -entry.effect)


def _is_of_parts(whole: Effect, effects: Sequence[Effect]) -> bool:
    """Whether a part of the image alone does about as much as this change of all of it.

    A line has waves, lies in the background and is bright: to change these is to move it. A part that is
    enough, but whose loss changes nothing, is only a piece of what is everywhere; and what parts do for other
    targets as well explains nothing.
    """
    parts = [
        entry.shares[0]
        for entry in effects
        if entry.tried.judged == whole.tried.judged and entry.tried.promising
        if entry.tried.candidate.change.local
        if entry.needed is None or entry.needed.over_control >= MORE
    ]
    return whole.effect <= max(parts, default=-math.inf) + MORE


def _best(entries: Sequence[Effect]) -> Effect | None:
    """The strongest; of those as good, the one of fewest pixels, unless several places together do more."""
    if not entries:
        return None
    strongest = max(entry.effect for entry in entries)
    single = [entry for entry in entries if len(entry.tried.candidate.change.places) < 2]
    alone = max((entry.effect for entry in single), default=0.0)
    if strongest <= alone + MORE:
        each = [entry for entry in entries if _each_alone(entry, single)]
        entries, strongest = each or single, alone
    good = [entry for entry in entries if entry.effect >= AS_GOOD * strongest] or single
    return min(good, key=lambda entry: (_area(entry), entry.tried.number))


def _first_of(entries: Sequence[Effect]) -> Effect | None:
    """Of changes of the whole image that do as much, with or without their controls, the first.

    Each does what those after it do too.
    """
    changed = max((entry.changed for entry in entries), default=0.0)
    effect = max((entry.effect for entry in entries), default=0.0)
    as_good = (e for e in entries if e.changed >= AS_MANY * changed or e.effect >= AS_MANY * effect)
    return next(as_good, None)


def _each_alone(entry: Effect, single: Sequence[Effect]) -> bool:
    """Whether several places are each sure by themselves: some single one is on it, and on no other."""
    places = entry.tried.candidate.change.places
    ones = [other.tried.candidate.change.places[0] for other in single if other.tried.candidate.change.places]

    def has_own(box: Box) -> bool:
        others = [other for other in places if other != box]
        return any(one.shared(box) and not any(one.shared(other) for other in others) for one in ones)

    return len(places) > 1 and all(map(has_own, places))


def _area(entry: Effect) -> int:
    return sum(box.area for box in entry.tried.candidate.change.places)


def _better(place: Effect | None, moving: Effect | None) -> Effect | None:
    """What lies at a fixed place seems to move as well: it is found in every image where it is."""
    if place and moving:
        return moving if moving.shares[0] > place.shares[0] + MORE else place
    return place or moving


def looked_at(tried: Sequence[Tried], found: Sequence[Effect], stands_out: float) -> list[Tried]:
    """Of each target without a finding of a place, the place that stands out most in its gradients."""
    local = {entry.tried.judged for entry in found if entry.tried.candidate.change.local}
    best: dict[int, Tried] = {}
    for entry in tried:
        score = entry.candidate.score
        known = best.get(entry.judged)
        if entry.judged not in local and score >= max(stands_out, known.candidate.score if known else 0):
            best[entry.judged] = known or entry
    return sorted(best.values(), key=lambda entry: -entry.candidate.score)
