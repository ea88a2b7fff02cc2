"""Writing the files of one work unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from augnet.config import StoreConfig
from augnet.storage import names, schema
from augnet.storage.files import FileEntry, OutputFolder, digest
from augnet.storage.shards import JacobianWriter, open_jacobian_writer, write_table


class UnitFiles:
    """The shards of one unit: Jacobians are streamed to disk, the small tables gather in memory.

    `columns` are those of the statistics, see `schema.statistics`.
    """

    def __init__(
        self, folder: OutputFolder, unit_id: int, unit_count: int, columns: pa.Schema = schema.STATISTICS
    ):
        self._folder, self._unit = folder, (unit_id, unit_count)
        self._columns = columns
        self._statistics: list[pa.RecordBatch] = []
        self._jacobians: JacobianWriter | None = None
        self._jacobian_file: str | None = None
        self._entries: list[FileEntry] = []

    @contextmanager
    def storing_jacobians(self, store: StoreConfig, row_shape: tuple[int, int, int]) -> Iterator[None]:
        """While open, `add` writes Jacobians too, unless store.jacobians is none.

        The shard, of rows of shape (height, width, channel), takes its place when the block ends well.
        """
        if store.jacobians is None:
            yield
            return
        self._jacobian_file = names.shard("jacobians", *self._unit, suffix=store.format)
        with self._placing(self._jacobian_file) as path:
            self._jacobians = open_jacobian_writer(store.format, path, row_shape, store.dtype)
            yield
            self._jacobians.close()

    def add(self, columns: dict[str, Any], stored: np.ndarray, rows: np.ndarray | None) -> None:
        """Append n images.

        Args:
            columns: every column of schema.statistics but jacobian_file and jacobian_row, n values each.
            stored: (n, S) int32, the model output of each stored row.
            rows: (n, S, height, width, channel), or None when nothing is stored.
        """
        count = len(columns["image_id"])
        places: list[int | None] = [None] * count
        if self._jacobians and rows is not None:
            places = list(self._jacobians.write(columns["image_id"], stored, rows))
        columns = columns | {"jacobian_file": [self._jacobian_file] * count, "jacobian_row": places}
        self._statistics.append(pa.record_batch(columns, self._columns))

    def close(
        self, failures: list[dict[str, Any]], save_aggregate: Callable[[Path], None]
    ) -> tuple[FileEntry, ...]:
        """Write the statistics, the failures (rows of schema.FAILURES) and the aggregate.

        Returns:
            Every file of the unit, in the order in which it was written.
        """
        with self._placing(names.shard("statistics", *self._unit)) as path:
            write_table(path, pa.Table.from_batches(self._statistics, self._columns))
        with self._placing(names.shard("failures", *self._unit)) as path:
            write_table(path, pa.Table.from_pylist(failures, schema.FAILURES))
        with self._placing(names.shard("aggregates", *self._unit)) as path:
            save_aggregate(path)
        return tuple(self._entries)

    @contextmanager
    def _placing(self, name: str) -> Iterator[Path]:
        with self._folder.writing(name) as path:
            yield path
            with path.open("rb") as stream:
                self._entries.append(digest(name, stream))
