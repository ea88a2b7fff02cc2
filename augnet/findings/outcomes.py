"""What the arms of a trial come to: how far images were changed, and how far by their strongest control."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
"""Arms of "is it needed": replaced by the receivers'; and, of what is at a place, painted over; and either at
another place."""

PROMISING = 0.75
"""Of the smallest effect that counts: a candidate that does as much on a few images is tried on all. At the
default it is about one standard error less."""

SLIGHT = 0.05
"""Of the way to the target: a property of the whole image that brings others less far, over its control, does
nothing. In the benchmark, that of classes which only need it does -0.1 to 0.0, of shortcuts 0.1 or more."""

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

    The other control, of places, is what the loss of what they have there does to images of other
    predictions. None where it was not asked.
    """
    lost = [evidence[name] for name in (TAKEN, PAINTED) if name in evidence]
    if not lost:
        return None
    gain = np.min(lost, axis=0)
    controls = [evidence[name] for name in (OTHER_TAKEN, OTHER_PAINTED) if name in evidence]
    own = Outcome.of(gain, np.max(controls, axis=0) if controls else np.zeros_like(gain))
    if PAINTED not in evidence:  # a property of the whole image
        return own
    others = evidence.get(FOREIGN, np.zeros(1))
    return own if own.control >= others.mean() else Outcome.apart(gain, others)


def weighed(shares: Sequence[float], local: bool) -> Sequence[float]:
    """Those that count of these shares, of "is it enough" and, where it was asked, of "is it needed".

    Of what is at a place all: their mean is what it does. A property of the whole image need not be needed,
    as most images have some of it: that it is adds to what it does, where it does anything, as what is
    natural to a class is needed too.
    """
    if not local and (shares[0] < SLIGHT or shares[0] >= max(shares)):
        return shares[:1]
    return shares


def promising(evidence: Evidence, local: bool, min_effect: float) -> bool:
    """Whether the effect over the controls that were run may come to the smallest that counts."""
    shares = [part.over_control for part in (enough(evidence), needed(evidence)) if part]
    effect = np.mean([max(0.0, share) for share in weighed(shares, local)])
    return bool(effect >= PROMISING * min_effect)
