"""One Parquet file of an audit: a row for each image, with its picture and map inside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from augnet.export.encoding import colored_map, encoded_picture
from augnet.export.images import Part

PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""A picture, as datasets of Hugging Face and Embedding Atlas keep it."""


def table_schema(columns: pa.Schema) -> pa.Schema:
    """The columns of the file; null is what an image does not have.

    Args:
        columns: of `Part.rows`.
    """
    pictures = [("image", PICTURE), ("heat_map", PICTURE)]
    places = [("projection_x", pa.float32()), ("projection_y", pa.float32()), ("cluster", pa.string())]
    features = {name: {"_type": "Image"} for name, _ in pictures}
    known_there = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([*pictures, *columns, *places], known_there)


def write_parquet(path: Path, parts: Iterable[Part], columns: pa.Schema) -> None:
    """Every image and column, a row group for each part.

    Args:
        columns: of `Part.rows`.
    """
    _write(path, table_schema(columns), map(table_of, parts))


def write_atlas(path: Path, parts: Iterable[Part], columns: pa.Schema) -> None:
    """What Embedding Atlas can draw: the images that have a place, and columns of one value for each.

    Args:
        columns: of `Part.rows`.
    """
    flat = pa.schema([field for field in columns if not pa.types.is_nested(field.type)])
    _write(path, table_schema(flat), (table_of(part).filter(pa.array(part.has_place)) for part in parts))


def table_of(part: Part) -> pa.Table:
    """The images of a part as rows of the file."""
    with ThreadPoolExecutor() as pool:
        pictures = list(pool.map(lambda x: None if x is None else encoded_picture(x), part.pictures))
        maps = list(pool.map(lambda x, has: colored_map(x) if has else None, part.maps, part.has_map))
    columns = {
        "image": _pictures(pictures, part.rows["uri"].to_pylist()),
        "heat_map": _pictures(maps, [None] * len(maps)),
        **{name: part.rows[name] for name in part.rows.schema.names},
        "projection_x": pa.array(part.points[:, 0], from_pandas=True),
        "projection_y": pa.array(part.points[:, 1], from_pandas=True),
        "cluster": part.clusters,
    }
    return pa.table(columns, table_schema(part.rows.schema))


def _pictures(encoded: Sequence[bytes | None], paths: Sequence[str | None]) -> pa.Array:
    found = [
        None if data is None else {"bytes": data, "path": path}
        for data, path in zip(encoded, paths, strict=True)
    ]
    return pa.array(found, PICTURE)


def _write(path: Path, columns: pa.Schema, tables: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(path, columns, compression="zstd") as writer:
        for table in tables:
            if len(table):
                writer.write_table(table.select(columns.names))
