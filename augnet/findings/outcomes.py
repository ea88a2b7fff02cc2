"""What the arms of a trial come to: how far images were changed, and how far by their strongest control."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from augnet.statistics.paired import standard_error

ENOUGH = (GIVEN, FOREIGN, ELSEWHERE, FILLED) = ("given", "foreign", "elsewhere", "filled")
"""Arms of "is it enough": the donors' property; that of a third prediction's images, which is a control of
both questions; another part of the donors; and, where there is no third prediction, the places painted over:
what was there may have spoken against the target."""
NEEDED = (TAKEN, PAINTED, OTHER_TAKEN, OTHER_PAINTED) = (
    "taken",
    "painted",
    "other taken",
    "other painted",
)
"""Arms of "is it needed", of what is at a place: replaced by the receivers'; painted over; and either at
another place."""

PROMISING = 0.75
"""Of the smallest effect that counts: a candidate that does as much on a few images is tried on all. At the
default it is about one standard error less."""

Evidence = Mapping[str, np.ndarray]
"""Arm -> (n,) how far each image was changed; of one candidate."""


@dataclass(frozen=True)
class Outcome:
    """What happened to n images, and what their strongest control did to them.

    Attributes:
        changed, control: means; shares of predictions, or standard deviations.
        error: standard error of their difference.
    """

    changed: float
    control: float
    error: float
    count: int

    @classmethod
    def of(cls, gain: np.ndarray, control: np.ndarray) -> Outcome:
        """Of what the change did to each image (n,), and the control to the same images (n,)."""
        return cls(
            float(gain.mean()), max(0.0, float(control.mean())), standard_error(gain - control), len(gain)
        )

    @classmethod
    def apart(cls, gain: np.ndarray, control: np.ndarray) -> Outcome:
        """Of what the change did to each image (n,), and the control to others (m,)."""
        error = math.hypot(standard_error(gain), standard_error(control))
        return cls(float(gain.mean()), float(control.mean()), error, len(gain))

    @property
    def over_control(self) -> float:
        """What the change did beyond the control."""
        return self.changed - self.control


def enough(evidence: Evidence) -> Outcome:
    """What the property does to images of other predictions, beside the strongest control."""
    controls = [evidence[name] for name in (FOREIGN, ELSEWHERE, FILLED) if name in evidence]
    gain = evidence[GIVEN]
    strongest = max(controls, key=lambda control: float(control.mean()), default=np.zeros_like(gain))
    return Outcome.of(gain, strongest)


def needed(evidence: Evidence) -> Outcome | None:
    """What its loss does to the donors: one must change whichever way it is lost, and in no control.

    The other control is what the loss of what they have there does to images of other predictions. None where
    it was not asked.
    """
    if PAINTED not in evidence:
        return None
    gain = np.min([evidence[name] for name in (TAKEN, PAINTED) if name in evidence], axis=0)
    controls = [evidence[name] for name in (OTHER_TAKEN, OTHER_PAINTED) if name in evidence]
    own = Outcome.of(gain, np.max(controls, axis=0) if controls else np.zeros_like(gain))
    others = evidence.get(FOREIGN, np.zeros(1))
    return own if own.control >= others.mean() else Outcome.apart(gain, others)


def promising(evidence: Evidence, min_effect: float) -> bool:
    """Whether the mean effect over the controls that were run may come to the smallest that counts."""
    asked = [part for part in (enough(evidence), needed(evidence)) if part]
    effect = float(np.mean([max(0.0, part.over_control) for part in asked]))
    return effect >= PROMISING * min_effect
