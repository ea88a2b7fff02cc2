"""Which images and outputs of two audits belong together, and whether their figures compare at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.config import config_keys
from augnet.errors import ConfigError
from augnet.statistics.decision import task_of
from augnet.storage.catalog import SCALARS
from augnet.storage.reader import Audit

LISTED = 20
"""Images in one audit only that are named; all are counted."""


@dataclass(frozen=True)
class Joined:
    """Images in both of two audits, by image_id.

    Attributes:
        before, after: (n,) int64 rows of `statistics` of each, in the order of BEFORE.
        only_before, only_after: how many images are in one only.
        listed_before, listed_after: the first of those, by name.
        relabelled: images in both whose labels differ: perhaps not the same images.
    """

    before: np.ndarray
    after: np.ndarray
    only_before: int
    only_after: int
    listed_before: tuple[str, ...]
    listed_after: tuple[str, ...]
    relabelled: int

    def __len__(self) -> int:
        return len(self.before)


@dataclass(frozen=True)
class JoinedOutputs:
    """Outputs in both of two audits: by class name where both have one, else by position.

    Attributes:
        pairs: (output of BEFORE, output of AFTER), ascending.
        names: of each pair, "" where there is none.
        only_before, only_after: outputs without a counterpart.
    """

    pairs: tuple[tuple[int, int], ...]
    names: tuple[str, ...]
    only_before: tuple[int, ...]
    only_after: tuple[int, ...]

    def name(self, pair: int) -> str:
        """'cat', or 'output 3' where it has no name."""
        return self.names[pair] or f"output {self.pairs[pair][0]}"


def join_images(before: pa.Table, after: pa.Table) -> Joined:
    """Join two tables of `image_id` and `label`, by Arrow's hash join."""
    sides = [
        pa.table({"image_id": table["image_id"], name: np.arange(len(table))})
        for name, table in (("before", before), ("after", after))
    ]
    both = sides[0].join(sides[1], "image_id", join_type="full outer")
    only_before, only_after = (both.filter(pc.is_null(both[other])) for other in ("after", "before"))
    met = both.filter(pc.and_(pc.is_valid(both["before"]), pc.is_valid(both["after"])))
    met = met.select(["before", "after"]).sort_by("before")
    labels = [table["label"].take(met[name]) for name, table in (("before", before), ("after", after))]
    return Joined(
        before=met["before"].to_numpy(),
        after=met["after"].to_numpy(),
        only_before=len(only_before),
        only_after=len(only_after),
        listed_before=_first(only_before, "before"),
        listed_after=_first(only_after, "after"),
        relabelled=pc.sum(pc.not_equal(*labels)).as_py() or 0,
    )


def _first(images: pa.Table, order: str) -> tuple[str, ...]:
    return tuple(images.sort_by(order)["image_id"].slice(0, LISTED).to_pylist())


def rows_in_all(audits: Sequence[Audit]) -> list[np.ndarray]:
    """Of each audit, (n,) rows of `statistics`: the images that are in all, in the order of the first."""
    joined: pa.Table | None = None
    for number, audit in enumerate(audits):
        ids = audit.column("image_id")
        table = pa.table({"image_id": ids, f"row{number}": np.arange(len(ids))})
        joined = table if joined is None else joined.join(table, "image_id", join_type="inner")
    assert joined is not None
    joined = joined.sort_by("row0")
    return [joined[f"row{number}"].to_numpy() for number in range(len(audits))]


def join_outputs(before: Audit, after: Audit) -> JoinedOutputs:
    """Join outputs; of a model with one yes-or-no output, its two classes."""
    counts = [class_count(audit) for audit in (before, after)]
    named = [output_names(audit) for audit in (before, after)]
    pairs = {index: named[1][name] for name, index in named[0].items() if name in named[1]}
    taken, nameless = set(pairs.values()), [set(names.values()) for names in named]
    for index in range(min(counts)):
        without_name = index not in nameless[0] or index not in nameless[1]
        if index not in pairs and index not in taken and without_name:
            pairs[index] = index
    names = {index: name for name, index in named[0].items()}
    found = tuple(sorted(pairs.items()))
    return JoinedOutputs(
        pairs=found,
        names=tuple(names.get(index, "") for index, _ in found),
        only_before=tuple(index for index in range(counts[0]) if index not in pairs),
        only_after=tuple(index for index in range(counts[1]) if index not in pairs.values()),
    )


