"""Whole audits in a bucket on loopback: killed, cut off, refused service; always the same bytes."""

import hashlib
import logging
import shutil

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from audit_processes import audit_command, digests
from conftest import small_cnn, write_images
from dataset_forms import pictures
from s3_server import BUCKET, FAULTS, s3_server
from test_sources_forms import FORMS

import augnet
from augnet.config import ImagesConfig
from augnet.errors import ImageError
from augnet.sources import open_source
from augnet.storage import names
from pipeline.main import main

FLAGS = ("--store.shard_bytes=50000", "--log-level=warning", "--failures.max_fraction=1")  # 8 images a unit


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The server with model.keras and 40 images in the bucket; `folder` has them too."""
    folder = tmp_path_factory.mktemp("local")
    small_cnn().save(folder / "model.keras")
    write_images(folder / "images", 40)
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as server:
        fsspec.filesystem("s3").put(str(folder), BUCKET, recursive=True)
        server.root, server.folder = f"s3://{BUCKET}/{folder.name}", folder
        yield server


@pytest.fixture
def s3(server):
    """The server, in good health."""
    server.share, server.faults, server.below = 0.0, FAULTS, "/"
    server.spoiled.clear()
    return server


@pytest.fixture(scope="module")
def expected(server):
    """Digests of an audit that nothing disturbed."""
    assert main(command(server, "expected")) == 0
    return digests_there(server, "expected")


def command(server, output, *flags):
    return audit_command(
        f"{server.root}/model.keras", f"{server.root}/images", f"{server.root}/{output}", *FLAGS, *flags
    )


def objects(server, output):
    """The bytes of every object of an audit, by its path."""
    store = fsspec.filesystem("s3", use_listings_cache=False)
    return store.cat(store.find(f"{server.root}/{output}"))


def digests_there(server, output):
    """As audit_processes.digests gives them, of an audit in the bucket."""
    root, found = f"{server.root}/{output}/".removeprefix("s3://"), objects(server, output)
    assert not any(names.TEMPORARY_PREFIX in name for name in found)
    digests = {name.removeprefix(root): hashlib.sha256(data).hexdigest() for name, data in found.items()}
    del digests[names.RUN]
    return digests


def test_an_audit_in_a_bucket_is_that_of_the_local_folder(s3, expected, tmp_path, capsys):
    local = audit_command(s3.folder / "model.keras", s3.folder / "images", tmp_path / "out", *FLAGS)
    assert main(local) == 0
    here, there = augnet.open_audit(tmp_path / "out"), augnet.open_audit(f"{s3.root}/expected")
    assert there.statistics.drop(["uri"]).equals(here.statistics.drop(["uri"]))
    image_id = there.statistics["image_id"][17].as_py()
    np.testing.assert_array_equal(there.jacobian(image_id), here.jacobian(image_id))
    assert expected.keys() == digests(tmp_path / "out").keys()
    same = {name for name, digest in digests(tmp_path / "out").items() if expected[name] == digest}
    assert {names.MAPS, names.SLICES, "jacobians/part-00000-of-00005.parquet"} <= same
    capsys.readouterr()
    for name in ("check", "status", "report"):
        assert main([name, f"{s3.root}/expected"]) == 0
    shown = capsys.readouterr().out
    assert "as the audit left it" in shown and "5 of 5" in shown and "report/index.html" in shown
    assert digests_there(s3, "expected") == expected
    shutil.rmtree(tmp_path / "out")


def test_no_key_is_written_with_an_audit(s3, expected):
    found = objects(s3, "expected")
    assert any(name.endswith(names.RUN) for name in found)
    assert not any(b"hunter2" in data or b"key-of-the-test" in data for data in found.values())


def test_statistics_are_fetched_once_for_all_columns(s3, expected, monkeypatch):
    asked, passed_on = [], s3.draw
    monkeypatch.setattr(s3, "draw", lambda path: asked.append(path) or passed_on(path))
    audit = augnet.open_audit(f"{s3.root}/expected")
    columns = [audit.column(name) for name in audit.scalars]
    assert {len(column) for column in columns} == {40} and len(columns) > 10
    assert sum("statistics/part" in path for path in asked) <= 2 * 5  # sizes, and the files


def test_an_image_is_one_request(s3, monkeypatch):
    store, place = fsspec.filesystem("s3"), f"{s3.root}/odd"
    store.pipe(
        {f"{place}/empty.png": b"", f"{place}/large.png": bytes(101), f"{place}/whole.png": bytes(100)}
    )
    source = open_source(ImagesConfig(path=place, max_bytes=100))
    empty, large, whole = source.list()
    asked, passed_on = [], s3.draw
    monkeypatch.setattr(s3, "draw", lambda path: asked.append(path) or passed_on(path))
    assert source.read(whole) == bytes(100)
    assert len(asked) == 1
    with pytest.raises(ImageError, match=r"has 101 bytes, more than images\.max_bytes \(100\)"):
        source.read(large)
    with pytest.raises(ImageError, match="the file is empty"):
        source.read(empty)


def test_a_killed_audit_is_resumed(s3, expected, fork_server):
    store = fsspec.filesystem("s3", use_listings_cache=False)

    def two_units_are_done():
        return len(store.find(f"{s3.root}/killed/records")) >= 2

    assert fork_server.run_until(two_units_are_done, 0, command(s3, "killed")) < 0
    done = {path: store.modified(path) for path in store.find(f"{s3.root}/killed/records")}
    assert main(command(s3, "killed")) == 0
    assert digests_there(s3, "killed") == expected
    assert {path: store.modified(path) for path in done} == done and len(done) < 5


def test_a_server_that_fails_and_goes_down_ends_the_audit_which_goes_on_later(
    s3, expected, monkeypatch, caplog, capsys
):
    passed_on, s3.share = s3.draw, 0.1

    def down_when_the_second_unit_begins(path):
        if "records/part-00001" in path:
            s3.share, s3.faults = 1.0, ("503", "no answer")
        return passed_on(path)

    monkeypatch.setattr(s3, "draw", down_when_the_second_unit_begins)
    capsys.readouterr()
    assert main(command(s3, "down")) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("augnet: ")]
    assert "tried 7 times" in said and "the same command goes on" in said

    monkeypatch.undo()
    s3.spoiled.clear()
    s3.share, s3.faults = 0.1, FAULTS
    caplog.set_level(logging.INFO)
    assert main([*command(s3, "down"), "--log-level=info"]) == 0
    s3.share = 0.0
    assert digests_there(s3, "down") == expected
    assert s3.spoiled.total() > 5
    (line,) = [record.message for record in caplog.records if "storage retries" in record.message]
    assert int(line.split()[-3]) > 0


def test_images_that_could_not_be_fetched_are_done_again(s3, expected):
    s3.share, s3.faults, s3.below = 1.0, ("503",), "/images/bee/"
    assert main(command(s3, "retried")) == 0
    s3.share = 0.0
    audit = augnet.open_audit(f"{s3.root}/retried")
    assert audit.counts == {"planned": 40, "audited": 27, "failed": 13}
    assert set(audit.failures["error"].to_pylist()) == {
        "the file cannot be read: its store does not answer as it should"
    }
    assert main([*command(s3, "retried"), "--retry-failed"]) == 0
    assert digests_there(s3, "retried") == expected


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_dataset_is_read_by_address(s3, tmp_path, form):
    path = FORMS[form](tmp_path / "data", pictures(12))
    fsspec.filesystem("s3").put(str(tmp_path / "data"), f"{BUCKET}/{form}", recursive=True)
    address = f"s3://{BUCKET}/{form}/{path.relative_to(tmp_path / 'data').as_posix()}".removesuffix("/.")
    here, there = open_source(ImagesConfig(path=str(path))), open_source(ImagesConfig(path=address))
    assert type(there).__name__ == type(here).__name__.replace("FolderSource", "RemoteSource")
    mine, theirs = list(here.list()), list(there.list())
    assert [(ref.image_id, ref.label) for ref in theirs] == [(ref.image_id, ref.label) for ref in mine]
    for own, ref in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(there.read(ref), here.read(own))


def test_of_a_large_parquet_file_what_is_needed_is_read(s3, tmp_path):
    rng = np.random.default_rng(0)
    rows = [{"image": rng.bytes(2**18), "label": str(row % 3)} for row in range(96)]  # 24 MiB
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=16)
    fsspec.filesystem("s3").put(str(tmp_path / "a.parquet"), f"{BUCKET}/large/a.parquet")
    size, before = (tmp_path / "a.parquet").stat().st_size, s3.sent
    source = open_source(ImagesConfig(path=f"s3://{BUCKET}/large/a.parquet"))
    refs = list(source.list())
    assert [ref.label for ref in refs] == [row["label"] for row in rows]
    assert s3.sent - before < size / 2
    before = s3.sent
    assert source.read(refs[40]) == rows[40]["image"] and source.read(refs[41]) == rows[41]["image"]
    assert s3.sent - before < size / 3
