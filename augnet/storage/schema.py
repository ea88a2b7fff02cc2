"""The columns of every Parquet file that an audit writes; the only definition of them."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa

from augnet.storage.catalog import Statistic, catalog

TEXT, INDEX, COUNT, REAL = pa.string(), pa.int32(), pa.int64(), pa.float64()


def _columns(kind: pa.DataType, *names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, kind) for name in names]


_IMAGE = [*_columns(TEXT, "image_id", "uri", "label"), ("metadata", pa.map_(TEXT, TEXT))]

PLAN = pa.schema([("unit_id", INDEX), *_IMAGE])


def statistics(entries: Iterable[Statistic]) -> pa.Schema:
    """One row per image, of the statistics that its audit has, see `catalog`.

    Columns that a sketch estimates say so: their fields carry the key `approximate`.
    """
    measured = [
        pa.field(entry.name, entry.type, metadata={"approximate": "true"} if entry.estimated else None)
        for entry in entries
    ]
    return pa.schema([*_IMAGE, *measured, ("jacobian_file", TEXT), ("jacobian_row", COUNT)])


STATISTICS = statistics(catalog())
"""Of an audit without noise and sketch."""

FAILURES = pa.schema(_columns(TEXT, "image_id", "uri", "stage", "error"))

SLICES = pa.schema(
    [
        *_columns(TEXT, "column", "value", "statistic"),
        ("count", COUNT),
        *_columns(REAL, "mean", "std", "standard_error", "min"),
        *_columns(REAL, "q01", "q05", "q25", "q50", "q75", "q95", "q99", "max"),
    ]
)

OUTPUTS = pa.schema(
    [
        ("output", INDEX),
        ("count", COUNT),
        *_columns(REAL, "mean_row_l2", "std_row_l2", "max_row_l2", "mean_abs", "rms", "max_abs"),
        *_columns(REAL, "gini", "entropy", "border_fraction", "centre_y", "centre_x", "spread"),
        ("high_frequency_share", REAL),
        ("frequency_curve", pa.list_(REAL)),
    ]
)

INTERVENTIONS = pa.schema(
    [
        ("candidate", INDEX),
        *_columns(TEXT, "arm", "image_id", "source_id"),
        *_columns(REAL, "before", "after", "output_before", "output_after"),
    ]
)

OUTPUT_PAIRS = pa.schema(
    [
        *_columns(INDEX, "output", "other"),
        ("count", COUNT),
        ("mean_cosine", REAL),
        ("rival_count", COUNT),
    ]
)

SLICE_CHANGES = pa.schema(
    [
        *_columns(TEXT, "column", "value", "statistic"),
        ("count", COUNT),
        *_columns(REAL, "before", "after", "change", "low", "high"),
    ]
)
"""Of a comparison: the mean of a statistic in each audit, their difference and its interval."""


def jacobian_parquet(height: int, width: int, channels: int, value_type: pa.DataType) -> pa.Schema:
    """One row per (image, output); jacobian is a fixed-shape tensor (height, width, channel).

    Readers that know no such tensors find its shape as `jacobian_shape` among the file's own keys, and pandas
    in `attrs`.
    """
    tensor = pa.fixed_shape_tensor(
        value_type, (height, width, channels), dim_names=["height", "width", "channel"]
    )
    shape = json.dumps([height, width, channels])
    metadata = {"jacobian_shape": shape, "PANDAS_ATTRS": f'{{"jacobian_shape": {shape}}}'}
    return pa.schema([("image_id", TEXT), ("output", INDEX), ("jacobian", tensor)], metadata)
