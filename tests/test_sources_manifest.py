"""Images that a CSV, JSON lines or Parquet table lists."""

import uuid
from pathlib import Path

import fsspec
import pytest
from dataset_forms import pictures, write_folder, write_manifest

from augnet.config import ImagesConfig
from augnet.errors import ConfigError, ImageError
from augnet.sources import open_source


def source(path, **settings):
    return open_source(ImagesConfig(path=str(path), **settings))


def table(tmp_path: Path, text: str | bytes, name: str = "table.csv") -> Path:
    write_folder(tmp_path / "images", pictures(3))
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl"])
def test_images_come_in_the_order_of_the_table_named_as_listed(tmp_path, ending):
    images = pictures(5)
    manifest = source(write_manifest(tmp_path, images, ending))
    refs = list(manifest.list())
    assert [ref.image_id for ref in refs] == [f"images/{image.label}/{image.name}.png" for image in images]
    assert [ref.label for ref in refs] == [image.label for image in images]
    assert [manifest.read(ref) for ref in refs] == [image.png for image in images]


def test_columns_are_named_or_guessed(tmp_path):
    path = table(tmp_path, "kind,where,weight\nwasp,images/ant/0000.png,3\n")
    assert [ref.label for ref in source(path).list()] == [None]  # no column is called label
    assert [ref.label for ref in source(path, labels="kind", image="where").list()] == ["wasp"]
    assert [ref.label for ref in source(path, labels="weight").list()] == ["3"]
    assert [ref.label for ref in source(path, labels="folder").list()] == ["ant"]
    assert [ref.label for ref in source(path, labels="none").list()] == [None]


def test_a_wrong_column_is_answered_with_those_that_there_are(tmp_path):
    path = table(tmp_path, "path,species\nimages/ant/0000.png,ant\n")
    with pytest.raises(ConfigError, match=r"images\.labels: .*'kind'.*there is 'species'"):
        next(source(path, labels="kind").list())
    with pytest.raises(ConfigError, match=r"images\.image: .*'file'.*there is 'path', 'species'"):
        next(source(path, image="file").list())
    with pytest.raises(
        ConfigError, match=r"images\.image: no column .* looks like paths; name one of 'a', 'b'"
    ):
        next(source(table(tmp_path, "a,b\n1,2\n")).list())


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("t.csv", b"", "has no rows"),
        ("t.csv", b"path\n", "has no rows"),
        ("t.csv", b"path\nb\xe4r.png\n", "line 2 .* is not UTF-8"),
        ("t.jsonl", b'{"path": "a.png"}\n["b.png"]\n', "line 2 .* is not a JSON object"),
        ("t.jsonl", b'{"path": "a.png"\n', "line 1 .* is not a JSON object"),
        ("t.csv", b"path\n" + b"x" * 2_000_000, "line 2 .* is longer"),
        ("t.csv", b"path\n" + b"x" * 200_000, "line 2 .* is not CSV"),
    ],
)
def test_a_table_that_is_none(tmp_path, name, text, words):
    with pytest.raises(ConfigError, match=words):
        list(source(table(tmp_path, text, name)).list())


def test_rows_that_name_no_image_fail_alone(tmp_path):
    path = table(
        tmp_path,
        "path,label\nimages/ant/0000.png,ant\n,bee\nimages/none.png,bee\nimages,cow\nimages/ant/0000.png,ant\n",
    )
    manifest = source(path)
    refs, reasons = list(manifest.list()), []
    for ref in refs:
        try:
            reasons.append(len(manifest.read(ref)) > 0)
        except ImageError as error:
            reasons.append((error.stage, str(error)))
    missing = ("read", "the file cannot be read: No such file or directory")
    folder = ("read", "the file cannot be read: Is a directory")
    assert reasons == [True, ("read", "row 1, counted from 0, has no path"), missing, folder, True]
    assert [ref.image_id for ref in refs][-1] == "images/ant/0000.png#2"


def test_a_table_with_half_a_character_and_a_nul_in_it(tmp_path):
    manifest = source(table(tmp_path, '{"path": "\\ud800.png"}\n{"path": "a\\u0000.png"}\n', "t.jsonl"))
    refs = list(manifest.list())
    assert refs[0].image_id == "\\ud800.png"
    for ref in refs:
        with pytest.raises(ImageError, match="cannot be read"):
            manifest.read(ref)


def test_an_address_is_named_without_its_password_and_query(tmp_path):
    path = table(tmp_path, "path\nhttps://me:secret@host/a.png?token=secret\n")
    ref = next(source(path).list())
    assert ref.image_id == "https://host/a.png" and "token=secret" in ref.uri


def test_absolute_paths_and_files_too_large(tmp_path):
    write_folder(tmp_path / "images", pictures(1))
    path = table(tmp_path, f"path\n{tmp_path}/images/ant/0000.png\n")
    manifest = source(path, max_bytes=10)
    with pytest.raises(ImageError, match=r"more than images\.max_bytes"):
        manifest.read(next(manifest.list()))
    assert source(path).read(next(source(path).list())) == pictures(1)[0].png


def test_a_table_at_an_address_reads_beside_itself_only(tmp_path):
    memory, address = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}"
    path = write_manifest(tmp_path, pictures(4))
    (tmp_path / "secret.png").write_bytes(pictures(1)[0].png)
    rows = [f"{tmp_path}/secret.png,ant,x", f"file://{tmp_path}/secret.png,ant,x"]
    path.write_text(path.read_text() + "\n".join(rows) + "\n")
    memory.put(str(tmp_path), address, recursive=True)
    manifest = source(f"{address}/images.csv")
    refs = list(manifest.list())
    assert [manifest.read(ref) for ref in refs[:4]] == [image.png for image in pictures(4)]
    for ref in refs[4:]:
        with pytest.raises(ImageError, match="No such file"):
            manifest.read(ref)


def test_a_sample_keeps_the_order_of_the_table(tmp_path):
    path = table(tmp_path, "path\n" + "".join(f"{name}.png\n" for name in "zyxwvu"))
    ids = [ref.image_id[0] for ref in source(path, limit=4).list()]
    assert len(ids) == 4 and ids == sorted(ids, reverse=True)
