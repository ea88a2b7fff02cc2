"""Datasets that Hugging Face's `datasets` saved (`save_to_disk`): Arrow files, read without their library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

import pyarrow as pa

from augnet.config import ImagesConfig
from augnet.errors import ConfigError
from augnet.sources.columnar import ColumnarSource
from augnet.sources.paths import uri_to_path

_SPLITS = "dataset_dict.json"


class HuggingFaceSource(ColumnarSource):
    """The images of one split. Files on this machine are mapped into memory, not read.

    Args:
        config: the `images` section. `path` is a folder that `Dataset.save_to_disk` wrote, or an .arrow file.

    Raises:
        ConfigError: the folder holds several splits.
    """

    endings = (".arrow",)
    markers = frozenset({"state.json", _SPLITS})
    file = "Arrow file"

    def __init__(self, config: ImagesConfig):
        super().__init__(config)
        names = self.files.peek(1000)
        if _SPLITS in names:
            splits = sorted({name.partition("/")[0] for name in names if name.endswith(".arrow")})
            raise ConfigError(
                f"images.path: {self.files.given!r} holds the splits {', '.join(splits)}; give the folder of "
                f"one, such as {self.files.given.rstrip('/')}/{splits[0] if splits else 'test'}"
            )

    def _schema(self, uri: str) -> pa.Schema:
        with self._stream(uri) as stream, pa.ipc.open_stream(stream) as reader:
            return reader.schema

    def _described(self, uri: str, columns: Sequence[str]) -> Iterator[list[dict[str, object]]]:
        with self._stream(uri) as stream, pa.ipc.open_stream(stream) as reader:
            for batch in reader:
                values = [_checked(batch, column).to_pylist() for column in columns]
                rows = zip(*values, strict=True) if columns else repeat((), len(batch))
                yield [dict(zip(columns, row, strict=True)) for row in rows]

    def _rows_from(self, uri: str, row: int) -> tuple[int, int | None, Iterator[pa.Array]]:
        return 0, None, self._parts(uri)

    def _parts(self, uri: str) -> Iterator[pa.Array]:
        with self._stream(uri) as stream, pa.ipc.open_stream(stream) as reader:
            for batch in reader:
                yield _checked(batch, self.columns.image)

    def _stream(self, uri: str) -> pa.NativeFile:
        if self.files.is_local:
            return pa.memory_map(uri_to_path(uri))
        return pa.PythonFile(self.files.open(uri), mode="r")


def _checked(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column, none of whose offsets leads out of the file. Raises pa.ArrowInvalid."""
    column = batch.column(name)
    column.validate(full=True)
    return column
