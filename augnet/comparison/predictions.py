"""Predictions that flipped from one audit to another, in which direction, and what accuracy that cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.comparison.differences import Change
from augnet.comparison.join import JoinedOutputs
from augnet.comparison.sides import Side
from augnet.statistics.intervals import (
    Interval,
    paired_share_interval,
    share_interval,
    two_share_interval,
)

LISTED = 20
"""Directions, and images that went from right to wrong, that are named; all are counted."""


@dataclass(frozen=True)
class Share:
    """A share of images, with its interval."""

    count: int
    images: int
    share: float
    interval: Interval

    @classmethod
    def of(cls, count: int, images: int) -> Share:
        return cls(count, images, count / images if images else 0.0, share_interval(count, images))


@dataclass(frozen=True)
class Flips:
    """Images in both audits whose prediction changed.

    Attributes:
        changed: of all images with a prediction in both.
        negative: right before and wrong after, of the images with a label in both (negative flips: Yan et al.
            2021, arXiv 2011.09161).
        positive: wrong before and right after.
        directions: the most frequent: name before, name after, images.
        lost: names of the negative flips, the surest after first.
    """

    changed: Share
    negative: Share
    positive: Share
    directions: list[dict[str, Any]]
    lost: list[str]


def accuracy_change(sides: tuple[Side, Side], paired: bool) -> Change | None:
    """The change of accuracy, over images with a label that both models have an output for."""
    right = [side.values("correct") for side in sides]
    if paired:
        judged = ~np.isnan(right[0]) & ~np.isnan(right[1])
        right = [part[judged] for part in right]
    else:
        right = [part[~np.isnan(part)] for part in right]
    if not all(map(len, right)):
        return None
    counts = [(int(part.sum()), len(part)) for part in right]
    before, after = (count / images for count, images in counts)
    if paired:
        gained, lost = (int(np.sum(right[k] > right[1 - k])) for k in (1, 0))
        bounds = paired_share_interval(gained, lost, len(right[0]))
    else:
        bounds = two_share_interval(*counts)
    relative = [bound / before for bound in bounds] if before else None
    return Change(
        images=min(images for _, images in counts),
        before=before,
        after=after,
        difference=after - before,
        interval=bounds,
        relative=(after - before) / before if before else None,
        relative_interval=None if relative is None else (relative[0], relative[1]),
    )


def find_flips(sides: tuple[Side, Side], outputs: JoinedOutputs) -> Flips:
    """The flips between two audits of the same images; an output without a counterpart counts as a flip."""
    predicted = [side.values("predicted") for side in sides]
    known = ~np.isnan(predicted[0]) & ~np.isnan(predicted[1])
    classes = [np.where(known, part, -1).astype(np.int64) for part in predicted]
    counterpart = np.full(
        max(int(classes[0].max(initial=0)), *(pair[0] for pair in outputs.pairs), 0) + 1, -2
    )
    for before, after in outputs.pairs:
        counterpart[before] = after
    changed = known & (counterpart[np.maximum(classes[0], 0)] != classes[1])
    right = [side.values("correct") for side in sides]
    judged = int(np.sum(~np.isnan(right[0]) & ~np.isnan(right[1])))
    lost, gained = (right[0] == 1) & (right[1] == 0), (right[0] == 0) & (right[1] == 1)
    return Flips(
        changed=Share.of(int(changed.sum()), int(known.sum())),
        negative=Share.of(int(lost.sum()), judged),
        positive=Share.of(int(gained.sum()), judged),
        directions=_directions(classes, changed, outputs),
        lost=_surest(sides, np.flatnonzero(lost)),
    )


def _directions(
    classes: list[np.ndarray], changed: np.ndarray, outputs: JoinedOutputs
) -> list[dict[str, Any]]:
    pairs = Counter(zip(*(part[changed].tolist() for part in classes), strict=True))
    names: list[dict[int, str]] = [
        {pair[side]: outputs.name(k) for k, pair in enumerate(outputs.pairs)} for side in (0, 1)
    ]
    found = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:LISTED]
    return [
        {
            "before": names[0].get(before, f"output {before}"),
            "after": names[1].get(after, f"output {after}"),
            "images": count,
        }
        for (before, after), count in found
    ]


def _surest(sides: tuple[Side, Side], lost: np.ndarray) -> list[str]:
    probability = np.nan_to_num(sides[1].values("probability")[lost])
    chosen = lost[np.argsort(-probability, kind="stable")][:LISTED]
    names: list[str] = pc.take(sides[0].table["image_id"], pa.array(chosen)).to_pylist()
    return names
