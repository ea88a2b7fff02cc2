"""Whole audits through the command line, against a plain loop over the images."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from conftest import SIZE, linear_model, small_cnn, write_images
from PIL import Image

import augnet
from augnet.audits.run import Run
from augnet.engine.backends.tensorflow import has_tensor_float_32
from augnet.storage import names
from pipeline.main import main


def audit(model, images, output, *flags):
    """Run `augnet audit` in this process and read the result back."""
    arguments = [
        "audit",
        "--model",
        model,
        "--images",
        images,
        "--output",
        output,
        "--log-level=warning",
        *flags,
    ]
    assert main([str(argument) for argument in arguments]) == 0
    return augnet.open_audit(output)


def oracle(model, image):
    """Rows (output, height, width, channel) by one tape.gradient per output, in float64."""
    x = tf.constant(image[None], tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        values = tf.unstack(model(x, training=False)[0])
    rows = [tape.gradient(value, x)[0].numpy() for value in values]
    return np.stack(rows)


def in_float64(model, logits=True):
    """The same weights in float64 arithmetic, with the softmax taken off by hand."""

    def double(layer):
        config = layer.get_config() | {"dtype": "float64"}
        if logits and config.get("activation") == "softmax":
            config["activation"] = "linear"
        return layer.__class__.from_config(config)

    twin = keras.models.clone_model(model, clone_function=double)
    twin.set_weights(model.get_weights())
    return twin


def pixels(path):
    return np.asarray(Image.open(path), np.float64) / 255


def digests(folder):
    """sha256 of every file but run.json, by name."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != names.RUN)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """cnn.keras, 40 images, and `out`, their audit by default settings; nothing in it may be changed."""
    folder = tmp_path_factory.mktemp("whole")
    small_cnn().save(folder / "cnn.keras")
    write_images(folder / "images", 40)
    audit(folder / "cnn.keras", folder / "images", folder / "out")
    return folder


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the audit, and the model and images that it is of."""
    return whole / "cnn.keras", whole / "images", shutil.copytree(whole / "out", tmp_path / "out")


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_stored_jacobians_equal_the_plain_loop(tmp_path, images, cnn_path, format):
    found = audit(cnn_path, images, tmp_path / "out", f"--store.format={format}", "--jacobian.batch_size=7")
    model = in_float64(small_cnn())
    assert found.statistics.num_rows == 40
    for image_id in found.statistics["image_id"].to_pylist():
        expected = oracle(model, pixels(images / image_id))
        error = np.linalg.norm(found.jacobian(image_id) - expected) / np.linalg.norm(expected)
        assert error < 1e-4, image_id


def test_a_deep_model_equals_the_plain_loop_away_from_kinks(tmp_path):
    keras.utils.set_random_seed(4)
    model = keras.applications.MobileNetV2((64, 64, 3), alpha=0.35, weights=None, classes=3)
    model.save(tmp_path / "m.keras")
    write_images(tmp_path / "images", 3, size=(64, 64))
    found = audit(tmp_path / "m.keras", tmp_path / "images", tmp_path / "out", "--preprocess.scale=unit")
    double, smooth = in_float64(model), 0
    for image_id in found.statistics["image_id"].to_pylist():
        image = pixels(tmp_path / "images" / image_id)
        expected = oracle(double, image)
        nearby = oracle(double, image * (1 + 1e-6))  # differs by much only where a ReLU switches in between
        size = np.linalg.norm(expected)
        if np.linalg.norm(nearby - expected) < 1e-5 * size:
            smooth += 1
            assert np.linalg.norm(found.jacobian(image_id) - expected) < 1e-4 * size, image_id
    assert smooth


def test_a_linear_model_gives_its_weights(tmp_path, images):
    model = linear_model()
    model.save(tmp_path / "m.keras")
    found = audit(tmp_path / "m.keras", images, tmp_path / "out")
    weights = model.layers[-1].kernel.numpy().T.reshape(3, *SIZE, 3)
    for image_id in found.statistics["image_id"].to_pylist():
        np.testing.assert_allclose(found.jacobian(image_id), weights, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.maps["mean"], weights, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.maps["std"], 0, atol=1e-7)


