"""The dataset-wide summary: tables, maps and one dict, from the statistics' columns and the aggregate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.errors import AuditError
from augnet.statistics.aggregate import COUNTS, Aggregate, Shape
from augnet.statistics.describe import Columns, cut_by, describe, varies
from augnet.statistics.focus import map_statistics, uniform_border_fraction
from augnet.statistics.frequency import high_frequency_share
from augnet.statistics.image import FLAGS
from augnet.statistics.reliability import reliability
from augnet.storage import schema
from augnet.storage.catalog import SCALARS, End, Statistic, error_column

SLICE_COLUMNS = ("label", "predicted", "correct")
"""The columns whose values cut the images into slices, beside metadata; a null is in no slice."""

Listed = tuple[np.ndarray, np.ndarray]
"""Numbers (m,) of the images at one end of a statistic, the most extreme first, and their values (m,)."""


@dataclass(frozen=True)
class Summary:
    """Everything dataset-wide that an audit writes.

    Attributes:
        figures: for summary.json: plain JSON values, null where a figure is not known.
        slices: `schema.SLICES`; a statistic that is null in a whole slice has no row there.
        outputs: `schema.OUTPUTS`, one row per output of the model.
        output_pairs: `schema.OUTPUT_PAIRS`, for the pairs that occurred.
        maps: for maps.npz, see `maps_of`.
    """

    figures: dict[str, Any]
    slices: pa.Table
    outputs: pa.Table
    output_pairs: pa.Table
    maps: dict[str, np.ndarray]


def summarize(
    columns: Columns,
    aggregate: Aggregate,
    *,
    border: float,
    scalars: Mapping[str, Statistic] = SCALARS,
    noise: Sequence[float] = (),
    label_names: Sequence[str] = (),
    listed: int = 20,
) -> Summary:
    """The summary of a finished audit. In memory at a time: a few columns of numbers, or one column of text.

    Args:
        columns: see `Columns`.
        aggregate: of all units.
        border, noise: as given to `image_statistics`.
        scalars: what is described, by the name of its column.
        label_names: of the aggregate's labels, in their order.
        listed: images listed at each end of each statistic.

    Raises:
        AuditError: the columns and the aggregate disagree about the number of images.
    """
    correct = columns("correct")
    if len(correct) != aggregate.images:
        raise AuditError(
            f"statistics/ holds {len(correct)} images and aggregates/ {aggregate.images}: "
            "they are of different runs; audit again into an empty folder"
        )
    slicers, uncut = cut_by(columns, SLICE_COLUMNS)
    statistics: dict[str, dict[str, Any]] = {}
    ends: dict[str, dict[End, Listed]] = {}
    slices: list[tuple[tuple[int, int, int], dict[str, Any]]] = []
    for rank, (name, kind) in enumerate(scalars.items()):
        values = columns(name).to_numpy()  # a null becomes NaN
        images = np.flatnonzero(~np.isnan(values))
        images = images[np.argsort(values[images])]
        ascending = values[images]
        statistics[name] = describe(ascending)
        if kind.estimated:
            errors = columns(error_column(name)).to_numpy()[images]
            error = float(errors.mean()) if len(errors) else None
            statistics[name] |= {"approximate": True, "mean_error": error}
        shown = listed if varies(ascending) else 0
        ends[name] = {
            "lowest": _end(values, ascending[:shown], 1),
            "highest": _end(values, ascending[::-1][:shown], -1),
        }
        for number, (column, slicer) in enumerate(slicers.items()):
            for value, part in slicer.cut(images):
                row = {"column": column, "value": slicer.values[value], "statistic": name}
                slices.append(((number, value, rank), row | describe(ascending[part])))
    slices.sort(key=lambda entry: entry[0])

    judged = len(correct) - correct.null_count
    wrong = judged - (pc.sum(correct).as_py() or 0)
    shape = aggregate.shape
    figures = {
        **{name: getattr(aggregate, name) for name in COUNTS},
        "flags": dict(zip(FLAGS, aggregate.flags.tolist(), strict=True)),
        "labels": dict(zip(label_names, aggregate.labels.tolist(), strict=True)),
        "judged": judged,
        "wrong": wrong,
        "accuracy": 1 - wrong / judged if judged else None,
        "uniform_border_fraction": uniform_border_fraction(shape.height, shape.width, border),
        "uncut_metadata": uncut,
        "noise": reliability(aggregate.noise, noise),
        "statistics": statistics,
        "extremes": _extremes(columns, ends),
    }
    return Summary(
        figures=figures,
        slices=pa.Table.from_pylist([row for _, row in slices], schema.SLICES),
        outputs=outputs_table(aggregate, border),
        output_pairs=output_pairs_table(aggregate),
        maps=maps_of(aggregate),
    )


def _end(values: np.ndarray, wanted: np.ndarray, sign: int) -> Listed:
    """The images of the `wanted` (m,) of the values (n,), NaN for null; of equal ones, those that come first.

    The wanted are the most extreme, in that order; `sign` is 1 where they are low values, -1 where high.
    """
    if not len(wanted):
        return np.empty(0, np.int64), wanted
    reached = np.flatnonzero(sign * values <= sign * wanted[-1])
    images = reached[np.argsort(sign * values[reached], kind="stable")][: len(wanted)]
    return images, values[images]


def _extremes(
    columns: Columns, ends: dict[str, dict[End, Listed]]
) -> dict[str, dict[End, list[dict[str, Any]]]]:
    """Statistic -> end -> images there, with the files that hold their Jacobians."""
    listed = np.unique(np.concatenate([images for both in ends.values() for images, _ in both.values()]))
    ids, files = (
        dict(zip(listed.tolist(), values_at(columns(column), listed), strict=True))
        for column in ("image_id", "jacobian_file")
    )

    def entries(images: np.ndarray, values: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"image_id": ids[image], "value": value, "jacobian_file": files[image]}
            for image, value in zip(images.tolist(), values.tolist(), strict=True)
        ]

    return {name: {end: entries(*found) for end, found in both.items()} for name, both in ends.items()}


def values_at(column: pa.ChunkedArray, images: np.ndarray) -> list[Any]:
    """The values of ascending images, chunk by chunk: a long text column is never copied into one."""
    values: list[Any] = []
    start = 0
    for chunk in column.chunks:
        inside = images[np.searchsorted(images, start) : np.searchsorted(images, start + len(chunk))]
        values += chunk.take(pa.array(inside - start)).to_pylist()
        start += len(chunk)
    return values


def outputs_table(aggregate: Aggregate, border: float) -> pa.Table:
    """`schema.OUTPUTS`, one row per output, of its own rows; null where it has none.

    gini to spread are `map_statistics` of the root mean square of a, the magnitude of the output's row, over
    the images; with map_pool > 1, of its mean over blocks. frequency_curve is the mean of its rows that
    were drawn, of the parts of their energy in each ring, see `engine.batch.rings_of`.
    """
    norms, moments, shape = aggregate.row_l2, aggregate.moments, aggregate.shape
    weights = _block_shares(shape.height, shape.width, shape.map_pool)
    rows: list[dict[str, Any]] = []
    for output in range(shape.outputs):
        n, gathered = int(norms.count[output]), int(moments.count[output])
        row: dict[str, Any] = {"output": output, "count": n}
        if n:
            row |= {"mean_row_l2": norms.mean[output], "max_row_l2": norms.max_abs[output]}
        if n > 1:
            row["std_row_l2"] = math.sqrt(norms.m2[output] / (n - 1))
        if gathered:
            square = moments.mean[output] ** 2 + moments.m2[output] / gathered
            row["mean_abs"] = (weights * moments.mean_abs[output].mean(axis=-1)).sum()
            row["rms"] = math.sqrt((weights * square.mean(axis=-1)).sum())
            row["max_abs"] = moments.max_abs[output].max()
            magnitude = _pixels(np.sqrt(square.sum(axis=-1)), shape)[None].astype(np.float32)
            measured = map_statistics(magnitude, np.ones(1, bool), border)
            row |= {name: values[0] for name, values in measured.items() if not np.isnan(values[0])}
        if aggregate.rings[output].any():
            curve = aggregate.rings[output] / aggregate.rings[output].sum()
            row |= {"frequency_curve": curve, "high_frequency_share": high_frequency_share(curve)}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema.OUTPUTS)


def output_pairs_table(aggregate: Aggregate) -> pa.Table:
    """`schema.OUTPUT_PAIRS`: a row for each (i, j), i != j, with both rows in an image, or j a rival of i."""
    pairs = aggregate.pairs
    occurred = (pairs.count > 0) | (pairs.rivals > 0)
    np.fill_diagonal(occurred, False)
    output, other = np.nonzero(occurred)
    count = pairs.count[output, other]
    columns = {
        "output": output.astype(np.int32),
        "other": other.astype(np.int32),
        "count": count,
        "mean_cosine": pa.array(pairs.cosine[output, other] / np.maximum(count, 1), mask=count == 0),
        "rival_count": pairs.rivals[output, other],
    }
    return pa.table(columns, schema.OUTPUT_PAIRS)


def maps_of(aggregate: Aggregate) -> dict[str, np.ndarray]:
    """The arrays of maps.npz, float32 but for the counts; NaN for a group without rows.

    mean, mean_abs, rms, std, max_abs: (output, height, width, channel), over the rows of each output; std
        divides by their number. label_*: (label, height, width, channel), over the predicted outputs' rows of
        each label.
    count, label_count: rows of each output and label.
    mean_input: (height, width, channel), the mean of the model inputs.
    map_pool: side in pixels of the blocks that heights and widths count.
    """
    moments, outputs = aggregate.moments, aggregate.shape.outputs
    count = np.where(moments.count > 0, moments.count, np.nan)[:, None, None, None]
    variance = moments.m2 / count
    known = count / count
    maps = {
        "mean": moments.mean * known,
        "mean_abs": moments.mean_abs * known,
        "rms": np.sqrt(moments.mean**2 + variance),
        "std": np.sqrt(variance),
        "max_abs": moments.max_abs * known,
    }
    result = {name: values[:outputs].astype(np.float32) for name, values in maps.items()}
    result["count"] = moments.count[:outputs]
    if aggregate.shape.labels:
        result |= {f"label_{name}": values[outputs:].astype(np.float32) for name, values in maps.items()}
        result["label_count"] = moments.count[outputs:]
    result["mean_input"] = (aggregate.input_sum / max(aggregate.images, 1)).astype(np.float32)
    result["map_pool"] = np.array(aggregate.shape.map_pool)
    return result


def _pixels(blocks: np.ndarray, shape: Shape) -> np.ndarray:
    """(height, width) values by pixel, of a map over blocks."""
    wide = blocks.repeat(shape.map_pool, axis=0).repeat(shape.map_pool, axis=1)
    return wide[: shape.height, : shape.width]


def _block_shares(height: int, width: int, pool: int) -> np.ndarray:
    """(ceil(height / pool), ceil(width / pool)) share of the picture's pixels in each block; sums to 1."""
    heights, widths = (np.diff(np.arange(0, side, pool), append=side) for side in (height, width))
    return heights[:, None] * widths / (height * width)
