"""Mistakes in paths and names are answered before TensorFlow and Beam are loaded, all at once."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import write_images

from augnet.audits.preflight import mistakes_in
from augnet.config import Config, load_config
from augnet.errors import did_you_mean_path
from pipeline.main import main

HEAVY = ("tensorflow", "keras", "apache_beam", "matplotlib")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model, six images, names of classes and a module; it is the working folder."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", 6)
    Path("saved").mkdir()
    Path("saved", "saved_model.pb").write_bytes(b"")
    Path("empty.h5").touch()
    Path("classes.txt").write_text("ant\nbee\ncow\n")
    Path("layers_of_mine.py").write_text("raise SystemExit('its code was run')")
    np.save("mask.npy", np.zeros(2))
    return tmp_path


RIGHT = {"model.path": "saved", "images.path": "photos", "output": "out"}


def mistakes(**flags):
    found = []
    keys = RIGHT | {key.replace("__", "."): value for key, value in flags.items()}
    load_config(flags=keys, look=lambda parts: found.extend(mistakes_in(parts)) or ())
    return found


def test_nothing_is_wrong_with_what_is_right(here):
    assert mistakes() == []
    assert mistakes(
        model__modules=["layers_of_mine", "json"],
        model__constants={"mask": "mask.npy", "age": 4},
        images__classes="classes.txt",
        preprocess__scale="keras.applications.resnet_v2",
        output="new/folder/out",
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("model.path", "svaed", "'svaed' does not exist; give .*; did you mean saved\\?"),
        ("model.path", "photos", "the folder 'photos' has no saved_model.pb"),
        ("model.path", "classes.txt", "ends in '.txt'"),
        ("model.path", "empty.h5", "'empty.h5' is not an HDF5 file"),
        ("model.builder", "layers_of_mein:build", "'layers_of_mein' in .*; did you mean layers_of_mine\\?"),
        ("model.modules", ["layers_of_mine", "nowhere.else"], "no module 'nowhere.else'"),
        ("model.constants", {"mask": "maks.npy"}, "mask: 'maks.npy' does not exist.*did you mean mask.npy"),
        ("images.path", "photo", "'photo' does not exist; .*; did you mean photos\\?"),
        ("images.path", "photos/an", "'photos/an' does not exist; .*; did you mean photos/ant\\?"),
        ("images.path", "phtos/ant/*.png", "starts in 'phtos/ant', .*; did you mean photos\\?"),
        ("images.path", "photos/*.jpg", "no image under"),
        ("images.path", "nowhere://x", "cannot be opened"),
        ("images.format", "zip", "no ZIP"),
        ("images.format", "tfrecord", "is no TFRecord file"),
        ("images.labels", "species", "'species': images in a folder have no such column"),
        ("images.classes", "class.txt", "'class.txt' cannot be read .*; did you mean classes.txt\\?"),
        ("preprocess.scale", "keras.applications.resnett", "did you mean keras.applications.resnet\\?"),
        ("preprocess", "keras.applications.resnett", "did you mean keras.applications.resnet\\?"),
        ("output", "classes.txt", "'.*classes.txt' is no folder"),
        ("output", "classes.txt/out", "'.*classes.txt' is no folder"),
        ("output", "photos", "holds other files"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_may_have_been_meant(here, key, value, words):
    (line,) = mistakes(**{key: value})
    named = {"images.format": "images.path", "preprocess": "preprocess.scale"}.get(key, key)
    assert line.startswith(f"{named}: ")
    assert re.search(words, line), line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(here):
    Path("closed").mkdir(mode=0o500)
    (line,) = mistakes(output="closed/out")
    assert "may not be written to" in line


def test_an_audit_of_another_configuration_is_refused_early(here, monkeypatch, capsys):
    from augnet.audits.identity import config_identity
    from augnet.storage.files import OutputFolder

    config = Config.model_validate(
        {"model": {"path": "saved"}, "images": {"path": "photos"}, "output": "out"}
    )
    OutputFolder("out").write_sealed("run.json", {"identity": {"config": config_identity(config)}})
    flags = [f"--{key}={value}" for key, value in RIGHT.items()]
    assert main(["audit", *flags, "--store.dtype=float16"]) == 2
    assert "holds another audit (store.dtype: 'float32' -> 'float16')" in capsys.readouterr().err


def test_paths_are_looked_at_although_keys_are_wrong(here, capsys):
    assert main(["audit", "--model=svaed", "--images=photo", "--output=photos", "--store.format=csv"]) == 2
    lines = capsys.readouterr().err.splitlines()
    found = [line.removeprefix("augnet: ").split(":")[0] for line in lines]
    assert sorted(found) == ["images.path", "model.path", "output", "store.format"]


COMMANDS = {
    "command": ["adit"],
    "key": ["audit", "--model=saved", "--images=photos", "--output=out", "--jacobain.outputs=all"],
    "flag": ["audit", "--model=saved", "--images=photos", "--ouput=out"],
    "value": ["plan", "--model=saved", "--images=photos", "--output=out", "--store.format=parket"],
    "paths": ["verify", "--model=svaed", "--images=photo", "--output=out"],
    "file": ["audit", "confg.yaml"],
    "argument": ["check", "out", "--frsh"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_an_answer_takes_less_than_two_seconds_and_no_tensorflow(here, name):
    script = f"""
import sys
from pipeline.main import main
status = main({COMMANDS[name]!r})
assert not set({HEAVY!r}) & set(sys.modules), set({HEAVY!r}) & set(sys.modules)
sys.exit(status)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2, done.stderr
    assert "did you mean" in done.stderr or name in ("file", "argument")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 2, spent  # of the processor: how long it takes where nothing else runs


def test_commands_and_their_arguments(capsys):
    assert main(["satus"]) == 2
    assert "no such command; give demo, audit, " in capsys.readouterr().err
    assert main(["status"]) == 2
    assert "augnet status --help" in capsys.readouterr().err
    assert main(["status", "x", "--log-level=inof"]) == 2
    assert "did you mean info?" in capsys.readouterr().err


def test_the_closest_path(here):
    assert did_you_mean_path("photos") == ""
    assert did_you_mean_path("photos/an/0000.png") == "; did you mean photos/ant?"
    assert did_you_mean_path("/nothing/like/it") == did_you_mean_path("zzzzz") == ""
