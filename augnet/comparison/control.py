"""A trained model's audit against one of the same architecture with random weights: what did it really see?

A map that looks the same whatever the weights shows the architecture and the pictures, not what was learned
(Adebayo et al. 2018, arXiv 1810.03292). Two questions are asked of each map and of each statistic of maps.
*Order*: how far does the control alone put pixels, or images, in the same order (rank correlation; SSIM is
not used, as it misleads: arXiv 2211.12486)? *Level*: on how many images is the value higher than the
control's? The rise of the map's entropy with random weights (arXiv 2405.02383) is given too.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from augnet.comparison.bootstrap import interval
from augnet.comparison.differences import compared_values
from augnet.comparison.jacobians import compare_jacobians
from augnet.comparison.join import Joined, join_outputs, refuse_incomparable
from augnet.comparison.predictions import accuracy_change
from augnet.comparison.ranks import rank_correlations
from augnet.comparison.sides import Side, open_sides
from augnet.errors import AugnetError, ConfigError
from augnet.statistics.intervals import Interval, Z, mean_interval, share_interval
from augnet.storage import names
from augnet.storage.addresses import retried
from augnet.storage.files import OutputFolder
from augnet.storage.reader import Audit

MAP_STATISTICS = ("gini", "entropy", "border_fraction", "centre_y", "centre_x", "spread", "alignment")
"""What is measured of one image's map."""
MAPS = ("mean", "mean_abs")
"""Maps of each output over the dataset."""

LOOKED_AT = 200
"""Folders beside an audit's, at most, in which its control is looked for."""

SAME_ORDER = 0.9
"""Rank correlation from which on the control shows the same."""
MOSTLY_CONTROL = 0.5
"""Rank correlation above which the control explains a quarter (its square) and more of an order."""
OTHER_LEVEL = 0.474
"""Images with a higher value less those with a lower one, as a share: a large effect (Romano et al. 2006)."""

Shows = Literal[
    "the model", "the model, and the architecture and data", "the architecture and data", "nothing claimed"
]


@dataclass(frozen=True)
class Seen:
    """What one map or statistic shows.

    Attributes:
        order: rank correlation with the control's: of images, of pixels averaged over images or outputs; None
            where there is none.
        range: interval of `order` for a statistic; smallest and largest of the outputs for a map.
        level: of a statistic, share of images with a higher value than the control's less that with a lower.
        level_interval: of `level`.
    """

    name: str
    kind: Literal["statistic", "map"]
    shows: Shows
    order: float | None
    range: Interval | None
    level: float | None = None
    level_interval: Interval | None = None


@dataclass(frozen=True)
class ControlVerdict:
    """What the audit of a trained model saw.

    Attributes:
        control: folder and fingerprint of the control's audit.
        learned: whether the model predicts better than its control; None without labels.
        seen: of each map and statistic.
        entropy_rise: mean over images of (entropy of the control's map / entropy of the model's - 1).
        entropy_rise_interval: of it.
        sentences: the verdict in words.
    """

    control: dict[str, str]
    learned: bool | None
    seen: list[Seen]
    entropy_rise: float | None
    entropy_rise_interval: Interval | None
    sentences: list[str]


def is_control(audit: Audit) -> bool:
    """Whether the audit is of random weights."""
    return audit.run.get("control_of") is not None


def is_control_of(control: Audit, trained: Audit) -> bool:
    """Whether an audit is of the trained one's model with random weights, over the same images."""
    mine, its = trained.run["identity"], control.run.get("identity", {})
    return control.run.get("control_of") == mine["model"] and its.get("images") == mine["images"]


def refuse_stranger(control: Audit, audit: Audit) -> None:
    """Raise ConfigError, which says what to audit instead, for a control that is none of this audit's."""
    path = audit.run["config"]["model"]["path"]
    same_model = control.run["control_of"] == audit.run["identity"]["model"]
    wrong = "over other images" if same_model else "of another model"
    raise ConfigError(
        f"{control.folder} is of random weights, and {wrong} than {audit.folder}; audit {path} over the same "
        "images with --control random-weights"
    )


def find_control(audit: Audit) -> Audit | None:
    """The control of an audit in a folder beside its own; None where there is none.

    Of many folders only LOOKED_AT are looked into: first those whose names begin as the audit's own.
    """
    parent, _, name = audit.folder.path("").rstrip("/").rpartition("/")
    try:
        entries = retried(audit.folder.fs.ls, parent, detail=True) if parent else []
    except OSError:  # who may write an audit need not be allowed to look beside it
        return None
    beside = [entry["name"].rstrip("/") for entry in entries if entry["type"] != "file"]
    beside.sort(key=lambda path: (not path.rsplit("/", 1)[-1].startswith(name), path))
    for path in beside[:LOOKED_AT]:
        other = Audit(OutputFolder(audit.folder.fs.unstrip_protocol(path)))
        with suppress(AugnetError):  # a folder beside it may be anybody's, and a control of other settings
            if other.folder.exists(names.MANIFEST) and is_control_of(other, audit):
                refuse_incomparable(audit, other)
                return other
    return None


def judge_by_control(audit: Audit) -> None:
    """Write control.json, what an audit saw, where its control lies beside it; else delete an earlier one."""
    control = None if is_control(audit) else find_control(audit)
    if control is None:
        audit.folder.remove(names.CONTROL)
    else:
        audit.folder.write_json(names.CONTROL, asdict(control_verdict(audit, control)))


