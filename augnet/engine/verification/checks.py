"""What the judges found: one Check per judge, and the questions that none has answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

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
        error, tolerance: of the others, the worst normwise relative difference, and what it may be.
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
        return self.judged > 0 and not self.passed

    @property
    def can_gain(self) -> bool:
        """Whether more images may give it something to judge."""
        return not self.reason and not self.judged


def unanswered(checks: Iterable[Check]) -> list[str]:
    """Questions, in words, that no judge has answered: of these nothing is known."""
    answered = {check.question for check in checks if check.judged}
    return [words for question, words in QUESTIONS.items() if question not in answered]


def joined(first: Sequence[Check], second: Sequence[Check]) -> list[Check]:
    """Two tables over different images, of one engine, as one."""
    table = []
    for one, other in zip(first, second, strict=True):
        judged = [check for check in (one, other) if check.judged]
        worst = max(judged, key=lambda check: (check.failed, check.error / check.tolerance), default=one)
        images, kinks = one.images + other.images, one.kinks + other.kinks
        table.append(replace(worst, images=images, kinks=kinks, reason=one.reason or other.reason))
    return table


@dataclass
class Judge:
    """Gathers comparisons of one kind; question, name and reason are those of its Check."""

    question: str
    name: str
    reason: str = ""
    _noted: list[list[np.ndarray]] = field(default_factory=list)

    def note(self, errors: ArrayLike, restless: ArrayLike, allowed: ArrayLike) -> None:
        """Comparisons of an image: one number, or an array with one for each direction.

        Args:
            errors: normwise relative differences.
            restless: how much the judge itself changes near the image; infinite where it cannot judge.
            allowed: what an error may be.
        """
        self._noted.append(list(np.broadcast_arrays(np.atleast_1d(errors), restless, allowed)))

    def check(self) -> Check:
        """The worst of the comparisons that no kink explains."""
        if self.reason or not self._noted:
            return Check(self.question, self.name, 0, 0, 0.0, 0.0, self.reason)
        errors, restless, allowed = np.concatenate(self._noted, axis=1)
        kinks = ((errors > allowed) & (errors < KINK_FACTOR * restless)) | np.isinf(restless)
        ratios = np.where(kinks, -1.0, errors / allowed)
        worst = np.argmax(ratios)  # what is no number counts as largest
        error = 0.0 if kinks.all() else float(errors[worst])
        return Check(self.question, self.name, errors.size, int(kinks.sum()), error, float(allowed[worst]))