def test_the_books_balance(tmp_path, images, cnn_path):
    (images / "bee" / "empty.png").write_bytes(b"")
    (images / "bee" / "text.png").write_text("not a picture")
    whole = images / "ant" / "whole.jpg"
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(whole)
    (images / "ant" / "torn.jpg").write_bytes(whole.read_bytes()[:-200])
    Image.new("RGB", (1, 1)).save(images / "cow" / "dot.png")
    Image.new("L", (30, 20)).save(images / "grey.png")

    found = audit(cnn_path, images, tmp_path / "out", "--failures.max_fraction=0.1")
    counts = found.manifest["counts"]
    assert counts["planned"] == 46 == counts["audited"] + counts["failed"]
    failures = {row["image_id"]: row for row in found.failures.to_pylist()}
    assert sorted(failures) == ["ant/torn.jpg", "bee/empty.png", "bee/text.png"]
    assert all(row["stage"] and row["error"] for row in failures.values())
    ids = found.statistics["image_id"].to_pylist() + list(failures)
    assert len(set(ids)) == 46
    labels = dict(
        zip(found.statistics["image_id"].to_pylist(), found.statistics["label"].to_pylist(), strict=True)
    )
    assert labels["cow/dot.png"] == "cow" and labels["grey.png"] is None
    assert found.summary["resized"] == 2 and found.summary["recolored"] == 1


def test_every_mode_and_number_of_workers_writes_the_same_bytes(tmp_path, cnn_path):
    write_images(tmp_path / "images", 300)
    modes = {
        "default": [],
        "in_memory": ["--direct_running_mode=in_memory", "--direct_num_workers=1"],
        "processes": ["--direct_running_mode=multi_processing", "--direct_num_workers=2"],
    }
    found = {}
    for name, flags in modes.items():
        audit(cnn_path, tmp_path / "images", tmp_path / name, "--store.shard_bytes=500000", *flags)
        found[name] = digests(tmp_path / name)
    assert len(list((tmp_path / "default" / "records").iterdir())) == 5
    assert found["default"] == found["in_memory"] == found["processes"]


def test_an_image_does_not_depend_on_its_batch(tmp_path, images, cnn_path):
    alone = audit(cnn_path, images, tmp_path / "one", "--jacobian.batch_size=1")
    many = audit(cnn_path, images, tmp_path / "many", "--jacobian.batch_size=16")
    for image_id in alone.statistics["image_id"].to_pylist():
        expected = alone.jacobian(image_id)
        assert np.linalg.norm(many.jacobian(image_id) - expected) <= 1e-6 * np.linalg.norm(expected)


def test_a_second_run_has_nothing_to_do_and_another_config_is_refused(finished, capsys):
    model, images, out = finished
    before = digests(out)
    shard = next((out / "jacobians").iterdir())
    touched = shard.stat().st_mtime_ns
    audit(model, images, out)
    assert digests(out) == before and shard.stat().st_mtime_ns == touched

    command = ["audit", "--model", str(model), "--images", str(images), "--output", str(out)]
    assert main([*command, "--jacobian.outputs=predicted"]) == 2
    assert "jacobian.outputs: 'all' -> 'predicted'" in capsys.readouterr().err
    assert main([*command, "--jacobian.outputs=predicted", "--fresh"]) == 0
    assert digests(out) != before


def test_a_lost_shard_is_made_again(finished):
    model, images, out = finished
    before = digests(out)
    next((out / "jacobians").iterdir()).unlink()
    audit(model, images, out)
    assert digests(out) == before


def test_plain_readers_read_everything(whole):
    out = whole / "out"
    assert pq.read_table(out / "statistics").num_rows == 40
    assert pq.read_table(out / "jacobians").num_rows == 120
    assert set(np.load(out / "maps.npz", allow_pickle=False)) >= {"mean", "mean_abs", "rms", "std", "max_abs"}
    for name in (names.RUN, names.SUMMARY, names.MANIFEST):
        json.loads((out / name).read_text(), parse_constant=pytest.fail)  # called for NaN and Infinity
    for name in (names.OUTPUTS, names.SLICES, names.OUTPUT_PAIRS, names.PLAN):
        assert pq.read_table(out / name).num_rows
    manifest = json.loads((out / names.MANIFEST).read_text())
    for entry in manifest["files"]:
        assert hashlib.sha256((out / entry["name"]).read_bytes()).hexdigest() == entry["sha256"]


