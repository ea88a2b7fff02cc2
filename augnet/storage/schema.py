"""The columns of every Parquet file that an audit writes; the only definition of them."""

from __future__ import annotations

import pyarrow as pa

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
        ("predicted", pa.int32()),
        ("probability", pa.float64()),
        ("correct", pa.bool_()),
        ("outputs", pa.list_(pa.float32())),
        ("selected", pa.list_(pa.int32())),
        ("frobenius", pa.float64()),
        ("spectral", pa.float64()),
        ("stable_rank", pa.float64()),
        ("effective_rank", pa.float64()),
        ("singular_values", pa.list_(pa.float64())),
        ("row_l2", pa.list_(pa.float64())),
        ("margin_l2", pa.float64()),
        ("margin_linf", pa.float64()),
        ("rival", pa.int32()),
        ("loss_gradient_l2", pa.float64()),
        ("gini", pa.float64()),
        ("entropy", pa.float64()),
        ("border_fraction", pa.float64()),
        ("centre_y", pa.float64()),
        ("centre_x", pa.float64()),
        ("spread", pa.float64()),
        ("alignment", pa.float64()),
        ("flags", pa.list_(pa.string())),
        ("jacobian_file", pa.string()),
        ("jacobian_row", pa.int64()),
    ]
)

SCALARS = tuple(field.name for field in STATISTICS if field.type == pa.float64())
"""The columns that are one real number per image: those that summary and slices describe."""

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

OUTPUTS = pa.schema(
    [
        ("output", pa.int32()),
        ("count", pa.int64()),
        ("mean_row_l2", pa.float64()),
        ("std_row_l2", pa.float64()),
        ("max_row_l2", pa.float64()),
        ("mean_abs", pa.float64()),
        ("rms", pa.float64()),
        ("max_abs", pa.float64()),
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
