"""What the judges found: one Check per judge, and the questions that none has answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

KINK_FACTOR = 10
"""A kink explains an error up to so many times the judge's own change: a few noises miss the worst."""
QUESTIONS = {"rows": "its rows", "slopes": "the slope of the outputs", "batches": "batches"}
"""What is asked, and how the command says it: one judge of each has to give an answer."""


@dataclass(frozen=True)
class Check:
    """One line of the table that verify gives.

    Attributes:
        question: what the judge is asked, a key of QUESTIONS.
        name: what was compared with what.
        images: images, or directions of images, that were compared.
        kinks: those of them left out, because a kink lies within the step or the rounding.
        error: the largest normwise relative difference of the others, in relation to what it may be.
        tolerance: what it may be.
        reason: why there is no such judge for this model, or "".
    """

    question: str
    name: str
    images: int
    kinks: int
    error: float
    tolerance: float
    reason: str = ""

    @property
    def judged(self) -> int:
        """How many of the images or directions it was judged on; on none, nothing is known."""
        return 0 if self.reason else self.images - self.kinks

    @property
    def passed(self) -> bool:
        """Whether it was judged, and the error is small enough."""
        return self.judged > 0 and self.error <= self.tolerance

    @property
    def failed(self) -> bool:
        """Whether it was judged, and the error is too large, or no number."""
        return self.judged > 0 and not self.error <= self.tolerance

    @property
    def can_gain(self) -> bool:
        """Whether more images may give it something to judge."""
        return not self.reason and not self.judged


def unanswered(checks: Iterable[Check]) -> list[str]:
    """Questions, in words, that no judge has answered: of these nothing is known."""
    open_ones = dict(QUESTIONS)
    for check in checks:
        if check.judged:
            open_ones.pop(check.question, None)
    return list(open_ones.values())


def joined(first: Sequence[Check], second: Sequence[Check]) -> list[Check]:
    """Two tables over different images, of one engine, as one."""
    table = []
    for one, other in zip(first, second, strict=True):
        judged = [check for check in (one, other) if check.judged]
        worst = max(judged, key=_ratio) if judged else one
        images, kinks = one.images + other.images, one.kinks + other.kinks
        table.append(replace(worst, images=images, kinks=kinks, reason=one.reason or other.reason))
    return table


def _ratio(check: Check) -> float:
    return float("inf") if np.isnan(check.error) else check.error / check.tolerance


@dataclass(frozen=True)
class Finding:
    """Comparisons of one image by one judge: arrays of one length.

    Attributes:
        errors: normwise relative differences.
        restless: how much the judge itself changes near the image; infinite where it cannot judge.
        allowed: what an error may be.
    """

    errors: np.ndarray
    restless: np.ndarray
    allowed: np.ndarray


def check_of(question: str, name: str, findings: list[Finding], reason: str) -> Check:
    """The worst of the comparisons that no kink explains."""
    if reason or not findings:
        return Check(question, name, 0, 0, 0.0, 0.0, reason)
    errors, restless, allowed = (
        np.concatenate([getattr(finding, part) for finding in findings])
        for part in ("errors", "restless", "allowed")
    )
    kinks = ((errors > allowed) & (errors < KINK_FACTOR * restless)) | np.isinf(restless)
    if kinks.all():
        return Check(question, name, errors.size, errors.size, 0.0, float(allowed.max()))
    ratios = np.where(np.isnan(errors), np.inf, errors / allowed)
    worst = int(np.argmax(np.where(kinks, -1.0, ratios)))
    return Check(question, name, errors.size, int(kinks.sum()), float(errors[worst]), float(allowed[worst]))