def control_verdict(trained: Audit, control: Audit) -> ControlVerdict:
    """What a trained model's audit saw, by its control; of a control against a control nothing is claimed.

    Raises:
        ConfigError: their figures are not of one kind; the message names the setting to change.
    """
    refuse_incomparable(trained, control)
    images, sides = open_sides(trained, control)
    accuracy = accuracy_change((sides[1], sides[0]), paired=True)
    learned = None if accuracy is None or accuracy.interval is None else accuracy.interval[0] > 0
    claiming = learned is not False and not (is_control(trained) and is_control(control))
    seen = [
        *(_statistic(sides, name, claiming) for name in MAP_STATISTICS),
        *_image_maps(trained, control, images, claiming),
        *(_dataset_map(trained, control, name, claiming) for name in MAPS),
    ]
    known = [part for part in seen if part]
    rise, rise_interval = _entropy_rise(sides)
    place = {"folder": str(control.folder), "fingerprint": control.run["fingerprint"]}
    sentences = _sentences(known, learned, both_random=is_control(trained) and is_control(control))
    return ControlVerdict(place, learned, known, rise, rise_interval, sentences)


def _statistic(sides: tuple[Side, Side], name: str, claiming: bool) -> Seen | None:
    ours, theirs = compared_values(sides, name, paired=True)
    known = ~np.isnan(ours)
    ours, theirs, n = ours[known], theirs[known], int(known.sum())
    higher, lower = int(np.sum(ours > theirs)), int(np.sum(ours < theirs))
    if n < 4 or not higher + lower:
        return None
    order = float(rank_correlations(ours[None], theirs[None])[0])
    order = 0.0 if math.isnan(order) else order  # a constant: the control gives no order
    spread = Z * 1.06 / math.sqrt(n - 3)  # of Fisher's transform of a rank correlation (Fieller et al. 1957)
    middle = math.atanh(min(max(order, -1 + 1e-12), 1 - 1e-12))
    bounds = math.tanh(middle - spread), math.tanh(middle + spread)
    share = share_interval(higher, higher + lower)
    level = (2 * share[0] - 1, 2 * share[1] - 1)
    apart = bounds[1] < SAME_ORDER or level[0] >= OTHER_LEVEL or level[1] <= -OTHER_LEVEL
    own = order < MOSTLY_CONTROL or min(abs(level[0]), abs(level[1])) >= OTHER_LEVEL
    return Seen(name, "statistic", _shows(apart, own, claiming), order, bounds, (higher - lower) / n, level)


def _image_maps(trained: Audit, control: Audit, images: Joined, claiming: bool) -> list[Seen]:
    """The magnitude of each image's predicted row, where both audits stored Jacobians."""
    outputs = join_outputs(trained, control)
    found = compare_jacobians((trained, control), (images.before, images.after), outputs).correlation
    if not found or found["standard_error"] is None:
        return []
    order = found["mean"]
    bounds = mean_interval(order, found["standard_error"])
    shows = _shows(bounds[1] < SAME_ORDER, order < MOSTLY_CONTROL, claiming)
    return [Seen("each image's map", "map", shows, order, bounds)]


def _dataset_map(trained: Audit, control: Audit, name: str, claiming: bool) -> Seen | None:
    ours, theirs = (audit.maps[name] for audit in (trained, control))
    if name == "mean_abs":
        ours, theirs = (np.sqrt(np.square(part, dtype=np.float64).sum(axis=-1)) for part in (ours, theirs))
    flat = [part.reshape(len(part), -1).astype(np.float64) for part in (ours, theirs)]
    known = np.isfinite(flat[0]).all(axis=1) & np.isfinite(flat[1]).all(axis=1)
    orders = rank_correlations(flat[0][known], flat[1][known])
    orders = orders[~np.isnan(orders)]
    if not len(orders):
        return None
    order = float(orders.mean())
    shows = _shows(order < SAME_ORDER, order < MOSTLY_CONTROL, claiming)
    return Seen(f"maps.npz: {name}", "map", shows, order, (float(orders.min()), float(orders.max())))


def _shows(apart: bool, own: bool, claiming: bool) -> Shows:
    if not claiming:
        return "nothing claimed"
    if not apart:
        return "the architecture and data"
    return "the model" if own else "the model, and the architecture and data"


def _entropy_rise(sides: tuple[Side, Side]) -> tuple[float | None, Interval | None]:
    ours, theirs = compared_values(sides, "entropy", paired=True)
    rise = np.divide(theirs, ours, out=np.full(len(ours), np.nan), where=ours > 0) - 1
    known = rise[~np.isnan(rise)]
    return (float(known.mean()), interval(sides[0].bootstrap.mean(rise))) if len(known) else (None, None)


def _sentences(seen: list[Seen], learned: bool | None, both_random: bool) -> list[str]:
    if both_random:
        return ["Both audits are of random weights: nothing is claimed."]
    if learned is False:
        return [
            "The model predicts no better than with random weights, so nothing is claimed: what its maps "
            "show was not learned."
        ]
    same = [part.name for part in seen if part.shows == "the architecture and data"]
    mixed = [part for part in seen if part.shows == "the model, and the architecture and data"]
    sentences = [
        f"With random weights in place of the trained ones, {len(seen) - len(same)} of {len(seen)} maps and "
        "statistics of maps are told apart from the model's: "
        + ("the audit saw the model." if not same else "those show the model.")
    ]
    if mixed:
        listed = ", ".join(f"{part.name} ({part.order:.2f})" for part in mixed if part.order is not None)
        sentences.append(f"Random weights alone give much of the order (rank correlation) of: {listed}.")
    if same:
        sentences.append(
            f"Random weights show the same, so these are of the architecture and the data: {', '.join(same)}."
        )
    if learned is None:
        sentences.append("Without labels it is not known whether the model predicts better than its control.")
    return sentences
