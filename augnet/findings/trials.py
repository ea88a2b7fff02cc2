"""Candidates put to the test on the images of one target: forward passes only, first on few, then on all.

Two questions are asked of a candidate. Is it enough: do images of other predictions (receivers) become the
target's when they get the property of images that are (donors)? Is it needed: do donors stop being the
target's when it is taken from them? Each is asked together with matched controls, on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from augnet.findings.candidates import Candidate, shown_by
from augnet.findings.interventions import Change, Range
from augnet.findings.outcomes import (
    ELSEWHERE,
    ENOUGH,
    FILLED,
    FOREIGN,
    GIVEN,
    OTHER_PAINTED,
    OTHER_TAKEN,
    PAINTED,
    TAKEN,
    enough,
    needed,
)
from augnet.statistics.decision import Task

SCREENED = 24
"""Images that a candidate is tried on first."""
COMPARED = 96
"""Images of either side that are looked at to say which of them show a property of the whole most."""
PROMISING = 0.1
"""Effect on them from which on the controls are run, and, beyond these, all images."""

Predict = Callable[[np.ndarray], np.ndarray]
"""Images (n, height, width, channel) -> outputs (n, K)."""
Load = Callable[[np.ndarray], np.ndarray]
"""Numbers of images -> the images (n, height, width, channel)."""


@dataclass(frozen=True)
class Target:
    """What images may be made: to be predicted as an output, or to have more, or less, of it.

    Attributes:
        output: of the model.
        positive: to be of the output, or to have more of it; else not to be, or less.
        task: see `statistics.decision.task_of`.
        threshold: from which on a yes-or-no output means yes.
        scale: of a regression, the standard deviation of the output over the images; else 1.
    """

    output: int
    positive: bool
    task: Task
    threshold: float = 0.0
    scale: float = 1.0

    def score(self, outputs: np.ndarray) -> np.ndarray:
        """(n,) float64 of outputs (n, K): 1 for an image of the target, else 0; or the output in scale."""
        if self.task == "multiclass":
            return (outputs.argmax(axis=1) == self.output).astype(np.float64)
        values = outputs[:, self.output].astype(np.float64)
        if self.task == "regression":
            return values / (self.scale if self.positive else -self.scale)
        return ((values > self.threshold) == self.positive).astype(np.float64)


@dataclass(frozen=True)
class Arm:
    """One way of changing images for one candidate.

    Attributes:
        candidate: its number.
        name: GIVEN ...
        images, sources: (n,) numbers of what was changed, and of what it was changed by.
        after: (n, K) outputs.
    """

    candidate: int
    name: str
    images: np.ndarray
    sources: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class Groups:
    """The images of one trial, as numbers that `load` knows.

    Attributes:
        donors: of the target.
        receivers: not of it.
        foreign: for each receiver, another that is predicted as something else again; itself of no matter.
        third: whether there is such a third prediction.
    """

    donors: np.ndarray
    receivers: np.ndarray
    foreign: np.ndarray
    third: bool

    def first(self, count: int) -> Groups:
        """The same with at most so many receivers."""
        kept = self.receivers[:count]
        inside = np.isin(self.foreign[:count], kept)
        return Groups(
            self.donors, kept, np.where(inside, self.foreign[:count], np.roll(kept, -1)), self.third
        )


class Trial:
    """Runs the candidates of one target.

    Args:
        target: what images are to become.
        groups: the images.
        before: (m, K) outputs of all images by number.
        load, predict: see there.
        limits: of pixel values.
        size: height and width of the images.
    """

    def __init__(
        self,
        target: Target,
        groups: Groups,
        before: np.ndarray,
        load: Load,
        predict: Predict,
        limits: Range,
        size: tuple[int, int],
    ):
        self.target, self.groups, self._limits = target, groups, limits
        self._before, self._load, self._predict = before, load, predict
        self._size = size

    def run(self, candidates: Sequence[Candidate]) -> list[Arm]:
        """Every arm that was run, those of a candidate together."""
        return [arm for number, candidate in enumerate(candidates) for arm in self._tried(number, candidate)]

    def _tried(self, number: int, candidate: Candidate) -> list[Arm]:
        if not candidate.change.local:
            candidate = replace(candidate, donors=self._showing(candidate.change))
        first, more = self._arms(candidate.change)
        arms = [self._arm(number, candidate, name, SCREENED) for name in first]
        if self._promise(arms) >= PROMISING:
            arms += [self._arm(number, candidate, name, SCREENED) for name in more]
            if self._promise(arms) >= PROMISING:
                arms = [self._arm(number, candidate, name) for name in (*first, *more)]
        return arms

    def _promise(self, arms: Sequence[Arm]) -> float:
        """The effect that the arms so far show."""
        evidence = {arm.name: self.changed(arm) for arm in arms}
        asked = [part for part in (enough(evidence), needed(evidence)) if part]
        return float(np.mean([part.over_control for part in asked]))

    def _arms(self, change: Change) -> tuple[list[str], list[str]]:
        """What is run first, and what more where that changes something."""
        if not change.local:
            return [GIVEN], [FOREIGN]
        more = [FOREIGN, ELSEWHERE, OTHER_PAINTED]
        if change.places:
            more += [TAKEN, OTHER_TAKEN] if self.groups.third else [TAKEN, OTHER_TAKEN, FILLED]
        return [GIVEN, PAINTED], more

    def _showing(self, change: Change) -> tuple[int, ...]:
        """The donors that show most of what tells donors from receivers, by their traits."""
        donors, receivers = (
            change.traits(self._load(images[:COMPARED]), self._limits)
            for images in (self.groups.donors, self.groups.receivers)
        )
        able = [np.isfinite(traits).all(axis=1) for traits in (donors, receivers)]
        if not all(map(np.any, able)):
            return ()
        own, others = donors[able[0]], receivers[able[1]]
        spread = own.std(axis=0) + others.std(axis=0)
        apart = (own.mean(axis=0) - others.mean(axis=0)) / np.where(spread > 0, spread, 1) ** 2
        score = np.where(able[0], donors @ apart, -np.inf)
        return tuple(np.argsort(-score, kind="stable")[: shown_by(int(able[0].sum()))].tolist())

    def changed(self, arm: Arm) -> np.ndarray:
        """(n,) float64, how far each image came towards the target; in the arms of NEEDED, away from it."""
        before, after = self.scores(arm)
        return after - before if arm.name in ENOUGH else before - after

    def scores(self, arm: Arm) -> tuple[np.ndarray, np.ndarray]:
        """(n,) each, the target's score of every image before and after.

        An image that a foreign source made one of its own counts as much as one that it made the target's:
        what a place does for any class is no reason to name this one.
        """
        before, after = self.target.score(self._before[arm.images]), self.target.score(arm.after)
        if arm.name == FOREIGN and self.target.task == "multiclass":
            reached = arm.after.argmax(axis=1) == self._before[arm.sources].argmax(axis=1)
            after = np.maximum(after, reached)
        return before, after

    def _arm(self, number: int, candidate: Candidate, name: str, most: int | None = None) -> Arm:
        donors = self.groups.donors[list(candidate.donors)] if candidate.donors else self.groups.donors
        count = len(self.groups.receivers if name in ENOUGH else donors)
        pairs = np.arange(count if most is None else min(count, most))
        receivers = self.groups.receivers[pairs % len(self.groups.receivers)]
        change, others = candidate.change, []
        if name in ENOUGH:
            foreign = self.groups.foreign[pairs % len(self.groups.foreign)]
            images, sources = receivers, foreign if name == FOREIGN else donors[pairs % len(donors)]
        else:
            images, sources = donors[pairs], receivers
        if name in (ELSEWHERE, OTHER_TAKEN, OTHER_PAINTED):
            others = change.elsewhere(self._size)
        pictures = self._load(images)
        if name in (FILLED, PAINTED, OTHER_PAINTED):
            made = [other.painted(pictures) for other in others or [change]]
        else:
            given = self._load(sources)
            made = [other.put(pictures, given, self._limits) for other in others or [change]]
        changed = np.choose((pairs % len(made))[:, None, None, None], made)
        return Arm(number, name, images, sources, self._predict(changed))
