import io
import threading

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from augnet.storage import shards
from augnet.storage.shards import open_jacobian_writer, read_table, write_table

SHAPE = (4, 5, 3)


def batches(rng, sizes=(3, 1, 4), outputs=2, shape=SHAPE):
    start = 0
    for size in sizes:
        ids = [f"class é/{i}.png" for i in range(start, start + size)]
        selected = np.tile(np.arange(outputs, dtype=np.int32) * 3, (size, 1))
        yield ids, selected, rng.normal(size=(size, outputs, *shape)).astype(np.float32)
        start += size


def write(path, format, dtype="float32", **kwargs):
    content = list(batches(np.random.default_rng(0), **kwargs))
    writer = open_jacobian_writer(format, path, content[0][2].shape[2:], dtype)
    places = [place for batch in content for place in writer.write(*batch)]
    writer.close()
    return places, content


def test_parquet_gives_the_tensors_back(tmp_path):
    path = tmp_path / "a.parquet"
    places, content = write(path, "parquet")
    table = pq.read_table(path)
    assert places == [0, 2, 4, 6, 8, 10, 12, 14]
    assert isinstance(table.schema.field("jacobian").type, pa.FixedShapeTensorType)
    found = table["jacobian"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(found, np.concatenate([rows.reshape(-1, *SHAPE) for *_, rows in content]))
    assert table["image_id"].to_pylist() == [i for ids, *_ in content for i in ids for _ in range(2)]
    assert table["output"].to_pylist() == [0, 3] * 8


@pytest.mark.parametrize(
    ("dtype", "compression", "encoding"),
    [
        ("float32", "LZ4", "PLAIN"),
        ("float16", "LZ4", "PLAIN"),
        ("float64", "LZ4", "PLAIN"),
        ("bfloat16", "ZSTD", "BYTE_STREAM_SPLIT"),
    ],
)
def test_plain_readers_see_a_fixed_size_list(tmp_path, dtype, compression, encoding):
    path = tmp_path / "a.parquet"
    write(path, "parquet", dtype)
    schema = pq.ParquetFile(path).schema
    assert schema.column(2).path == "jacobian.list.element"
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    assert column.compression == compression
    assert encoding in column.encodings


def test_row_groups_are_bounded_by_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP_BYTES", 4 * 5 * 3 * 4 * 3)
    path = tmp_path / "a.parquet"
    write(path, "parquet")
    metadata = pq.ParquetFile(path).metadata
    assert max(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)) <= 3


def test_npz_loads_without_pickle(tmp_path):
    path = tmp_path / "a.npz"
    places, content = write(path, "npz")
    assert places == list(range(8))
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["image_id"].tolist() == [i for ids, *_ in content for i in ids]
        assert arrays["output"].dtype == np.int32
        np.testing.assert_array_equal(arrays["jacobian"], np.concatenate([rows for *_, rows in content]))


@pytest.mark.parametrize("format", ["parquet", "npz"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_same_rows_give_the_same_bytes(tmp_path, format, dtype):
    for name in "ab":
        write(tmp_path / name, format, dtype)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_half_precision_is_stored_as_such(tmp_path):
    write(tmp_path / "a", "parquet", "float16")
    assert pq.read_table(tmp_path / "a")["jacobian"].type.value_type == pa.float16()


def test_bfloat16_is_float32_in_less_than_half_the_bytes(tmp_path):
    shape = (32, 32, 3)
    _, content = write(tmp_path / "wide", "parquet", shape=shape)
    writer = open_jacobian_writer("parquet", tmp_path / "rounded", shape, "bfloat16")
    for ids, outputs, rows in content:
        writer.write(ids, outputs, rows.astype(ml_dtypes.bfloat16))
    writer.close()
    found = pq.read_table(tmp_path / "rounded")["jacobian"].combine_chunks().to_numpy_ndarray()
    rows = np.concatenate([rows.reshape(-1, *shape) for *_, rows in content])
    assert found.dtype == np.float32 and 0 < np.abs(found - rows).max() <= np.abs(rows).max() * 2**-8
    assert (tmp_path / "rounded").stat().st_size < (tmp_path / "wide").stat().st_size / 2


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_a_unit_without_images_gives_a_readable_file(tmp_path, format):
    writer = open_jacobian_writer(format, tmp_path / "a", SHAPE, "float32")
    writer.close()
    if format == "parquet":
        assert pq.read_table(tmp_path / "a").num_rows == 0
    else:
        assert np.load(tmp_path / "a", allow_pickle=False)["jacobian"].size == 0


def test_a_table_is_read_by_no_other_thread(tmp_path):
    """One that lets go of a Python file while Python ends would abort the process."""

    class Watched(io.FileIO):
        def readinto(self, buffer):
            readers.add(threading.get_ident())
            return super().readinto(buffer)

        def read(self, size=-1):
            readers.add(threading.get_ident())
            return super().read(size)

    readers = set()
    table = pa.table({name: np.arange(5000.0) for name in "abcdef"})
    write_table(tmp_path / "table.parquet", table)
    with Watched(tmp_path / "table.parquet") as stream:
        assert read_table(stream).equals(table)
        assert read_table(stream, ["b"]).equals(table.select(["b"]))
    assert readers == {threading.get_ident()}
    readers.clear()
    with Watched(tmp_path / "table.parquet") as stream:
        pq.read_table(stream)
    assert readers - {threading.get_ident()}  # what it is about
