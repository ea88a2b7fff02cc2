"""Every command of docs/how-to/datasets.md, run on data as it describes them."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import small_cnn
from dataset_forms import (
    CLASSES,
    pictures,
    write_manifest,
    write_npz,
    write_tfrecord,
    write_webdataset,
    write_zip,
)

import augnet
from augnet.sources.formats import FORMATS
from pipeline.main import main

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "datasets.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    images = pictures(6)
    small_cnn().save(folder / "model.keras")
    write_manifest(folder / "table", images)
    write_tfrecord(folder / "records", images, shard=3)
    write_webdataset(folder / "shards", images, shard=3)
    write_npz(folder / "arrays", images)
    write_zip(folder, images)
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    fixture = Path(__file__).parent / "data" / "hf"
    (folder / "insects").symlink_to(Path(__file__).parent / "data" / "tfds" / "insects")
    (folder / "parquet").symlink_to(fixture / "exported")
    (folder / "saved").symlink_to(fixture / "saved")
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.rpartition(" ")[2])
def test_a_command_of_the_page_works(data, monkeypatch, command):
    monkeypatch.chdir(data)
    program, *arguments = shlex.split(command)
    assert program == "augnet" and main([*arguments, "--log-level=warning"]) == 0
    audit = augnet.open_audit(arguments[-1])
    assert audit.counts == {"planned": 6, "audited": 6, "failed": 0}
    assert all(label is not None for label in audit.statistics["label"].to_pylist())


def test_the_page_has_every_format():
    named = set(re.findall(r"^\|.*?\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert named == {"folder", *FORMATS}


def test_names_of_hugging_face_are_those_of_the_classes(data, monkeypatch):
    monkeypatch.chdir(data)
    arguments = ["--model", "model.keras", "--images", "saved", "--output", "named"]
    assert main(["audit", *arguments, "--log-level=warning"]) == 0
    audit = augnet.open_audit("named")
    assert audit.run["label_outputs"] == {name: number for number, name in enumerate(CLASSES)}
    assert audit.statistics["label"].to_pylist() == [image.label for image in pictures(6)]
    assert audit.summary["judged"] == 6
