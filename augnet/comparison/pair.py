"""Two audits side by side: everything that is compared of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from augnet.comparison.differences import (
    FIGURES,
    Change,
    StatisticChange,
    compare_statistic,
)
from augnet.comparison.findings import FindingChanges, compare_findings
from augnet.comparison.jacobians import Agreement, compare_jacobians
from augnet.comparison.join import (
    Joined,
    JoinedOutputs,
    join_outputs,
    refuse_incomparable,
)
from augnet.comparison.predictions import Flips, accuracy_change, find_flips
from augnet.comparison.sides import open_sides, shared_scalars
from augnet.comparison.slices import slice_changes
from augnet.storage.reader import Audit


@dataclass(frozen=True)
class Comparison:
    """What changed from BEFORE to AFTER.

    Where no image is in both, distributions are compared, and what needs pairs of images is None.

    Attributes:
        same: both are the same audit: of one model, config and list of images.
        notes: what a reader should know before the figures, in sentences.
        statistics: by name, those with a value in both.
        slices: rows of `schema.SLICE_CHANGES`.
    """

    before: Audit
    after: Audit
    same: bool
    images: Joined
    outputs: JoinedOutputs
    notes: list[str]
    accuracy: Change | None
    flips: Flips | None
    statistics: dict[str, StatisticChange]
    slices: list[dict[str, Any]]
    jacobians: Agreement
    findings: FindingChanges


def compare_pair(before: Audit, after: Audit, figures: Mapping[str, set[str]] | None = None) -> Comparison:
    """Compare two finished audits. In memory at a time: two names for each image, or two columns of numbers.

    Args:
        figures: statistic -> figures wanted of it beyond FIGURES, as rules name them.

    Raises:
        ConfigError: their figures are not of one kind; the message names the setting to change.
    """
    refuse_incomparable(before, after)
    images, sides = open_sides(before, after)
    shared = shared_scalars([before, after])
    outputs, paired = join_outputs(before, after), len(images) > 0
    wanted = {name: sorted({*FIGURES, *(figures or {}).get(name, ())}) for name in shared}
    compared = {name: compare_statistic(sides, name, paired, wanted[name]) for name in shared}
    statistics = {name: found for name, found in compared.items() if found}
    return Comparison(
        before=before,
        after=after,
        same=before.run["fingerprint"] == after.run["fingerprint"],
        images=images,
        outputs=outputs,
        notes=_notes(before, after, images, outputs),
        accuracy=accuracy_change(sides, paired),
        flips=find_flips(sides, outputs) if paired else None,
        statistics=statistics,
        slices=list(slice_changes(sides, ["correct", *statistics], paired)),
        jacobians=(
            compare_jacobians((before, after), (images.before, images.after), outputs)
            if paired
            else Agreement(0, "no image is in both audits")
        ),
        findings=compare_findings((before, after), outputs),
    )


def _notes(before: Audit, after: Audit, images: Joined, outputs: JoinedOutputs) -> list[str]:
    notes = []
    if not len(images):
        notes.append(
            "No image is in both audits: distributions are compared, not images, and nothing can flip. "
            "Images are named by their paths below images.path; audit both with the same one where they are "
            "the same."
        )
    elif images.only_before or images.only_after:
        notes.append(
            f"{len(images):,} images are in both audits and are compared; {images.only_before:,} are in "
            f"BEFORE only, {images.only_after:,} in AFTER only."
        )
    if images.relabelled:
        notes.append(
            f"{images.relabelled:,} images have another label in AFTER: are images of one name the same?"
        )
    if outputs.only_before or outputs.only_after:
        notes.append(
            f"{len(outputs.pairs)} outputs are in both models, {len(outputs.only_before)} in BEFORE only, "
            f"{len(outputs.only_after)} in AFTER only. Figures over all outputs (norms, ranks, margins) are "
            "of different sets."
        )
    judged = [bool(audit.summary["judged"]) for audit in (before, after)]
    if judged[0] != judged[1]:
        knows = "BEFORE" if judged[0] else "AFTER"
        notes.append(
            f"Only {knows} knows which predictions are right; audit both with the same images.labels and "
            "images.classes."
        )
    precisions = [audit.run["config"]["jacobian"]["precision"] for audit in (before, after)]
    if precisions[0] != precisions[1]:
        notes.append("jacobian.precision differs: {} before, {} after.".format(*precisions))
    return notes
