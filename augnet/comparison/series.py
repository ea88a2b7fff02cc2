"""Audits of checkpoints, in order: every statistic as a series, and how much each gradient varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.comparison.findings import findings_of
from augnet.comparison.jacobians import rows_of, stored_together
from augnet.comparison.join import join_outputs, refuse_incomparable, rows_in_all
from augnet.comparison.sides import shared_scalars
from augnet.errors import ConfigError
from augnet.statistics.describe import describe
from augnet.storage.reader import Audit

LISTED = 20


@dataclass(frozen=True)
class Series:
    """Three or more audits, over the images that are in all of them.

    Attributes:
        audits: their folders, in order.
        images: in all of them.
        accuracy: of each; None where there are no labels.
        shortcuts: confirmed findings of each; None where none were looked for.
        statistics: name -> mean, q05, q50, q95 -> one value for each audit, None where it has none.
        variance: see `GradientVariance`; None where Jacobians were not stored in all.
    """

    audits: list[str]
    images: int
    accuracy: list[float | None]
    shortcuts: list[int | None]
    statistics: dict[str, dict[str, list[float | None]]]
    variance: GradientVariance | None


@dataclass(frozen=True)
class GradientVariance:
    """Variance of Gradients (Agarwal et al. 2022, arXiv 2008.11600).

    Of an image, with S_t the row of its class in checkpoint t of K and mu their mean: the mean over the
    inputs of sqrt(1 / K sum_t (S_t - mu)^2). Images learned late, or not at all, have a large one.

    Attributes:
        rows: (n,) of `statistics` of the first audit.
        value: (n,), of each image.
        normalised: (n,) value less the mean of its class, over the class's standard deviation; NaN in a class
            of one image or of equal values.
    """

    rows: np.ndarray
    value: np.ndarray
    normalised: np.ndarray


def compare_series(audits: Sequence[Audit]) -> Series:
    """The series of three or more audits.

    Raises:
        ConfigError: their figures are not of one kind; the message names the setting to change.
    """
    for later in audits[1:]:
        refuse_incomparable(audits[0], later)
    rows = rows_in_all(audits)
    if not len(rows[0]):
        folders = ", ".join(str(audit.folder) for audit in audits)
        raise ConfigError(f"no image is in all of {folders}; audit checkpoints over the same images.path")
    taken = list(zip(audits, map(pa.array, rows), strict=True))
    correct = [audit.column("correct").take(part) for audit, part in taken]
    statistics: dict[str, dict[str, list[float | None]]] = {}
    for name in shared_scalars(audits):
        columns = [audit.column(name).take(part).drop_null().to_numpy() for audit, part in taken]
        described = [describe(np.sort(values[np.isfinite(values)])) for values in columns]
        if any(figures["count"] for figures in described):
            statistics[name] = {
                key: [figures[key] for figures in described] for key in ("mean", "q05", "q50", "q95")
            }
    found = [findings_of(audit) for audit in audits]
    return Series(
        audits=[str(audit.folder) for audit in audits],
        images=len(rows[0]),
        accuracy=[pc.mean(pc.cast(column, pa.float64())).as_py() for column in correct],
        shortcuts=[None if findings is None else len(findings.confirmed) for findings in found],
        statistics=statistics,
        variance=gradient_variance(audits, rows),
    )


def gradient_variance(audits: Sequence[Audit], rows: list[np.ndarray]) -> GradientVariance | None:
    """The variance of the gradient of each image's label; without one, of its last prediction."""
    classes = _classes(audits, rows)
    matched = [dict(join_outputs(audits[0], audit).pairs) for audit in audits]
    single = audits[0].has_one_output
    positions, values = [np.empty(0, np.int64)], [np.empty(0)]
    for stored in stored_together(list(audits), rows):
        own = classes[stored.positions]
        count, mean, m2 = len(own), 0.0, 0.0
        known = np.ones(count, bool)
        gathered = []
        for outputs, jacobians, match in zip(stored.outputs, stored.rows, matched, strict=True):
            wanted = np.array([match.get(k, -1) for k in own.tolist()])
            wanted = np.where(wanted >= 0, 0, -1) if single else wanted
            has, found = rows_of(outputs, jacobians, wanted)
            known &= has
            gathered.append((has, found))
        for step, (has, found) in enumerate(gathered, start=1):  # Welford's update, one checkpoint at a time
            row = found[known[has]].astype(np.float64)
            change = row - mean
            mean = mean + change / step
            m2 = m2 + change * (row - mean)
        if known.any():
            positions.append(stored.positions[known])
            deviation = np.sqrt(np.asarray(m2) / len(audits))
            values.append(deviation.reshape(len(deviation), -1).mean(axis=1))
    value, position = np.concatenate(values), np.concatenate(positions)
    if not len(value):
        return None
    order = np.argsort(position)
    position, value = position[order], value[order]
    return GradientVariance(rows[0][position], value, _by_class(value, classes[position]))


def _classes(audits: Sequence[Audit], rows: list[np.ndarray]) -> np.ndarray:
    """(n,) output of the first audit that each image is of: its label's, else the last audit's prediction."""
    first, last = audits[0], audits[-1]
    named: dict[str, int] = first.run["label_outputs"]
    back = {after: before for before, after in join_outputs(first, last).pairs}
    labels = first.column("label").take(pa.array(rows[0])).to_pylist()
    predicted = last.column("predicted").take(pa.array(rows[-1])).to_pylist()
    return np.array(
        [named.get(label, back.get(guess, -1)) for label, guess in zip(labels, predicted, strict=True)],
        np.int64,
    )


def _by_class(value: np.ndarray, classes: np.ndarray) -> np.ndarray:
    normalised = np.full(len(value), np.nan)
    for one in np.unique(classes):
        members = classes == one
        spread = value[members].std()
        if spread > 0:
            normalised[members] = (value[members] - value[members].mean()) / spread
    return normalised


def variance_table(audit: Audit, variance: GradientVariance) -> pa.Table:
    """image_id, label, variance, normalised: one row for each image."""
    rows = pa.array(variance.rows)
    normalised = pa.array(variance.normalised, mask=np.isnan(variance.normalised))
    return pa.table(
        {
            "image_id": audit.column("image_id").take(rows),
            "label": audit.column("label").take(rows),
            "variance": variance.value,
            "normalised": normalised,
        }
    )


def most_varied(audit: Audit, variance: GradientVariance) -> list[dict[str, Any]]:
    """The images whose gradient varied most for their class."""
    known = np.flatnonzero(~np.isnan(variance.normalised))
    chosen = known[np.argsort(-variance.normalised[known], kind="stable")][:LISTED]
    names = audit.column("image_id").take(pa.array(variance.rows[chosen])).to_pylist()
    return [
        {"image_id": name, "variance": float(variance.value[k]), "normalised": float(variance.normalised[k])}
        for name, k in zip(names, chosen.tolist(), strict=True)
    ]
