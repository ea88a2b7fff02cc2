"""Parquet files and Hugging Face datasets, whose images are bytes in a column."""

import json
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_forms import CLASSES, pictures, write_hf, write_hf_parquet, write_manifest, write_parquet
from test_sources_webdataset import outcomes, source

from augnet.errors import ConfigError, ImageError

DATA = Path(__file__).parent / "data" / "hf"


def table(tmp_path, name="a.parquet", **columns):
    pq.write_table(pa.table(columns), tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("row_group_size", [None, 7])
def test_images_that_pandas_wrote(tmp_path, row_group_size):
    images = pictures(40)
    found = source(write_parquet(tmp_path, images, row_group_size=row_group_size))
    refs = list(found.list())
    assert [ref.image_id for ref in refs] == [f"pictures.parquet#{row}" for row in range(40)]
    assert [ref.label for ref in refs] == [image.label for image in images]
    assert [found.read(ref) for ref in refs] == [image.png for image in images]


def test_rows_can_be_read_in_any_order_and_in_threads(tmp_path):
    images = pictures(60)
    found = source(write_parquet(tmp_path, images, row_group_size=20))
    refs = list(found.list())
    order = np.random.default_rng(0).permutation(60)
    with ThreadPoolExecutor(4) as threads:
        read = list(threads.map(found.read, [refs[row] for row in order]))
    assert read == [images[row].png for row in order]


@pytest.mark.parametrize("form", ["exported", "saved"])
def test_images_of_hugging_face(form):
    images = pictures(6)
    found = source(DATA / form)
    refs = list(found.list())
    assert found.class_names() == CLASSES
    assert [ref.label for ref in refs] == [image.label for image in images]
    assert [found.read(ref) for ref in refs] == [image.png for image in images]
    assert found.read(refs[3]) == images[3].png and found.read(refs[1]) == images[1].png


@pytest.mark.parametrize("write", [write_hf, write_hf_parquet])
def test_what_the_datasets_package_writes_today(tmp_path, write):
    images = pictures(50)
    found = source(write(tmp_path / "data", images))
    assert found.class_names() == CLASSES
    assert [(ref.label, found.read(ref)) for ref in found.list()] == [(i.label, i.png) for i in images]


@pytest.mark.parametrize("form", ["exported", "saved"])
def test_an_address(form):
    memory, address = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}"
    memory.put(f"{DATA / form}/", f"{address}/data", recursive=True)
    found = source(f"{address}/data")
    assert [found.read(ref) for ref in found.list()] == [image.png for image in pictures(6)]


def test_a_dataset_of_several_splits_asks_for_one(tmp_path):
    for split in ("train", "test"):
        shutil.copytree(DATA / "saved", tmp_path / split)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(ConfigError, match="holds the splits test, train; give the folder of one"):
        source(tmp_path)
    assert len(list(source(tmp_path / "test").list())) == 6


def test_a_table_of_paths_is_a_manifest(tmp_path):
    images = pictures(5)
    found = source(write_manifest(tmp_path, images, ".parquet"))
    assert [found.read(ref) for ref in found.list()] == [image.png for image in images]


def test_a_wrong_column_is_answered_with_those_that_there_are(tmp_path):
    path = table(tmp_path, image=[b"x"], species=["bee"])
    with pytest.raises(ConfigError, match=r"images\.labels: .*'kind'.*there is 'species'"):
        next(source(path, labels="kind").list())
    with pytest.raises(ConfigError, match=r"images\.image: .*'img'.*there is 'image', 'species'"):
        next(source(path, image="img", format="parquet").list())
    with pytest.raises(ConfigError, match=r"'a' \(int64\)"):
        next(source(table(tmp_path, "c.parquet", a=[1]), format="parquet").list())
    with pytest.raises(ConfigError, match=r"several columns .* name one of 'left', 'right'"):
        next(source(table(tmp_path, "b.parquet", left=[b"x"], right=[b"y"])).list())
    with pytest.raises(ConfigError, match="there are no folders here"):
        next(source(path, labels="folder").list())
    assert next(source(path, labels="species").list()).label == "bee"


