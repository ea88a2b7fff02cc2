"""Which findings about a case are right, which are false, and which are true without naming the shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from augnet.findings.predictions import is_guessing
from benchmarks.findings.cases import TEST_IMAGES, USED
from benchmarks.findings.shortcuts import Place
from benchmarks.findings.spec import PLACES

TOUCHES = 0.2
"""Least part of the smaller of two places that they must have in common."""
TOO_LARGE = 0.5
"""Part of the image from which on a place says nothing."""

NAMES = {
    **{kind: {"place"} for kind in PLACES},
    "moving": {"moving"},
    "colour": {"colour", "brightness"},
    "brightness": {"colour", "brightness"},
    "contrast": {"contrast"},
    "blur": {"blur", "frequency"},
    "frequency": {"blur", "frequency"},
    "background": {"background", "frequency"},  # stripes: models that know them know them anywhere
}
"""Planted kind -> the kinds of finding that name it."""

TRUE_TOO = {
    **{kind: {"moving"} for kind in PLACES},  # a convolution knows the patch wherever it is put
    "moving": {"place"},
    "contrast": {"blur", "frequency"},
    "blur": {"contrast"},
    "frequency": {"contrast", "background"},
    "background": {"contrast", "blur"},
}
"""Planted kind -> further kinds by which images of it differ from others: neither right nor false."""

NEEDED = 0.2
"""Share of the images losing their class without the shortcut from which on the new one needs its absence."""


@dataclass(frozen=True)
class Finding:
    """What an audit or a baseline says of an output; `places` may be empty."""

    kind: str
    output: int
    places: tuple[Place, ...]

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> Finding:
        """An entry of findings.json."""
        return cls(entry["kind"], entry["output"], tuple(Place(**place) for place in entry["places"]))


@dataclass(frozen=True)
class Score:
    """Findings about one case, counted.

    Attributes:
        named: whether at least one is right.
        right, true_too, false: findings.
    """

    named: bool
    right: int
    true_too: int
    false: int


def has_learned(case: dict[str, Any]) -> bool:
    """Whether the model does more than guess: one that guesses tells neither classes nor shortcuts.

    Whatever moves its few predictions is true of it, and was not planted.
    """
    return not is_guessing(case["accuracy"], len(case["classes"]), TEST_IMAGES)


def is_used(case: dict[str, Any]) -> bool:
    """Whether the planted shortcut is to be named."""
    return case["used"] and has_learned(case)


def is_control(case: dict[str, Any]) -> bool:
    """Whether nothing should be found.

    What is in images of all classes may still move a model to one of them, but not where every image has it.
    """
    if not has_learned(case):
        return False
    if case["kind"] == "all_classes":
        return case["strength"] == 1 or case["effect"] < USED
    return case["kind"] == "clean"


def score(case: dict[str, Any], findings: Sequence[Finding]) -> Score:
    """Count the findings about a case, `make_case`'s description of it."""
    grades = [grade(case, finding) for finding in findings]
    right, true_too = grades.count("right"), grades.count("true too")
    return Score(right > 0, right, true_too, len(grades) - right - true_too)


def grade(case: dict[str, Any], finding: Finding) -> str:
    """`right`, `true too` or `false`."""
    if not case["used"]:
        return "false"
    kind = case["kind"]
    places = [Place(**place) for place in case["places"]]
    names = finding.kind in NAMES[kind]
    if finding.kind == "place" and kind in PLACES:
        names = any(touch(found, place, case["size"]) for found in finding.places for place in places)
    if finding.output == case["output"]:
        return "right" if names else "true too" if finding.kind in TRUE_TOO.get(kind, ()) else "false"
    return "true too" if names and case["gains"][finding.output] >= NEEDED else "false"


def touch(found: Place, planted: Place, size: int) -> bool:
    """Whether a place that was found is small enough to say something, and on the planted one."""
    if found.height * found.width > TOO_LARGE * size**2:
        return False
    height = min(found.y + found.height, planted.y + planted.height) - max(found.y, planted.y)
    width = min(found.x + found.width, planted.x + planted.width) - max(found.x, planted.x)
    smaller = min(found.height * found.width, planted.height * planted.width)
    return max(0, height) * max(0, width) >= TOUCHES * smaller
