"""What is to be tried of a folded audit, on which images: written once, read by every worker.

For each target there is one unit of work. It is chosen from the sample in the aggregate alone, so that it is
the same whatever the runner; and how many images are changed follows from `findings.images` and, where that
would take longer than `findings.seconds`, from a speed that is measured once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from augnet.audits.run import Run
from augnet.findings.candidates import Candidate, candidates_of
from augnet.findings.interventions import Box, Change
from augnet.findings.properties import CHANGES
from augnet.findings.trials import Groups, Target
from augnet.sources import ImageRef
from augnet.statistics.sample import MIN_IMAGES, GroupSample, Sampled

log = logging.getLogger(__name__)

PASSES = 800
"""Forward passes for each target, about, where little is found."""
BOXES = ("places", "hot")
"""Parts of a change that are boxes."""
END = 3
"""Of a regression, the images of the highest and of the lowest third are compared."""


def expected_passes(run: Run) -> int:
    """Forward passes that the interventions of an audit take, about; more where much is found."""
    sides = 2 if run.task in ("binary", "regression") else 1
    images = run.images if run.task == "regression" else run.images // MIN_IMAGES
    return run.config.findings.enabled * min(sides * run.model.output_count, images) * PASSES


@dataclass(frozen=True)
class Design:
    """All targets, and the images that they are tried on.

    Attributes:
        images: by number.
        outputs: (m, K) float32 of each image, as measured by the audit.
        targets, groups, candidates: one of each for every unit of work.
    """

    images: tuple[ImageRef, ...]
    outputs: np.ndarray
    targets: tuple[Target, ...]
    groups: tuple[Groups, ...]
    candidates: tuple[tuple[Candidate, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "images": [[image.image_id, image.uri, image.label] for image in self.images],
            "outputs": [[float(value) for value in row] for row in self.outputs],
            "units": [
                {
                    "target": asdict(target),
                    "groups": {
                        "donors": groups.donors.tolist(),
                        "receivers": groups.receivers.tolist(),
                        "foreign": groups.foreign.tolist(),
                        "third": groups.third,
                    },
                    "candidates": [
                        {
                            "change": written(entry.change),
                            "donors": list(entry.donors),
                            "shares": list(entry.shares),
                            "score": entry.score,
                        }
                        for entry in candidates
                    ],
                }
                for target, groups, candidates in zip(self.targets, self.groups, self.candidates, strict=True)
            ],
        }

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Design:
        """What to_json() gave."""
        units = tree["units"]
        groups = [unit["groups"] for unit in units]
        return cls(
            images=tuple(ImageRef(*image) for image in tree["images"]),
            outputs=np.array(tree["outputs"], np.float32),
            targets=tuple(Target(**unit["target"]) for unit in units),
            groups=tuple(
                Groups(
                    donors=np.array(part["donors"], np.int64),
                    receivers=np.array(part["receivers"], np.int64),
                    foreign=np.array(part["foreign"], np.int64),
                    third=part["third"],
                )
                for part in groups
            ),
            candidates=tuple(
                tuple(
                    Candidate(
                        _change(entry["change"]),
                        tuple(entry["donors"]),
                        tuple(entry["shares"]),
                        entry["score"],
                    )
                    for entry in unit["candidates"]
                )
                for unit in units
            ),
        )


def written(change: Change) -> dict[str, Any]:
    """A change as plain JSON values."""
    parts = {key: [vars(box) for box in part] if key in BOXES else part for key, part in vars(change).items()}
    return {"name": type(change).__name__, **parts}


def _change(tree: Mapping[str, Any]) -> Change:
    parts = {key: part for key, part in tree.items() if key != "name"}
    parts |= {key: tuple(Box(**box) for box in parts[key]) for key in BOXES if key in parts}
    if "seen" in parts:
        parts["seen"] = tuple(tuple(window) for window in parts["seen"])
    return CHANGES[tree["name"]](**parts)


def design_of(sample: GroupSample, run: Run) -> Design:
    """What to try of the sampled images of a run."""
    height, width, channels = run.model.input_shape
    numbers: dict[str, int] = {}
    sampled: list[Sampled] = []
    for group in sorted(sample.groups):
        for image in sample.groups[group]:
            if image.image_id not in numbers:
                numbers[image.image_id] = len(sampled)
                sampled.append(image)
    found = [
        (target, donors, receivers)
        for target, donors, receivers in _targets(sample, run)
        if len(donors) >= MIN_IMAGES and len(receivers) >= MIN_IMAGES
    ]
    shares = {
        number: np.stack([image.shares for image in donors]) for number, (_, donors, _) in enumerate(found)
    }
    greys = {
        number: (np.stack([image.grey for image in donors]), np.stack([image.grey for image in receivers]))
        for number, (_, donors, receivers) in enumerate(found)
    }
    candidates = candidates_of(shares, greys, (height, width), channels)
    return Design(
        images=tuple(ImageRef(image.image_id, image.uri, None) for image in sampled),
        outputs=np.array([image.outputs for image in sampled], np.float32).reshape(
            len(sampled), run.model.output_count
        ),
        targets=tuple(target for target, _, _ in found),
        groups=tuple(_groups(target, donors, receivers, numbers) for target, donors, receivers in found),
        candidates=tuple(tuple(candidates[number]) for number in range(len(found))),
    )


def _targets(sample: GroupSample, run: Run) -> list[tuple[Target, list[Sampled], list[Sampled]]]:
    """Every target with its donors and its receivers, by rank."""
    task, logits = run.task, run.model.gives_logits
    if task == "multiclass":
        return [
            (Target(output, True, task, logits), donors, _others(sample, output))
            for (output, _), donors in sorted(sample.groups.items())
        ]
    if task == "regression":
        return [end for (output, _), images in sorted(sample.groups.items()) for end in _ends(output, images)]
    sides = (True, False) if task == "binary" else (True,)
    return [
        (Target(output, side, task, logits), donors, sample.groups.get((output, not side), []))
        for (output, side), donors in sorted(sample.groups.items())
        if side in sides
    ]


def _others(sample: GroupSample, output: int) -> list[Sampled]:
    """The images of other predictions, as many as a group holds."""
    others = [image for (other, _), images in sample.groups.items() if other != output for image in images]
    return sorted(others)[: sample.size]


def _ends(output: int, images: Sequence[Sampled]) -> list[tuple[Target, list[Sampled], list[Sampled]]]:
    """To have more of a number, and to have less: from the images of one end into those of the other."""
    values = np.array([image.outputs[output] for image in images], np.float64)
    scale = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if not scale > 0:
        return []
    order = np.argsort(values, kind="stable")
    third = len(images) // END
    low, high = (sorted(images[k] for k in part) for part in (order[:third], order[len(order) - third :]))
    more, less = (Target(output, positive, "regression", scale=scale) for positive in (True, False))
    return [(more, high, low), (less, low, high)]


def _groups(
    target: Target, donors: Sequence[Sampled], receivers: Sequence[Sampled], numbers: Mapping[str, int]
) -> Groups:
    own, others = ([numbers[image.image_id] for image in images] for images in (donors, receivers))
    predicted = [int(image.outputs.argmax()) if target.task == "multiclass" else 0 for image in receivers]
    return Groups(np.array(own), np.array(others), *_foreign(others, predicted))


def _foreign(receivers: Sequence[int], predicted: Sequence[int]) -> tuple[np.ndarray, bool]:
    """For each receiver the next one that is predicted as something else; the next one where none is."""
    count, third = len(receivers), len(set(predicted)) > 1
    foreign = []
    for k in range(count):
        step = next((n for n in range(1, count) if predicted[(k + n) % count] != predicted[k]), 1)
        foreign.append(receivers[(k + step) % count])
    return np.array(foreign), third