def class_count(audit: Audit) -> int:
    """Classes that a model tells apart: its outputs, or the two sides of a single one that labels name."""
    outputs: int = audit.run["model"]["output_count"]
    return max(outputs, 2) if audit.run["label_outputs"] else outputs


def output_names(audit: Audit) -> dict[str, int]:
    """Class name -> output."""
    names: dict[str, int] = audit.run["label_outputs"]
    return names


Setting = Callable[[dict[str, Any]], Any]

SETTINGS: dict[str, tuple[str, Setting]] = {
    "preprocess.size": ("inputs of {} pixels", lambda run: run["model"]["input_shape"][:2]),
    "preprocess.color": ("inputs of {} channels", lambda run: run["model"]["input_shape"][2]),
    "model.space": (
        "outputs as {}",
        lambda run: (
            "logits"
            if run["model"]["space"] == "logits" or run["model"]["activation"] is None
            else "probabilities"
        ),
    ),
    "jacobian.input_space": (
        "change per unit of {} space",
        lambda run: run["config"]["jacobian"]["input_space"],
    ),
    "jacobian.outputs": (
        "rows of {} outputs",
        lambda run: json.dumps(run["config"]["jacobian"]["outputs"]).strip('"'),
    ),
    "jacobian.reduce": ("outputs reduced by {}", lambda run: run["config"]["jacobian"]["reduce"]),
    "statistics.border": ("a border of {}", lambda run: run["config"]["statistics"]["border"]),
}
"""What has to be the same in both audits, under the setting that decides it."""


def refuse_incomparable(before: Audit, after: Audit) -> None:
    """Raise ConfigError, naming the setting to change, where figures of two audits are not of one kind."""
    for audit in (before, after):
        _refuse_other_version(audit)
    runs = [audit.run for audit in (before, after)]
    for key, (what, setting) in SETTINGS.items():
        found = [setting(run) for run in runs]
        if found[0] != found[1]:
            here, there = (what.format(_plain(value)) for value in found)
            raise ConfigError(
                f"{before.folder} has {here}, {after.folder} has {there}: their figures do not compare; "
                f"audit both with the same {key}"
            )
    meanings = [_meaning(run) for run in runs]
    if meanings[0] != meanings[1]:
        raise ConfigError(
            f"the outputs of {before.folder} are {meanings[0]}, those of {after.folder} {meanings[1]}: their "
            "figures do not compare; audit both with the same images.labels and images.classes, which tell a "
            "classifier that returns logits from a regression"
        )
    scales = [run["preprocess"]["scale"] for run in runs]
    if scales[0] != scales[1] and runs[0]["config"]["jacobian"]["input_space"] == "model":
        raise ConfigError(
            f"{before.folder} scales pixels by {_plain(scales[0])}, {after.folder} by {_plain(scales[1])}, "
            "and both measure in units of that scale; audit both with jacobian.input_space: pixel"
        )
    columns = [set(audit.summary["statistics"]) for audit in (before, after)]
    if missing := sorted((columns[0] ^ columns[1]) & set(SCALARS)):
        raise ConfigError(
            f"{', '.join(missing)}: only one of {before.folder} and {after.folder} has these statistics; "
            "audit both with the same version of augnet (--fresh)"
        )


def _refuse_other_version(audit: Audit) -> None:
    """By its configuration, which has a key for everything that an audit can be asked for."""
    sections = {name: part for name, part in audit.run["config"].items() if isinstance(part, dict)}
    sections.pop("beam", None)
    keys = {f"{name}.{key}" for name, part in sections.items() for key in part}
    if keys ^ set(config_keys()) - {"output"}:
        raise ConfigError(
            f"{audit.folder} is of another version of augnet, whose figures may mean something else; audit "
            "again with this one (--fresh)"
        )


def _meaning(run: dict[str, Any]) -> str:
    model = run["model"]
    task = task_of(model["activation"], model["output_count"], bool(run["label_outputs"]))
    return {"multilabel": "yes-or-no answers", "regression": "numbers"}.get(task, "classes")


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " x ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
