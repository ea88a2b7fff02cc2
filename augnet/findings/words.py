"""What was found, in sentences for people who never heard of a gradient."""

from __future__ import annotations

from collections.abc import Sequence

from augnet.findings.decision import Effect
from augnet.findings.interventions import Box, Change
from augnet.findings.trials import Target

PROPERTIES = {
    "moving": "a detail that lies elsewhere in every image",
    "colour": "the colour cast",
    "brightness": "the brightness",
    "contrast": "the contrast",
    "blur": "how sharp or blurred the image is",
    "frequency": "a fine, regular pattern",
    "background": "the background around the object",
}
"""Kind -> what it is."""


def output_name(output: int, label: str | None) -> str:
    """'output 3 (cat)' where a label names the output, else 'output 3'."""
    number = f"output {output}"
    return f"{number} ({label})" if label and label != str(output) else number


def sentence(effect: Effect, target: Target, name: str, size: tuple[int, int]) -> str:
    """What was done to how many images, and what became of them."""
    change = effect.tried.candidate.change
    thing = property_text(change, size)
    goal = name if target.positive else f"not {name}"
    it, them, s = ("it", "it", "s") if len(change.places) < 2 else ("they", "them", "")
    other = "another part, or that of other images," if change.local else "that of other images"
    enough, needed = effect.enough, effect.needed
    if target.task == "regression":
        way = "up" if target.positive else "down"
        text = (
            f"{name} leans on {thing}: to put {them} into {enough.count} images moved it {way} by "
            f"{enough.changed:.2f} standard deviations, and {enough.control:.2f} where {other} was put"
        )
        if needed is None:
            return text
        back = f"moved it back by {needed.changed:.2f}"
        if not change.local:
            return f"{text}; to give that of others to the {needed.count} that show it most {back}"
        return (
            f"{text}; to take {them} from the {needed.count} that show {them} most {back}, and "
            f"{needed.control:.2f} where {other} was taken"
        )
    text = (
        f"{goal} leans on {thing}: put into {enough.count} images of other predictions, {it} bring{s} them "
        f"{enough.changed:.0%} of the way to {goal}, and {other} {enough.control:.0%}"
    )
    if needed is None:
        return text
    way = f"{needed.changed:.0%} of the way from {goal}"
    if not change.local:
        return f"{text}; with that of others, the {needed.count} that show it most go {way}"
    return (
        f"{text}; taken from the {needed.count} that show {them} most, {it} take{s} them {way}, and {other} "
        f"{needed.control:.0%}"
    )


def looks_sentence(change: Change, name: str, size: tuple[int, int], min_effect: float) -> str:
    """What gradients show and interventions do not confirm."""
    return (
        f"{name} looks at {property_text(change, size)} more than others do, but does not depend on it: "
        f"changing it moves predictions by less than {min_effect:.0%} more than other changes do"
    )


def property_text(change: Change, size: tuple[int, int]) -> str:
    """'the lower right corner (rows 9 to 10, columns 9 to 10)'."""
    if not change.places:
        return PROPERTIES[change.kind]
    return " together with ".join(place_text(box, size) for box in change.places)


def place_text(box: Box, size: tuple[int, int]) -> str:
    """Where a box lies in a picture of (height, width), in words and in pixels."""
    rows = _span("row", box.y, box.height)
    columns = _span("column", box.x, box.width)
    return f"{_where(box, size)} ({rows}, {columns})"


def _span(noun: str, first: int, count: int) -> str:
    return f"{noun} {first}" if count == 1 else f"{noun}s {first} to {first + count - 1}"


def _where(box: Box, size: tuple[int, int]) -> str:
    vertical = _third((box.y + box.height / 2) / size[0], ("upper", "middle", "lower"))
    horizontal = _third((box.x + box.width / 2) / size[1], ("left", "middle", "right"))
    if vertical == horizontal == "middle":
        return "the centre"
    if "middle" in (vertical, horizontal):
        return f"the {vertical if horizontal == 'middle' else horizontal} edge"
    return f"the {vertical} {horizontal} corner"


def _third(share: float, words: Sequence[str]) -> str:
    return words[min(2, int(share * 3))]