@pytest.mark.parametrize(
    "rows, stored", [("predicted", "all"), ("top:2", "predicted"), ("label", "all"), ("[0, 2]", "[2]")]
)
def test_selected_rows_are_rows_of_the_whole(whole, tmp_path, rows, stored):
    flags = f"--jacobian.outputs={rows}", f"--store.jacobians={stored}"
    part = audit(whole / "cnn.keras", whole / "images", tmp_path / "part", *flags)
    every = augnet.open_audit(whole / "out")
    for image_id in part.statistics["image_id"].to_pylist():
        chosen = part.jacobian_outputs(image_id)
        np.testing.assert_allclose(
            part.jacobian(image_id), every.jacobian(image_id)[chosen], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    "flags, status, words",
    [
        (["--model", "nowhere.keras"], 2, ["model.path", "nowhere.keras"]),
        (["--images", "nowhere"], 2, ["images.path", "nowhere"]),
        (["--jacobian.ouputs=all"], 2, ["jacobian.ouputs", "no such key"]),
        (["--no_such_beam_flag=1"], 2, ["no_such_beam_flag"]),
        (["--store.max_bytes=1000"], 2, ["store.max_bytes", "store.jacobians: none"]),
        (["--jacobian.outputs=[7]"], 2, ["jacobian.outputs", "7"]),
        (["--preprocess.size=[5, 5]"], 2, ["preprocess.size"]),
        pytest.param(
            ["--jacobian.precision=tf32"],
            2,
            ["jacobian.precision", "NVIDIA", "use float32"],
            marks=pytest.mark.skipif(has_tensor_float_32(), reason="this device has TensorFloat-32"),
        ),
    ],
)
def test_errors_come_before_work(tmp_path, images, cnn_path, capsys, flags, status, words):
    base = ["audit", "--model", str(cnn_path), "--images", str(images), "--output", str(tmp_path / "out")]
    assert main([*base, *flags]) == status
    message = capsys.readouterr().err
    for word in words:
        assert word in message
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_refused(tmp_path, images, cnn_path, capsys):
    before = digests(images)
    base = ["audit", "--model", str(cnn_path), "--images", str(images), "--output", str(images)]
    assert main(base) == 2
    assert main([*base, "--fresh"]) == 2
    assert "other files" in capsys.readouterr().err
    assert digests(images) == before


def test_help_works_without_tensorflow():
    code = "import sys; from pipeline.main import main\n"
    code += "try: main(['audit', '--help'])\nexcept SystemExit: pass\n"
    code += "assert 'tensorflow' not in sys.modules and 'apache_beam' not in sys.modules"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert "--jacobian.outputs" in shown.stdout and "exit status" in shown.stdout


def test_spatial_outputs_are_audited_as_one_number_per_channel(tmp_path, images, capsys):
    keras.utils.set_random_seed(5)
    image = keras.Input((*SIZE, 3))
    hidden = keras.layers.Conv2D(4, 3, padding="same", activation="softplus")(image)
    model = keras.Model(image, keras.layers.Conv2D(2, 1)(hidden))
    model.save(tmp_path / "m.keras")
    base = ["audit", "--model", tmp_path / "m.keras", "--images", images, "--output", tmp_path / "out"]
    assert main([str(argument) for argument in base]) == 2
    assert "jacobian.reduce" in capsys.readouterr().err
    found = audit(tmp_path / "m.keras", images, tmp_path / "out", "--jacobian.reduce=mean")
    pooled = keras.Model(image, keras.layers.GlobalAveragePooling2D()(model.output))
    image_id = found.statistics["image_id"][0].as_py()
    expected = oracle(in_float64(pooled), pixels(images / image_id))
    np.testing.assert_allclose(found.jacobian(image_id), expected, rtol=1e-4, atol=1e-8)


def test_an_audit_needs_no_cache_of_its_own(tmp_path, images, cnn_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert audit(cnn_path, images, tmp_path / "out").counts["audited"] == 40


@pytest.mark.parametrize("precision, least, most", [("float32", 0, 1e-5), ("bfloat16", 1e-4, 0.3)])
def test_run_json_records_what_the_engine_chose(tmp_path, images, cnn_path, precision, least, most):
    found = audit(cnn_path, images, tmp_path / "out", f"--jacobian.precision={precision}")
    run = Run.read(found.folder)
    choice = json.loads((tmp_path / "out" / "engine-cpu.json").read_text())
    recorded = run.engines["cpu"]
    assert recorded["program"] == "rules" and recorded["report"] == choice["report"]
    assert {key: choice[key] for key in recorded} == recorded and "batch_size" in recorded
    assert least <= recorded["report"]["error"] < most
    before = digests(tmp_path / "out")
    audit(cnn_path, images, tmp_path / "out", f"--jacobian.precision={precision}")
    assert digests(tmp_path / "out") == before and Run.read(found.folder).engines == run.engines


def test_rows_in_bfloat16_are_stored_as_float32(tmp_path, images):
    model = linear_model()
    model.save(tmp_path / "m.keras")
    found = audit(tmp_path / "m.keras", images, tmp_path / "out", "--jacobian.precision=bfloat16")
    weights = model.layers[-1].kernel.numpy().T.reshape(3, *SIZE, 3)
    image_id = found.statistics["image_id"][0].as_py()
    assert found.jacobian(image_id).dtype == np.float32
    np.testing.assert_allclose(found.jacobian(image_id), weights, rtol=2**-8)
    norms = np.linalg.norm(weights.reshape(3, -1), axis=1)
    np.testing.assert_allclose(found.statistics["row_l2"][0].as_py(), norms, rtol=2**-8)
