"""Candidates put to the test on the images of one target: forward passes only, first on few, then on all.

Two questions are asked of a candidate. Is it enough: do images of other predictions (receivers) become the
target's when they get the property of images that are (donors)? Is it needed: do donors stop being the
target's when it is taken from them? Each is asked together with matched controls, on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from augnet.findings.candidates import Candidate, clearest
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
    SLIGHT,
    TAKEN,
    enough,
    needed,
    promising,
)
from augnet.findings.properties import Pictures, Property
from augnet.statistics.decision import Task, of_logits, threshold

SCREENED, SETTLED = 16, 48
"""Images that a candidate is tried on first, and until it is clear whether it is tried on all."""
STAGES = 4
"""Of arms, see `Trial.run`: what does too little in one is not tried in the next."""
COMPARED = 96
"""Images of either side that are looked at to say which of them show a property of the whole most."""
TOGETHER_BYTES = 128 * 1024**2
"""Of changed images, from which on they are predicted before more are made."""

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
        logits: whether outputs are those before a softmax or sigmoid.
        scale: of a regression, the standard deviation of the output over the images; else 1.
    """

    output: int
    positive: bool
    task: Task
    logits: bool = True
    scale: float = 1.0

    def score(self, outputs: np.ndarray) -> np.ndarray:
        """(n,) float64 of outputs (n, K): how near an image is to the target; or the output in scale.

        It is the mean of the decision, 1 or 0, and of its probability: what an unsure model decides tells
        little, and a sure one may be moved far without deciding otherwise.
        """
        if self.task == "multiclass":
            return self.nearness(outputs, np.full(len(outputs), self.output))
        values = outputs[:, self.output].astype(np.float64)
        if self.task == "regression":
            return values / (self.scale if self.positive else -self.scale)
        decided = (values > threshold(self.logits)) == self.positive
        yes = self._shares(outputs)[:, self.output]
        return (decided + (yes if self.positive else 1 - yes)) / 2

    def nearness(self, outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """(n,) float64 of outputs (n, K): how near each image is to its class (n,)."""
        shares = np.take_along_axis(self._shares(outputs), classes[:, None], axis=1)[:, 0]
        return ((outputs.argmax(axis=1) == classes) + shares) / 2

    def moved(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """(n,) float64 of outputs (n, K) each: how far predictions moved, whatever to."""
        changed = before.argmax(axis=1) != after.argmax(axis=1)
        return (changed + np.abs(self._shares(after) - self._shares(before)).sum(axis=1) / 2) / 2

    def _shares(self, outputs: np.ndarray) -> np.ndarray:
        """(n, K) float64 probabilities; zero where outputs are not finite."""
        values = outputs.astype(np.float64)
        return np.nan_to_num(of_logits(values, self.task) if self.logits else values)


@dataclass(frozen=True)
class Arm:
    """One way of changing images for one candidate, and what became of them.

    Attributes:
        candidate: its number.
        name: GIVEN ...
        local: whether a part of the images was changed.
        images, sources: (n,) numbers of what was changed, and of what it was changed by.
        before, after: (n,) float64, the target's score of each image; empty before they are predicted.
        output: (n,) the target's output of each changed image; the same.
    """

    candidate: int
    name: str
    local: bool
    images: np.ndarray
    sources: np.ndarray
    before: np.ndarray = field(default_factory=lambda: np.empty(0))
    after: np.ndarray = field(default_factory=lambda: np.empty(0))
    output: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def changed(self) -> np.ndarray:
        """(n,) float64, how far each image came towards the target; in the arms of NEEDED, away from it."""
        return self.after - self.before if self.name in ENOUGH else self.before - self.after

    def followed_by(self, other: Arm) -> Arm:
        """The same arm on this one's images and then on the other's."""
        joined = (
            np.concatenate([getattr(self, name), getattr(other, name)])
            for name in ("images", "sources", "before", "after", "output")
        )
        return Arm(self.candidate, self.name, self.local, *joined)


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
        min_effect: the smallest that counts.
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
        min_effect: float,
    ):
        self.target, self.groups, self._limits = target, groups, limits
        self._before, self._load, self._predict = before, load, predict
        self._size, self._min_effect = size, min_effect

    def run(self, candidates: Sequence[Candidate]) -> list[Arm]:
        """Every arm that was run, those of a candidate together.

        All candidates are tried on the first few images; what changes some of them is tried with one control
        after the other, what does more than these on more images, and what still does on all.
        """
        showing = self._showing([entry.change for entry in candidates])
        asked = {
            number: replace(entry, donors=showing.get(entry.change.kind, entry.donors))
            for number, entry in enumerate(candidates)
        }
        kept, arms = asked, {number: list[Arm]() for number in asked}
        for stage in range(STAGES):
            for n, found in self._run(kept, [stage], slice(SCREENED)).items():
                arms[n] += found
            kept = _promising(kept, arms, lambda _: self._min_effect)
        for part in (slice(SCREENED, SETTLED), slice(SETTLED, None)):
            more = self._run(kept, range(STAGES), part)
            for n in kept:
                others = {arm.name: arm for arm in more[n]}
                arms[n] = [
                    arm.followed_by(others[arm.name]) if arm.name in others else arm for arm in arms[n]
                ]
            kept = _promising(kept, arms, lambda change: change.least(self._min_effect, self._size))
        return [arm for number in asked for arm in arms[number]]

    def _run(
        self,
        candidates: Mapping[int, Candidate],
        stages: Iterable[int],
        part: slice,
    ) -> dict[int, list[Arm]]:
        """The arms of these stages on a part of the images, predicted together: many fill a batch."""
        found: dict[int, list[Arm]] = {number: [] for number in candidates}
        waiting: list[tuple[Arm, np.ndarray]] = []

        def predict() -> None:
            if waiting:
                after = self._predict(np.concatenate([pictures for _, pictures in waiting]))
                ends = np.cumsum([len(pictures) for _, pictures in waiting])
                for (arm, _), outputs in zip(waiting, np.split(after, ends[:-1]), strict=True):
                    found[arm.candidate].append(self.scored(arm, outputs))
                waiting.clear()

        for number, candidate in candidates.items():
            arms = self._stages(candidate.change)
            for name in [name for stage in stages for name in arms[stage]]:
                waiting += self._changed(number, candidate, name, part)
                if sum(pictures.nbytes for _, pictures in waiting) >= TOGETHER_BYTES:
                    predict()
        predict()
        return found

    def _stages(self, change: Change) -> list[list[str]]:
        """The arms of a candidate: those that are run of each; whether it is needed, of what has no place of
        its own; the control that rules out most of what is natural; and those of what is left."""
        paints = change.both_ways and change.local
        left = [ELSEWHERE] if change.local else []
        left += [TAKEN, OTHER_PAINTED, OTHER_TAKEN] if paints else []
        left += [FILLED] if change.places and not self.groups.third else []
        loss = [PAINTED] if paints else [TAKEN] if change.both_ways else []
        first = [[GIVEN, *loss], []] if change.places else [[GIVEN], loss]
        return [*first, [FOREIGN], left]

    def _showing(self, changes: Iterable[Change]) -> dict[str, tuple[int, ...]]:
        """Kind of property -> the donors that show most of what tells donors from receivers."""
        groups = (self.groups.donors, self.groups.receivers)
        own, others = (Pictures(self._load(part[:COMPARED]), self._limits) for part in groups)
        properties = {change.kind: change for change in changes if isinstance(change, Property)}
        return {
            kind: clearest(change.traits(own), change.traits(others)) for kind, change in properties.items()
        }

    def scored(self, arm: Arm, outputs: np.ndarray) -> Arm:
        """The arm with the outputs (n, K) of its changed images.

        What a foreign source does counts too where it brings an image nearer to that source's own class: what
        a place does for any class is no reason to name this one. What is done to the whole image counts
        whatever it becomes, as other images' light or waves are typical of no class.
        """
        earlier = self._before[arm.images]
        before, after = self.target.score(earlier), self.target.score(outputs)
        if arm.name == FOREIGN and self.target.task == "multiclass":
            if arm.local:
                source = self._before[arm.sources].argmax(axis=1)
                third = source != earlier.argmax(axis=1)
                gained = self.target.nearness(outputs, source) - self.target.nearness(earlier, source)
                after = after + np.where(third, gained, 0)
            else:
                after = before + self.target.moved(earlier, outputs)
        return replace(arm, before=before, after=after, output=outputs[:, self.target.output])

    def _changed(
        self, number: int, candidate: Candidate, name: str, part: slice
    ) -> list[tuple[Arm, np.ndarray]]:
        """One arm of a candidate on a part of its images, and these changed; none where there are none."""
        donors = self.groups.donors[list(candidate.donors)] if candidate.donors else self.groups.donors
        count = len(self.groups.receivers if name in ENOUGH else donors)
        pairs = np.arange(count)[part]
        if not len(pairs):
            return []
        receivers = self.groups.receivers[pairs % len(self.groups.receivers)]
        change, others = candidate.change.after(part.start or 0), []
        if name in ENOUGH:
            foreign = self.groups.foreign[pairs % len(self.groups.foreign)]
            images, sources = receivers, foreign if name == FOREIGN else donors[pairs % len(donors)]
        else:
            images, sources = donors[pairs], receivers
        if name in (ELSEWHERE, OTHER_TAKEN, OTHER_PAINTED):
            others = change.elsewhere(self._size)
        pictures = self._load(images)
        paint = name in (FILLED, PAINTED, OTHER_PAINTED)
        given = pictures if paint else self._load(sources)
        changed = np.empty_like(pictures)
        ways = others or [change]  # in turns
        for first, way in enumerate(ways):
            turn = slice(first, None, len(ways))
            into, of = pictures[turn], given[turn]
            if paint:
                changed[turn] = way.painted(into)
            else:
                changed[turn] = (way.put if name in ENOUGH else way.take)(into, of, self._limits)
        return [(Arm(number, name, change.local, images, sources), changed)]


def _promising(
    candidates: Mapping[int, Candidate],
    arms: Mapping[int, Sequence[Arm]],
    effect: Callable[[Change], float],
) -> dict[int, Candidate]:
    """Those of the candidates whose arms may come to that effect, or are still to be asked whether needed."""

    def is_one(change: Change, own: Sequence[Arm]) -> bool:
        evidence = {arm.name: arm.changed for arm in own}
        if change.both_ways and needed(evidence) is None:
            return enough(evidence).over_control >= SLIGHT
        return promising(evidence, change.local, effect(change))

    return {n: entry for n, entry in candidates.items() if is_one(entry.change, arms[n])}
