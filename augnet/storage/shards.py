"""A unit's shards: writers of Jacobians as Parquet or NPZ; tables as Parquet, written and read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from augnet.storage import schema

ROW_GROUP_BYTES = 32 * 1024**2


class JacobianWriter(ABC):
    """Fills one shard file with batches of stored rows (height, width, channel).

    Attributes:
        dtype: of the values in the file. For bfloat16, which Parquet does not have, it is float32: two of its
            four bytes are zero then, and take next to no space where bytes are split by their place.
    """

    def __init__(self, path: Path, row_shape: tuple[int, int, int], dtype: str):
        self.path, self.row_shape = path, row_shape
        self.dtype = np.dtype("float32" if dtype == "bfloat16" else dtype)

    @abstractmethod
    def write(self, image_ids: list[str], outputs: np.ndarray, rows: np.ndarray) -> list[int]:
        """Append n images: rows (n, S, height, width, channel) of the model outputs (n, S) int32.

        Returns:
            Where each image lies in the file: its first table row (Parquet) or its index (NPZ).
        """

    @abstractmethod
    def close(self) -> None:
        """Finish the file."""


class ParquetJacobianWriter(JacobianWriter):
    """One table row per (image, output), row groups bounded by ROW_GROUP_BYTES."""

    def __init__(self, path: Path, row_shape: tuple[int, int, int], dtype: str):
        super().__init__(path, row_shape, dtype)
        # Gradients hardly compress, so what makes them a sixth smaller would be half of the work of writing
        # them; rounded to bfloat16 they do, where bytes are split by their place.
        rounded = dtype == "bfloat16"
        self._schema = schema.jacobian_parquet(*row_shape, pa.from_numpy_dtype(self.dtype))
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd" if rounded else "lz4",
            compression_level=1 if rounded else None,
            use_dictionary=False,
            write_statistics=["image_id", "output"],
            column_encoding={"jacobian.list.element": "BYTE_STREAM_SPLIT" if rounded else "PLAIN"},
        )
        row_bytes = int(np.prod(row_shape)) * self.dtype.itemsize
        self._group_rows = max(1, ROW_GROUP_BYTES // row_bytes)
        self._pending: list[pa.RecordBatch] = []
        self._count = 0

    def write(self, image_ids: list[str], outputs: np.ndarray, rows: np.ndarray) -> list[int]:
        n, stored = outputs.shape
        flat = np.ascontiguousarray(rows, dtype=self.dtype).reshape(-1)
        tensor = pa.ExtensionArray.from_storage(
            self._schema.field("jacobian").type,
            pa.FixedSizeListArray.from_arrays(pa.array(flat), int(np.prod(self.row_shape))),
        )
        names = pa.array(np.repeat(np.asarray(image_ids, dtype=object), stored), pa.string())
        batch = pa.record_batch([names, pa.array(outputs.reshape(-1), pa.int32()), tensor], self._schema)
        self._pending.append(batch)
        if sum(map(len, self._pending)) >= self._group_rows:
            self._flush()
        first = self._count
        self._count += n * stored
        return list(range(first, self._count, stored))

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._pending:
            table = pa.Table.from_batches(self._pending, self._schema)
            self._writer.write_table(table, row_group_size=self._group_rows)
        self._pending = []


class NpzJacobianWriter(JacobianWriter):
    """image_id (n,), output (n, S) int32, jacobian (n, S, height, width, channel); no pickles."""

    def __init__(self, path: Path, row_shape: tuple[int, int, int], dtype: str):
        super().__init__(path, row_shape, dtype)
        self._image_ids: list[str] = []
        self._outputs: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def write(self, image_ids: list[str], outputs: np.ndarray, rows: np.ndarray) -> list[int]:
        first = len(self._image_ids)
        self._image_ids += image_ids
        self._outputs.append(outputs.astype(np.int32))
        self._rows.append(rows.astype(self.dtype))
        return list(range(first, len(self._image_ids)))

    def close(self) -> None:
        no_outputs, no_rows = np.zeros((0, 0), np.int32), np.zeros((0, 0, *self.row_shape), self.dtype)
        with open(self.path, "wb") as stream:
            np.savez(
                stream,
                image_id=np.asarray(self._image_ids, dtype=np.str_),
                output=np.concatenate(self._outputs) if self._outputs else no_outputs,
                jacobian=np.concatenate(self._rows) if self._rows else no_rows,
            )


def open_jacobian_writer(
    format: str, path: Path, row_shape: tuple[int, int, int], dtype: str
) -> JacobianWriter:
    """The writer for `store.format`."""
    writers = {"parquet": ParquetJacobianWriter, "npz": NpzJacobianWriter}
    return writers[format](path, row_shape, dtype)


def write_table(path: Path, table: pa.Table) -> None:
    """A table of plain columns as one Parquet file."""
    pq.write_table(table, path, compression="zstd", compression_level=3)


def read_table(stream: BinaryIO, columns: Sequence[str] | None = None) -> pa.Table:
    """The columns of a Parquet file, all or some, read by this thread alone.

    `pq.read_table` reads with threads of Arrow's. One of these may let go of the Python file just when Python
    ends, and then the process is aborted (status 134) after all its work.
    """
    with pq.ParquetFile(stream, pre_buffer=False) as file:
        table: pa.Table = file.read(columns, use_threads=False)
    return table
