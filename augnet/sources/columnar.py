"""Images in a column of a table, read row by row: what Parquet files and Hugging Face's Arrow files share."""

from __future__ import annotations

import json
import threading
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from augnet.config import ImagesConfig
from augnet.errors import ConfigError, ImageError
from augnet.sources.base import ImageRef
from augnet.sources.container import (
    ContainerSource,
    choose,
    choose_label,
    choose_metadata,
    damage,
    first_line,
    label_text,
    metadata_of,
)
from augnet.sources.files import DataFile, refuse_size

IMAGE_NAMES = ("image", "img", "images", "jpg", "jpeg", "png", "picture", "photo", "image_bytes", "bytes")
"""What a column of images is called, in the order in which they are looked for."""

_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)


@dataclass(frozen=True)
class Columns:
    """The columns that matter.

    Attributes:
        image: of encoded images, bytes or a struct that holds them under `bytes` (as Hugging Face's do).
        in_struct: whether it is such a struct.
        label: of labels, None where there is none.
        metadata: of further values.
        class_names: of the labels' numbers, where the dataset says so.
    """

    image: str
    in_struct: bool
    label: str | None
    metadata: tuple[str, ...]
    class_names: tuple[str, ...] | None


class ColumnarSource(ContainerSource):
    """Images in a column of bytes, and labels in another. `image_id` is `file#row`, rows counted from 0.

    Args:
        config: the `images` section. `image`, `labels` and `metadata` name columns.
    """

    def __init__(self, config: ImagesConfig):
        super().__init__(config)
        self._cursors = _Cursors()

    @abstractmethod
    def _schema(self, uri: str) -> pa.Schema:
        """The columns of a file. Raises pa.ArrowException or OSError."""

    @abstractmethod
    def _described(self, uri: str, columns: Sequence[str]) -> Iterator[list[dict[str, object]]]:
        """The values of some columns in a file's rows, in parts; an empty dict for each row of no columns."""

    @abstractmethod
    def _rows_from(self, uri: str, row: int) -> tuple[int, int | None, Iterator[pa.Array]]:
        """The image column, read forward in parts, from the cheapest place at or before a row.

        Returns:
            The row that the parts begin with; the row from which on it is better to come here again than to
            read on, None for none; the parts.
        """

    @cached_property
    def columns(self) -> Columns:
        """Settled by the first file.

        Raises:
            ConfigError: there is no such column, or none that holds images.
        """
        name, schema = self.first_readable(lambda file: (file.name, self._schema(file.uri)))
        return find_columns(self.config, schema, name)

    def class_names(self) -> tuple[str, ...] | None:
        return self.columns.class_names

    def reads_forward(self, ref: ImageRef) -> bool:
        return True

    def _images(self, file: DataFile) -> Iterator[ImageRef]:
        row, columns = 0, self.columns
        names = columns.class_names
        wanted = {column for column in (columns.label, *columns.metadata) if column is not None}
        try:
            for part in self._described(file.uri, sorted(wanted)):
                for values in part:
                    value = None if columns.label is None else values[columns.label]
                    label = label_text(value)
                    if names is not None and isinstance(value, int):  # -1 is Hugging Face's "no label"
                        label = names[value] if 0 <= value < len(names) else None
                    metadata = metadata_of(values, columns.metadata)
                    yield ImageRef(f"{file.name}#{row}", f"{file.uri}#{row}", label, metadata)
                    row += 1
        except pa.ArrowException as error:
            yield damage(file, f"the file is damaged after {row} rows ({first_line(error)})")

    def _read(self, uri: str, place: str) -> bytes:
        row, cursor = int(place), self._cursors.cursor
        if cursor is None or cursor.uri != uri:
            cursor = self._cursors.cursor = _Cursor(self, uri)
        value = cursor.value(row)
        if self.columns.in_struct and value is not None:
            if value["bytes"] is None:
                raise ImageError("read", "the row holds the path of an image, not its bytes")
            value = value["bytes"]
        if value is None:
            raise ImageError("read", "the row holds no image")
        refuse_size(len(value), self.config.max_bytes)
        return bytes(value)


class _Cursor:
    """Rows of one file, in the thread that made it. Going back, or far ahead, opens the file again."""

    def __init__(self, source: ColumnarSource, uri: str):
        self.uri = uri
        self._source = source
        self._problem: ImageError | None = None
        self._first, self._until, self._parts = 0, 0, iter(())  # type: int, int | None, Iterator[pa.Array]
        self._part: pa.Array = pa.nulls(0)

    def value(self, row: int) -> Any:
        """The image column's value. Raises ImageError."""
        try:
            if row < self._first or (self._until is not None and row >= self._until):
                self._problem, self._part = None, pa.nulls(0)
                self._first, self._until, self._parts = self._source._rows_from(self.uri, row)
            if self._problem is not None:
                raise self._problem
            while row >= self._first + len(self._part):
                self._first += len(self._part)
                self._part = pa.nulls(0)
                self._part = next(self._parts)
            return self._part[row - self._first].as_py()
        except StopIteration:
            self._problem = ImageError("read", "the file has fewer rows than were planned")
        except (pa.ArrowException, OSError) as error:
            # Kept for the rows that follow: each would read up to the damage again.
            self._problem = ImageError("read", f"the file is damaged here ({type(error).__name__})")
        raise self._problem


class _Cursors(threading.local):
    """Each thread's own cursor; never sent to another process."""

    cursor: _Cursor | None = None

    def __reduce__(self) -> tuple[type[_Cursors], tuple[()]]:
        return _Cursors, ()


def image_columns(schema: pa.Schema) -> list[str]:
    """The columns that may hold encoded images, the likeliest first."""
    found = [field.name for field in schema if _is_binary(field.type) or _has_bytes(field.type)]
    return sorted(
        found, key=lambda name: IMAGE_NAMES.index(name) if name in IMAGE_NAMES else len(IMAGE_NAMES)
    )


def find_columns(config: ImagesConfig, schema: pa.Schema, file: str) -> Columns:
    """The columns that the configuration names, else those that can only be meant.

    Raises:
        ConfigError: there is no such column, none that holds images, or several that may.
    """
    likely = image_columns(schema)
    if config.image is None and len(likely) > 1 and likely[0] not in IMAGE_NAMES:
        raise ConfigError(
            f"images.image: several columns of {file!r} may hold images; name one of "
            f"{', '.join(map(repr, likely))}"
        )
    image = choose("images.image", config.image, schema.names, likely, "column")
    if image is None or image not in likely:
        found = ", ".join(f"{field.name!r} ({field.type})" for field in schema)
        raise ConfigError(
            f"images.image: no column of {file!r} holds encoded images as bytes; it has {found}"
        )
    others = [name for name in schema.names if name != image]
    label = choose_label(config.labels, others, "column")
    metadata = choose_metadata(config, others, "column")
    features = _features(schema).get(label) if label else None
    names = features.get("names") if isinstance(features, dict) else None
    class_names = tuple(map(str, names)) if isinstance(names, list) else None
    return Columns(image, _has_bytes(schema.field(image).type), label, metadata, class_names)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of the columns, in the metadata of the schema; empty where there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_binary(kind: pa.DataType) -> bool:
    return any(test(kind) for test in _BINARY)


def _has_bytes(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_struct(kind)
        and kind.get_field_index("bytes") >= 0
        and _is_binary(kind.field("bytes").type)
    )
