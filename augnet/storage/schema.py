"""The columns of every Parquet file that an audit writes; the only definition of them."""

from __future__ import annotations

import pyarrow as pa

from augnet.storage.catalog import CATALOG

PLAN = pa.schema(
    [
        ("unit_id", pa.int32()),
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
    ]
)

STATISTICS = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        *((statistic.name, statistic.type) for statistic in CATALOG),
        ("jacobian_file", pa.string()),
        ("jacobian_row", pa.int64()),
    ]
)

FAILURES = pa.schema(
    [
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
    ]
)

SLICES = pa.schema(
    [
        ("column", pa.string()),
        ("value", pa.string()),
        ("statistic", pa.string()),
        ("count", pa.int64()),
        ("mean", pa.float64()),
        ("std", pa.float64()),
        ("standard_error", pa.float64()),
        ("min", pa.float64()),
        *((f"q{q:02d}", pa.float64()) for q in (1, 5, 25, 50, 75, 95, 99)),
        ("max", pa.float64()),
    ]
)

OUTPUT_FIGURES = pa.schema(
    [
        ("output", pa.int32()),
        ("count", pa.int64()),
        ("mean_row_l2", pa.float64()),
        ("std_row_l2", pa.float64()),
        ("max_row_l2", pa.float64()),
        ("mean_abs", pa.float64()),
        ("rms", pa.float64()),
        ("max_abs", pa.float64()),
    ]
)

OUTPUTS = pa.schema(
    [
        *OUTPUT_FIGURES,
        ("hotspot_y", pa.int32()),
        ("hotspot_x", pa.int32()),
        ("hotspot_height", pa.int32()),
        ("hotspot_width", pa.int32()),
        ("hotspot_share", pa.float64()),
        ("hotspot_expected", pa.float64()),
        ("shortcut", pa.bool_()),
    ]
)

OUTPUT_PAIRS = pa.schema(
    [
        ("output", pa.int32()),
        ("other", pa.int32()),
        ("count", pa.int64()),
        ("mean_cosine", pa.float64()),
        ("rival_count", pa.int64()),
    ]
)


def jacobian_parquet(height: int, width: int, channels: int, value_type: pa.DataType) -> pa.Schema:
    """One row per (image, output); jacobian is a fixed-shape tensor (height, width, channel)."""
    tensor = pa.fixed_shape_tensor(
        value_type, (height, width, channels), dim_names=["height", "width", "channel"]
    )
    return pa.schema([("image_id", pa.string()), ("output", pa.int32()), ("jacobian", tensor)])
