"""Parquet files with a column of encoded images."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import pyarrow as pa
import pyarrow.parquet as pq

from augnet.sources.columnar import ColumnarSource, image_columns

_IN_PARTS = {"pre_buffer": False, "buffer_size": 2**20}
"""Else pyarrow reads a row group's whole column into memory. Now two pages (of pandas: 1024 rows each)."""

_IMAGE_ROWS = 16
_DESCRIBED_ROWS = 10_000


class ParquetSource(ColumnarSource):
    """Images in Parquet files, also as Hugging Face's datasets lay them out: a struct of bytes and path.

    A unit of work reads the row groups of its rows only, some images at a time.
    """

    endings = (".parquet", ".pq")
    magic = ((0, b"PAR1"),)
    file = "Parquet file"

    def holds_images(self) -> bool:
        """Whether the image column has bytes; other tables may list paths of images. True if unreadable."""
        try:
            found = image_columns(self._schema(self.first_file().uri))
        except (pa.ArrowException, OSError):
            return True
        return bool(found) and self.config.image in (None, *found)

    def _schema(self, uri: str) -> pa.Schema:
        with self._table(uri) as table:
            return table.schema_arrow

    def _described(self, uri: str, columns: Sequence[str]) -> Iterator[list[dict[str, object]]]:
        with self._table(uri) as table:
            if not columns:
                yield [{}] * table.metadata.num_rows
                return
            for batch in table.iter_batches(_DESCRIBED_ROWS, columns=list(columns), use_threads=False):
                yield batch.to_pylist()

    def _rows_from(self, uri: str, row: int) -> tuple[int, int | None, Iterator[pa.Array]]:
        with self._table(uri) as table:
            groups = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
        ends = list(accumulate(groups))
        group = min(bisect_right(ends, row), len(ends) - 1)
        return ends[group] - groups[group], ends[group], self._parts(uri, group)

    def _parts(self, uri: str, group: int) -> Iterator[pa.Array]:
        column = self.columns.image + (".bytes" if self.columns.in_struct else "")
        with self._table(uri) as table:
            options = {"row_groups": [group], "columns": [column], "use_threads": False}
            for batch in table.iter_batches(_IMAGE_ROWS, **options):
                yield batch.column(0)

    @contextmanager
    def _table(self, uri: str) -> Iterator[pq.ParquetFile]:
        with self.files.open(uri) as stream, pq.ParquetFile(stream, **_IN_PARTS) as table:
            yield table
