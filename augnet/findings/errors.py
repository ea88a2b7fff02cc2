"""Error triage: which statistic tells wrong predictions from right ones, and the images to review by it.

Statistics are judged beside the baselines, what the outputs alone say (`statistics.confidence`), on the
images whose label names an output. The rule:

1. A score ranks the images from trusted to suspicious: a statistic by the end that the catalog calls worse,
   by the better of both where it names none. An image without a value is not suspected: it is ranked first.
2. Intervals are of bootstrap replicates of the images, the same for all scores.
3. A statistic beats the baselines when its AUROC is above that of the best baseline by more than the luckiest
   of all statistics gains by chance in 95 % of the replicates, and its AURC is below that of every baseline.

The images to review are the most suspicious by that statistic, else by the best baseline.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from augnet.audits.run import Run
from augnet.statistics.confidence import CONFIDENCES, class_logits, confidences
from augnet.statistics.decision import task_of
from augnet.statistics.describe import varies
from augnet.statistics.ranking import Areas, areas_of, ranks, resampled_areas
from augnet.statistics.summary import values_at
from augnet.storage.catalog import End, Statistic
from augnet.storage.reader import Audit

MIN_EACH = 10
"""Wrong predictions, and right ones, that are needed to judge a score."""
LEVEL = 0.95
REPLICATES, SEED = 500, 0
RESAMPLED, RARER = 10_000, 50
"""Replicates are drawn from a sample of so many images, or, where few predictions are wrong or few right, of
as many as hold about RARER of the rarer kind. Areas over n images vary by sqrt(m / n) of those over m.
"""
REVIEWED = 100

Values = Mapping[str, np.ndarray]
"""Baseline -> (n,) float64, of all images; NaN where there is none."""


@dataclass(frozen=True)
class Score:
    """A statistic or baseline, taken as a measure of suspicion.

    Attributes:
        end: where its suspicious images are.
    """

    name: str
    end: End

    @property
    def baseline(self) -> bool:
        """Whether it needs no gradient."""
        return self.name in CONFIDENCES

    def values(self, audit: Audit, baselines: Values) -> np.ndarray:
        """(n,) float64, of all images; NaN where there is none."""
        return baselines[self.name] if self.baseline else audit.column(self.name).to_numpy()

    def suspicion(self, values: np.ndarray) -> np.ndarray:
        """Its values, turned so that the suspicious ones are high."""
        return values if self.end == "highest" else -values


BASELINES = tuple(Score(name, end) for name, end in CONFIDENCES.items())
DEFAULT = BASELINES[0]
"""What images are listed by where no score can be judged."""


def scores_of(statistics: Mapping[str, Statistic]) -> tuple[Score, ...]:
    """The baselines, and the statistics at each end that is suspicious."""
    costly = (
        Score(name, end)
        for name, statistic in statistics.items()
        if name != "probability" and not statistic.uses_label  # the first of the baselines; knows the answer
        for end in ([statistic.worst] if statistic.worst else get_args(End))
    )
    return (*BASELINES, *costly)


@dataclass(frozen=True)
class Judged:
    """How well a score tells wrong predictions.

    Attributes:
        areas: over all judged images.
        deviations: (replicate,) what chance adds to each area.
    """

    score: Score
    areas: Areas
    deviations: Areas

    def as_json(self) -> dict[str, Any]:
        """Its row in triage.json."""
        row: dict[str, Any] = {"statistic": self.score.name, "end": self.score.end}
        for name, area, chance in zip(Areas._fields, self.areas, self.deviations, strict=True):
            ends = area + np.nanquantile(chance, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            row |= {name: float(area), f"{name}_interval": np.clip(ends, 0, 1).tolist()}
        return row | {"baseline": self.score.baseline}


def triage(audit: Audit, run: Run) -> dict[str, Any]:
    """What triage.json holds, of an audit whose statistics are written.

    Returns:
        errors, judged: wrong predictions, of those whose label names an output.
        rows: for every score that differs between images, the best AUROC first: statistic, end (where its
            suspicious images are), auroc, auroc_interval, aurc, aurc_interval, baseline. Empty where fewer
            than MIN_EACH predictions are wrong, or right.
        best: the score that orders `review`; None for a model whose outputs are no classes.
        beats_baselines: whether it needs the gradient, and is better than all that do not.
        sentence: the same in words.
        review: up to REVIEWED images, the most suspicious first, with a label or without: image_id,
            predicted, label, score.
    """
    correct = audit.column("correct")
    known = correct.is_valid().to_numpy()
    wrong = ~correct.drop_null().to_numpy().astype(bool)
    counts = {"errors": int(wrong.sum()), "judged": len(wrong)}
    baselines = _baselines(audit, run)
    if not baselines:
        return counts | {
            "rows": [],
            "best": None,
            "beats_baselines": False,
            "sentence": "The outputs are no classes of which one is right: no prediction can be judged.",
            "review": [],
        }
    enough = min(counts["errors"], counts["judged"] - counts["errors"]) >= MIN_EACH
    judged = _judged(audit, baselines, known, wrong) if enough else []
    free, costly = _of(judged, baseline=True), _of(judged, baseline=False)
    beats = _beats(free, costly)
    best = DEFAULT if not free else (costly if beats else free)[0].score
    rows = {entry.score.name: entry for entry in reversed(judged)}  # of a statistic's two ends the better
    return counts | {
        "rows": [entry.as_json() for entry in judged if rows[entry.score.name] is entry],
        "best": best.name,
        "beats_baselines": beats,
        "sentence": _sentence(free, costly, beats, counts),
        "review": _review(audit, best, best.values(audit, baselines)),
    }


def _baselines(audit: Audit, run: Run) -> Values:
    """By name, from the outputs of all images; none where they are no classes, of which one is right."""
    model = run.model
    task = task_of(model.activation, model.output_count, bool(run.label_outputs))
    if task not in ("multiclass", "binary"):
        return {}
    logits = model.gives_logits
    parts = []
    for column in audit.column_parts("outputs"):
        outputs = column.combine_chunks().flatten().to_numpy().reshape(-1, model.output_count)
        parts.append(confidences(class_logits(outputs, task, logits)))
    return {name: np.concatenate([part[name] for part in parts]) for name in CONFIDENCES}


def _judged(audit: Audit, baselines: Values, known: np.ndarray, wrong: np.ndarray) -> list[Judged]:
    """Every score that varies, the best AUROC first.

    Args:
        known: (n,) bool, the images that are judged.
        wrong: (judged,) bool.
    """
    rng = np.random.default_rng(SEED)
    images, errors = len(wrong), int(wrong.sum())
    size = min(images, max(RESAMPLED, RARER * images // min(errors, images - errors)))
    drawn = np.sort(rng.choice(images, size, replace=False)) if size < images else slice(None)
    scores: list[Score] = []
    found: list[Areas] = []
    rankings: list[np.ndarray] = []
    for score in scores_of(audit.scalars):
        values = score.values(audit, baselines)[known]
        if varies(values):
            rank = ranks(score.suspicion(values))
            scores.append(score)
            found.append(areas_of(rank, wrong))
            rankings.append(rank[drawn])
    replicates = resampled_areas(rankings, wrong[drawn], REPLICATES, rng)
    narrower = math.sqrt(size / images)
    judged = []
    for k, score in enumerate(scores):
        centre = areas_of(rankings[k], wrong[drawn])
        chance = (narrower * (areas[:, k] - middle) for areas, middle in zip(replicates, centre, strict=True))
        judged.append(Judged(score, found[k], Areas(*chance)))
    return sorted(judged, key=lambda entry: -entry.areas.auroc)


def _of(judged: Sequence[Judged], *, baseline: bool) -> list[Judged]:
    """The baselines, or what needs the gradient."""
    return [entry for entry in judged if entry.score.baseline is baseline]


def _beats(free: Sequence[Judged], costly: Sequence[Judged]) -> bool:
    """Whether the first statistic beats the baselines; both in descending order."""
    if not free or not costly:
        return False
    lead, rival = costly[0], free[0]
    gains = [entry.deviations.auroc - rival.deviations.auroc for entry in costly]
    luck = np.nanquantile(np.max(gains, axis=0), LEVEL)
    risks = [entry.areas.aurc for entry in free]
    return bool(lead.areas.auroc - rival.areas.auroc > luck and lead.areas.aurc < min(risks))


def _sentence(
    free: Sequence[Judged], costly: Sequence[Judged], beats: bool, counts: Mapping[str, int]
) -> str:
    if not counts["judged"]:
        return "No image has a label that names an output: no prediction can be judged."
    wrong = f"{counts['errors']:,} of {counts['judged']:,} judged predictions are wrong."
    if not free or not costly:
        return (
            f"{wrong} What tells them is not known: it takes {MIN_EACH} wrong and {MIN_EACH} right ones, "
            "and outputs and Jacobians that differ."
        )
    statistic, baseline = costly[0], free[0]
    verdict = f"{statistic.score.name} tells" if beats else "No statistic of the Jacobian is seen to tell"
    return (
        f"{wrong} {verdict} them better than the outputs alone: shown a wrong and a right prediction, "
        f"{statistic.score.name} picks the wrong one in {_share(statistic)} of the cases, "
        f"{baseline.score.name}, which needs no gradient, in {_share(baseline)}."
    )


def _share(judged: Judged) -> str:
    low, high = judged.as_json()["auroc_interval"]
    return f"{judged.areas.auroc:.1%} ({low:.1%} to {high:.1%})"


def _review(audit: Audit, score: Score, values: np.ndarray) -> list[dict[str, Any]]:
    """The most suspicious images; of equal ones, those that come first."""
    order = np.argsort(-score.suspicion(values), kind="stable")[:REVIEWED]  # NaN comes last
    order = order[~np.isnan(values[order])]
    images = np.sort(order)
    columns = {name: values_at(audit.column(name), images) for name in ("image_id", "predicted", "label")}
    place = np.searchsorted(images, order)
    return [
        {name: column[k] for name, column in columns.items()} | {"score": float(values[image])}
        for k, image in zip(place.tolist(), order.tolist(), strict=True)
    ]