def test_rows_without_an_image_fail_alone(tmp_path):
    png = pictures(1)[0].png
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": png}, None, {"path": "/etc/passwd"}, {"bytes": b""}, {"bytes": png * 9}, {"bytes": png}]
    path = table(tmp_path, image=pa.array(rows, struct))
    found = outcomes(source(path, max_bytes=len(png) * 5))
    assert [found[f"a.parquet#{row}"] for row in (0, 5)] == [None, None]
    assert "no image" in found["a.parquet#1"] and "not its bytes" in found["a.parquet#2"]
    assert "no bytes" in found["a.parquet#3"] and "max_bytes" in found["a.parquet#4"]


def test_a_damaged_page_fails_its_images_and_no_others(tmp_path):
    images = pictures(60)
    path = write_parquet(tmp_path, images, row_group_size=20)
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + 60] = bytes(60)
    path.write_bytes(data)
    problems = list(outcomes(source(path)).values())
    assert problems[:20] == [None] * 20 == problems[40:]
    assert all("the file is damaged here" in problem for problem in problems[20:40])


@pytest.mark.parametrize("form", ["exported", "saved"])
def test_a_file_that_is_cut_off(tmp_path, form):
    shutil.copytree(DATA / form, tmp_path / "data")
    path = next(path for path in (tmp_path / "data").iterdir() if path.suffix != ".json")
    path.write_bytes(path.read_bytes()[:1900])
    with pytest.raises(ConfigError, match=r"is no (Parquet|Arrow) file|damaged"):
        found = source(tmp_path / "data")
        for ref in found.list():
            found.read(ref)


def test_a_file_with_fewer_rows_than_planned(tmp_path):
    found = source(write_parquet(tmp_path, pictures(30)))
    refs = list(found.list())
    write_parquet(tmp_path, pictures(10))
    with pytest.raises(ImageError, match="fewer rows than were planned"):
        found.read(refs[20])
    assert found.read(refs[5]) == pictures(6)[5].png


def test_a_row_group_of_160_megabytes_is_read_in_parts(tmp_path):
    noise = np.random.default_rng(0)
    path = table(tmp_path, image=[noise.bytes(20_000) for _ in range(8000)])
    assert pq.ParquetFile(path).num_row_groups == 1
    found = source(path)
    refs = list(found.list())
    before, peak = pa.total_allocated_bytes(), 0
    for ref in refs[4000:4600]:
        assert len(found.read(ref)) == 20_000
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 60e6


def test_offsets_that_lead_out_of_an_arrow_file_are_seen(tmp_path):
    batch = pa.record_batch({"image": [bytes(77_777)]})
    with pa.ipc.new_stream(tmp_path / "a.arrow", batch.schema) as writer:
        writer.write_batch(batch)
    data = bytearray((tmp_path / "a.arrow").read_bytes())
    place = data.rindex(np.array([0, 77_777], np.int32).tobytes())
    data[place : place + 8] = np.array([0, 2**30], np.int32).tobytes()
    (tmp_path / "a.arrow").write_bytes(data)
    found = source(tmp_path / "a.arrow")
    with pytest.raises(ImageError, match="damaged"):
        found.read(next(found.list()))


def test_a_class_number_of_minus_one_is_no_label(tmp_path):
    rows = pq.read_table(DATA / "exported").to_pylist()
    schema = pq.read_schema(DATA / "exported" / "train-00000-of-00001.parquet")
    pq.write_table(
        pa.Table.from_pylist([row | {"label": -1} for row in rows], schema), tmp_path / "a.parquet"
    )
    assert [ref.label for ref in source(tmp_path / "a.parquet").list()] == [None] * 6
