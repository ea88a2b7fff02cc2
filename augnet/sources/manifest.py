"""Images that a table lists: CSV, JSON lines or Parquet, with a column of paths and perhaps others."""

from __future__ import annotations

import csv
import json
import os
import posixpath
from collections.abc import Iterator
from functools import cached_property
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from augnet.errors import ConfigError, ImageError
from augnet.redact import without_secrets
from augnet.sources.base import ImageRef
from augnet.sources.container import (
    ContainerSource,
    choose,
    choose_label,
    choose_metadata,
    damage,
    folder_label,
    label_text,
    metadata_of,
    unique,
)
from augnet.sources.files import DataFile, read_address, read_problem
from augnet.sources.folder import SUFFIXES
from augnet.sources.paths import path_to_uri, printable, read_regular, uri_to_path
from augnet.storage.addresses import open_address

PATH_NAMES = ("path", "file", "file_name", "filename", "filepath", "image", "image_path", "img", "uri", "url")
"""What a column of paths is called, in the order in which they are looked for."""

_LINE_CHARACTERS = 2**20
_BATCH_ROWS = 10_000
_Row = dict[str, object]


class ManifestSource(ContainerSource):
    """The images that a table lists, in its order.

    Paths are relative to the table's own folder, absolute, or addresses. `image_id` is the path as listed,
    without an address' password and query. Further columns are metadata.

    Args:
        config: the `images` section. `image` names the column of paths; by default one of PATH_NAMES, else
            the one whose first value ends like an image's name.
    """

    endings = (".csv", ".tsv", ".jsonl", ".ndjson")
    file = "manifest"  # Parquet tables too, which `open_source` tells from Parquet files with images in them

    @cached_property
    def _columns(self) -> tuple[str, str | None, tuple[str, ...]]:
        """The columns of paths, of labels and of metadata, settled by the first row of the first table.

        Raises:
            ConfigError: there is no such column, or none that is likely to hold paths.
        """
        table = self.first_file()
        row = next(self._rows(table), None)
        if row is None:
            raise ConfigError(f"images.path: the manifest {table.name!r} has no rows")
        likely = [name for guess in PATH_NAMES for name in row if name.lower() == guess]
        likely += [name for name, value in row.items() if str(value).lower().endswith(SUFFIXES)]
        path = choose("images.image", self.config.image, row, likely, "column")
        if path is None:
            raise ConfigError(
                f"images.image: no column of {table.name!r} looks like paths; name one of "
                f"{', '.join(map(repr, row))}"
            )
        others = [name for name in row if name != path]
        label = None
        if self.config.labels != "folder":
            label = choose_label(self.config.labels, others, "column")
        further = [name for name in others if name != label]
        return path, label, choose_metadata(self.config, others, "column", automatic=further)

    def reads_forward(self, ref: ImageRef) -> bool:
        return False

    def read(self, ref: ImageRef) -> bytes:
        """The bytes of one image file.

        Raises:
            ImageError: stage "read": it is gone, unreadable, empty, too large or not a regular file.
        """
        if "#damaged: " in ref.uri:
            return super().read(ref)  # type: ignore[return-value]  # it raises
        return self._read(ref.uri, "")

    def _read(self, uri: str, place: str) -> bytes:
        try:
            if "://" in uri and not uri.startswith("file://"):
                return read_address(open_address(uri, "images.path")[0], uri, self.config.max_bytes)
            return read_regular(uri_to_path(uri), self.config.max_bytes)
        except (OSError, ConfigError, ValueError) as error:  # no such scheme; a ValueError: a NUL in the path
            raise ImageError("read", read_problem(error)) from error

    def _images(self, file: DataFile) -> Iterator[ImageRef]:
        return unique(self._listed_in(file))

    def _listed_in(self, file: DataFile) -> Iterator[ImageRef]:
        path_column, label_column, further = self._columns
        for number, row in enumerate(self._rows(file)):
            path = row.get(path_column)
            if not isinstance(path, str) or not path.strip():
                problem = damage(file, f"row {number}, counted from 0, has no path")
                yield ImageRef(f"{file.name}#{number}", problem.uri, None)
                continue
            path = path.strip()
            if self.config.labels == "folder":
                label = folder_label(path)
            else:
                label = None if label_column is None else label_text(row.get(label_column))
            yield ImageRef(
                printable(without_secrets(path)),
                self._whereabouts(file, path),
                label,
                metadata_of(row, further),
            )

    def _whereabouts(self, file: DataFile, path: str) -> str:
        scheme, is_address, _ = path.partition("://")
        if self.files.is_local:
            folder = os.path.dirname(uri_to_path(file.uri))
            return path if is_address else path_to_uri(os.path.normpath(os.path.join(folder, path)))
        if is_address and scheme not in ("file", "local"):
            return path
        # A table from elsewhere does not reach for files of the worker: what looks absolute is below it.
        return posixpath.join(file.uri.rpartition("/")[0], printable(path.rpartition("://")[2]).lstrip("/"))

    def _rows(self, file: DataFile) -> Iterator[_Row]:
        """The rows of a table.

        Raises:
            ConfigError: it is not such a table; the message has the line.
        """
        name = file.name.lower()
        with self.files.open(file.uri) as stream:
            if name.endswith((".jsonl", ".ndjson")):
                yield from _json_rows(file, stream)
            elif name.endswith(".parquet"):
                yield from _parquet_rows(file, stream)
            else:
                yield from _csv_rows(file, stream, "\t" if name.endswith(".tsv") else ",")


def _lines(file: DataFile, stream: BinaryIO) -> Iterator[str]:
    number = 0
    while line := stream.readline(_LINE_CHARACTERS):
        number += 1
        if len(line) == _LINE_CHARACTERS:
            raise ConfigError(
                f"images.path: line {number} of {file.name!r} is longer than a manifest's may be"
            )
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError:
            raise ConfigError(
                f"images.path: line {number} of {file.name!r} is not UTF-8; save it as UTF-8"
            ) from None


def _csv_rows(file: DataFile, stream: BinaryIO, delimiter: str) -> Iterator[_Row]:
    reader = csv.DictReader(_lines(file, stream), delimiter=delimiter)
    try:
        for row in reader:
            yield {name: value for name, value in row.items() if isinstance(name, str)}
    except csv.Error as error:
        raise ConfigError(
            f"images.path: line {reader.line_num + 1} of {file.name!r} is not CSV: {error}"
        ) from None


def _json_rows(file: DataFile, stream: BinaryIO) -> Iterator[_Row]:
    for number, line in enumerate(_lines(file, stream), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ConfigError(
                f"images.path: line {number} of {file.name!r} is not a JSON object; each line is to be one"
            )
        yield row


def _parquet_rows(file: DataFile, stream: BinaryIO) -> Iterator[_Row]:
    try:
        with pq.ParquetFile(stream, pre_buffer=False, buffer_size=2**20) as table:
            for batch in table.iter_batches(_BATCH_ROWS, use_threads=False):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"images.path: {file.name!r} is not a readable Parquet file: {reason}") from None
