"""Columns, features and JSON keys beside the label, which cut the images into slices."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_forms import pictures, write_folder, write_npz, write_tfrecord, write_zip
from test_statistics_aggregate import SHAPE, Images

from augnet.config import ImagesConfig
from augnet.errors import ConfigError
from augnet.sources import open_source
from augnet.statistics.describe import MOST_VALUES
from augnet.statistics.summary import summarize
from augnet.storage import schema

COLUMNS = {"label": ["a", "b", "a"], "camera": [3, 1, None], "site": ["north", "", "south"]}


def metadata(path, **settings):
    return [dict(ref.metadata) for ref in open_source(ImagesConfig(path=str(path), **settings)).list()]


def columns_with(images) -> dict[str, list]:
    return {"image": [image.png for image in images], **COLUMNS}


def test_of_a_manifest_all_further_columns_are_metadata(tmp_path):
    write_folder(tmp_path / "images", pictures(3))
    table = tmp_path / "table.csv"
    table.write_text(
        "path,label,camera,notes\nimages/ant/0000.png,ant,3,\nimages/bee/0001.png,bee,1," + "long" * 99 + "\n"
    )
    assert metadata(table) == [{"camera": "3"}, {"camera": "1", "notes": ("long" * 99)[:100]}]
    assert metadata(table, metadata="none") == [{}, {}]
    assert metadata(table, metadata=["camera", "label"])[0] == {"camera": "3", "label": "ant"}
    with pytest.raises(ConfigError, match=r"images\.metadata: there is no column 'kamera'.*'camera'"):
        metadata(table, metadata=["kamera"])


@pytest.mark.parametrize("ending", [".parquet", ".arrow"])
def test_of_a_table_with_images_the_named_columns_are_metadata(tmp_path, ending):
    table = pa.table(columns_with(pictures(3)))
    if ending == ".parquet":
        pq.write_table(table, tmp_path / "data.parquet")
    else:
        with (
            pa.OSFile(str(tmp_path / "data.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as out,
        ):
            out.write_table(table)
    path = tmp_path / f"data{ending}"
    assert metadata(path) == [{}, {}, {}]
    assert metadata(path, metadata=["camera", "site"]) == [
        {"camera": "3", "site": "north"},
        {"camera": "1"},
        {"site": "south"},
    ]
    with pytest.raises(ConfigError, match=r"images\.metadata: there is no column 'sight'"):
        metadata(path, metadata=["sight"])


def test_of_records_the_named_features_are_metadata(tmp_path):
    path = write_tfrecord(tmp_path, pictures(3))
    assert metadata(path, metadata=["image/class/text"], labels="none") == [
        {"image/class/text": name} for name in ("ant", "bee", "cow")
    ]
    with pytest.raises(ConfigError, match=r"images\.metadata: there is no feature 'text'"):
        metadata(path, metadata=["text"])


def test_of_shards_the_named_json_keys_are_metadata(tmp_path):
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for image, camera in zip(pictures(2), (3, [1, 2]), strict=True):
            described = json.dumps({"camera": camera, "label": image.label}).encode()
            for ending, data in (("png", image.png), ("json", described)):
                member = tarfile.TarInfo(f"{image.name}.{ending}")
                member.size = len(data)
                shard.addfile(member, io.BytesIO(data))
    assert metadata(tmp_path / "shard.tar", metadata=["camera"]) == [{"camera": "3"}, {}]


@pytest.mark.parametrize("write", [write_folder, write_zip, write_npz])
def test_formats_without_columns_say_so(tmp_path, write):
    path = write(tmp_path, pictures(3))
    assert metadata(path) == [{}, {}, {}]
    with pytest.raises(ConfigError, match=r"images\.metadata: \['camera'\]: .* no such columns"):
        metadata(path, metadata=["camera"])


def test_metadata_cut_the_statistics_into_slices():
    images = Images(n=MOST_VALUES + 1, shape=replace(SHAPE, labels=0))
    columns = dict(images.statistics(list(range(len(images.ids)))))
    sites = ["north" if k % 3 else "south" for k in range(len(images.ids))]
    columns |= {
        "image_id": images.ids,
        "metadata": [
            [("site", site), ("patient", str(k)), ("correct", "maybe")] for k, site in enumerate(sites)
        ],
    }
    nothing = [None] * len(sites)
    table = pa.table([columns.get(name, nothing) for name in schema.STATISTICS.names], schema.STATISTICS)
    summary = summarize(lambda name: table[name], images.aggregate(range(len(sites))), border=0.1)
    assert summary.figures["uncut_metadata"] == {"patient": MOST_VALUES + 1}
    rows = {
        (row["column"], row["value"]): row
        for row in summary.slices.to_pylist()
        if row["statistic"] == "frobenius"
    }
    assert {column for column, _ in rows} <= {"label", "predicted", "correct", "site"}
    assert ("correct", "maybe") not in rows
    for site in ("north", "south"):
        mine = np.array(table["frobenius"])[np.array(sites) == site]
        assert rows["site", site]["count"] == len(mine)
        assert rows["site", site]["mean"] == pytest.approx(mine.mean())
