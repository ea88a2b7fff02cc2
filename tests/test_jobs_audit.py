"""`augnet.audit`: the command's job from Python, with models and images of the process's memory."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from audit_processes import digests
from conftest import CLASSES, SIZE, small_cnn
from PIL import Image

import augnet
from augnet.audits.integrity import check
from augnet.errors import AuditError, ConfigError
from augnet.jobs.progress import ProgressLine
from augnet.models.fingerprint import fingerprint
from pipeline.main import main

SMALL_UNITS = {"shard_bytes": 100_000}


def arrays(images):
    """The images of the folder as (image, height, width, channel) uint8, and their labels."""
    paths = sorted(images.rglob("*.png"))
    return np.stack([np.asarray(Image.open(path)) for path in paths]), [path.parent.name for path in paths]


def results(folder):
    """Checksums of all files but the report, which says where the model was, and those of it."""
    named = {"report/index.html", "manifest.json"}
    return {name: digest for name, digest in digests(folder).items() if name not in named}


def by_command(model, images, output, *flags):
    arguments = ["audit", "--model", model, "--images", images, "--output", output, "--log-level=warning"]
    assert main([str(argument) for argument in (*arguments, *flags)]) == 0


def test_a_model_in_memory_gives_the_bytes_of_the_command_with_the_saved_one(tmp_path, images):
    model = small_cnn()
    found = augnet.audit(model, images, tmp_path / "here", store=SMALL_UNITS, progress=False)
    model.save(tmp_path / "m.keras")
    by_command(tmp_path / "m.keras", images, tmp_path / "there", "--store.shard_bytes=100000")
    report = Path("report", "index.html")
    here, there = ((tmp_path / name / report).read_text() for name in ("here", "there"))
    there = there.replace(str(tmp_path / "m.keras"), "m.keras").replace(
        "m.keras", f"{model.name} (in memory)"
    )
    again = re.compile(r"<pre[^>]*><code>.*?</code></pre>", re.DOTALL)  # as a command, or as Python
    assert again.sub("", here) == again.sub("", there)
    assert results(tmp_path / "here") == results(tmp_path / "there")
    assert len(list((tmp_path / "here" / "records").iterdir())) > 1
    assert found.counts == {"planned": 40, "audited": 40, "failed": 0}
    assert found.run["fingerprint"] == augnet.open_audit(str(tmp_path / "there")).run["fingerprint"]
    assert check(str(tmp_path / "here")) == []


def test_a_path_does_as_well(tmp_path, images, cnn_path):
    found = augnet.audit(str(cnn_path), str(images), str(tmp_path / "here"), progress=False)
    by_command(cnn_path, images, tmp_path / "there")
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
    assert found.run["config"]["model"]["path"] == str(cnn_path)


def test_the_model_stays_as_it_is_and_can_be_trained_on(tmp_path, images):
    model = small_cnn()
    model.compile("sgd", "sparse_categorical_crossentropy")
    pixels, labels = arrays(images)
    x, y = pixels / np.float32(255), np.array([CLASSES.index(label) for label in labels])
    before, predicted = fingerprint(model), model.predict(x, verbose=0)
    augnet.audit(model, (x, y), tmp_path / "out", progress=False)
    assert fingerprint(model) == before and all(layer.trainable for layer in model.layers)
    np.testing.assert_array_equal(model.predict(x, verbose=0), predicted)
    model.fit(x, y, verbose=0)
    assert fingerprint(model) != before


def test_images_in_memory_are_those_of_files(tmp_path, images, cnn_path):
    pixels, labels = arrays(images)
    by_files = augnet.audit(str(cnn_path), images, tmp_path / "files", progress=False)
    by_array = augnet.audit(small_cnn(), (pixels, labels), tmp_path / "array", progress=False)
    assert by_array.statistics["image_id"].to_pylist() == [str(index) for index in range(40)]
    for column in ("label", "predicted", "margin_l2", "frobenius"):
        assert by_array.statistics[column].equals(by_files.statistics[column])
    first = by_files.statistics["image_id"][0].as_py()
    np.testing.assert_array_equal(by_array.jacobian("0"), by_files.jacobian(first))


def test_float_arrays_are_what_the_model_is_fed_and_labels_may_be_one_hot(tmp_path, images):
    pixels, labels = arrays(images)
    numbers = np.array([CLASSES.index(label) for label in labels])
    levels = augnet.audit(small_cnn(), (pixels, numbers), tmp_path / "levels", progress=False)
    fed = (pixels / np.float32(255), np.eye(3)[numbers])
    floats = augnet.audit(small_cnn(), fed, tmp_path / "floats", progress=False)
    assert floats.statistics["label"].equals(levels.statistics["label"])
    assert floats.summary["accuracy"] == levels.summary["accuracy"]
    np.testing.assert_allclose(floats.statistics["frobenius"], levels.statistics["frobenius"], rtol=1e-5)
    told = [found.run["preprocess"]["warnings"] for found in (levels, floats)]
    assert len(told[0]) == 1 and told[1] == []  # nothing is scaled, so nothing was guessed
    np.testing.assert_array_equal(floats.gallery["thumbnail"], levels.gallery["thumbnail"])


def test_sections_and_single_keys(tmp_path, images):
    model = {"path": small_cnn(), "space": "model"}
    found = augnet.audit(
        model,
        {"path": arrays(images)[0], "limit": 5},
        tmp_path / "out",
        jacobian={"outputs": "top:2"},
        **{"store.jacobians": "predicted", "report.images": 1},
        progress=False,
    )
    config = found.run["config"]
    assert (config["model"]["space"], config["jacobian"]["outputs"]) == ("model", "top:2")
    assert (config["store"]["jacobians"], config["report"]["images"]) == ("predicted", 1)
    assert found.counts["planned"] == 5


class Interrupt:
    """Progress that interrupts when so many images are done."""

    def __init__(self, at):
        self.at = at

    def __call__(self, step, done, total):
        if done >= self.at:
            raise KeyboardInterrupt


def test_an_interrupted_audit_goes_on_in_python_and_from_the_command(tmp_path, images):
    model = small_cnn()
    whole = augnet.audit(model, images, tmp_path / "whole", store=SMALL_UNITS, progress=False)
    assert whole.counts["audited"] == 40
    for name in ("python", "command"):
        out = tmp_path / name
        with pytest.raises(KeyboardInterrupt, match="the same call goes on"):
            augnet.audit(model, images, out, store=SMALL_UNITS, progress=Interrupt(20))
        done = {path: path.stat().st_mtime_ns for path in (out / "records").iterdir()}
        assert 0 < len(done) < 3 and not (out / "manifest.json").exists()
        assert not list(out.rglob(".writing-*"))
        if name == "python":
            augnet.audit(model, images, out, store=SMALL_UNITS, progress=False)
        else:
            model.save(tmp_path / "m.keras")
            by_command(tmp_path / "m.keras", images, out, "--store.shard_bytes=100000")
        assert all(path.stat().st_mtime_ns == time for path, time in done.items())
        assert results(out) == results(tmp_path / "whole")
        named = json.loads((out / "run.json").read_text())["config"]["model"]["path"]
        assert named == (f"{model.name} (in memory)" if name == "python" else str(tmp_path / "m.keras"))
        assert check(str(out)) == []


def test_another_model_and_other_images_are_another_audit(tmp_path, images):
    model, pixels = small_cnn(), arrays(images)[0]
    augnet.audit(model, pixels, tmp_path / "out", progress=False)
    with pytest.raises(ConfigError, match=r"holds another audit \(images changed\)"):
        augnet.audit(model, pixels[::-1], tmp_path / "out", progress=False)
    model.layers[-1].bias.assign([0.5, 0, 0])
    with pytest.raises(ConfigError, match=r"holds another audit \(model changed\)"):
        augnet.audit(model, pixels, tmp_path / "out", progress=False)
    augnet.audit(model, pixels, tmp_path / "out", fresh=True, progress=False)


def test_failures_are_told_and_too_many_are_an_error(tmp_path, images):
    (images / "ant" / "text.png").write_text("no picture")
    model = small_cnn()
    found = augnet.audit(model, images, tmp_path / "out", progress=False)
    assert found.failures["image_id"].to_pylist() == ["ant/text.png"]
    with pytest.raises(AuditError, match=r"1 of 41 images failed, more than failures.max_fraction \(0.01\)"):
        augnet.audit(model, images, tmp_path / "out", failures={"max_fraction": 0.01}, progress=False)
    assert augnet.open_audit(str(tmp_path / "out")).counts["failed"] == 1


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"model": 5}, "model: a int does not fit; give a keras.Model"),
        ({"images": np.zeros((3, 4))}, "'images' is of shape \\(3, 4\\)"),
        ({"images": np.zeros((3, 12, 10, 3), "int64")}, "holds int64"),
        ({"images": (np.zeros((3, 12, 10, 3), "uint8"), [1, 2])}, "3 images, but labels of shape \\(2,\\)"),
        ({"images": np.zeros((0, 12, 10, 3), "uint8")}, "there is no image"),
        ({"images": np.zeros((3, 12, 10, 5), "uint8")}, "failed|channels"),
        ({"jacobain": {"outputs": "all"}}, "jacobain: no such key; did you mean jacobian\\?"),
        ({"jacobian": {"outputs": "bset"}, "store": {"dtype": 5}}, "outputs: 'bset' does.*\nstore.dtype: 5"),
        ({"beam": {"runner": "FlinkRunner"}}, "beam: there is no Beam here"),
        ({"images": "nowhere"}, "images.path: 'nowhere' does not exist"),
        ({"model": "nowhere.keras"}, "model.path: 'nowhere.keras' does not exist"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_any_work(tmp_path, arguments, words):
    given = {"model": small_cnn(), "images": np.zeros((2, *SIZE, 3), "uint8"), "output": tmp_path / "out"}
    with pytest.raises((ConfigError, AuditError), match=re.compile(words, re.DOTALL)):
        augnet.audit(**given | arguments, progress=False)


def test_progress_is_told_and_shown(tmp_path, images, capsys):
    told, model = [], small_cnn()
    augnet.audit(model, images, tmp_path / "out", progress=lambda *what: told.append(what))
    counts = [done for _, done, _ in told]
    assert told[-1] == ("summing up", 40, 40) and counts == sorted(counts)
    assert capsys.readouterr().err == ""
    augnet.audit(model, images, tmp_path / "out")
    shown = capsys.readouterr().err
    assert re.search(r"augnet: 40 images audited, 0 failed; report: .*/out/report/index.html\n$", shown)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_is_rewritten_in_place_on_a_terminal(monkeypatch):
    monkeypatch.setattr("augnet.jobs.progress.IN_PLACE_SECONDS", 0)
    terminal = Terminal()
    line = ProgressLine(terminal)
    line("auditing", 0, 100)
    line("auditing", 100, 100)
    line.end("done")
    first, *rest = terminal.getvalue().removeprefix("\r").split("\r")
    assert first == "augnet: auditing: 0 of 100 images"
    assert rest[0].startswith("augnet: auditing: 100 of 100 images, ")
    assert rest[-1].rstrip(" \n") == "augnet: done" and len(rest[-1]) > len(rest[0])  # what was there is gone


def test_a_log_gets_a_line_now_and_then():
    log = io.StringIO()
    line = ProgressLine(log)
    for done in range(100):
        line("auditing", done, 100)
    line.end("done")
    assert log.getvalue() == "augnet: done\n"


def test_mistakes_are_told_without_tensorflow(tmp_path):
    script = """
import sys, augnet
try:
    augnet.audit("nowhere.keras", "nowhere", "out", store={"format": "csv"})
except Exception as error:
    print(error)
assert "tensorflow" not in sys.modules and "apache_beam" not in sys.modules
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = [line.split(":")[0] for line in done.stdout.splitlines()]
    assert found == ["store.format", "model.path", "images.path"]


def test_a_model_that_cannot_be_saved_is_audited(tmp_path, images):
    """A layer of one's own that nobody registered, as in a notebook's cell."""

    class Halved(keras.layers.Layer):
        def call(self, inputs):
            return inputs / 2

    image = keras.Input((*SIZE, 3))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(Halved()(image)))
    found = augnet.audit(keras.Model(image, outputs), images, tmp_path / "out", progress=False)
    assert found.counts["audited"] == 40
