"""`augnet status` and `augnet plan`: what they say before, during and after an audit."""

import re
import shutil
import time
from dataclasses import replace

import pytest
from audit_processes import audit_command, digests
from conftest import write_images

from augnet.audits.forecast import forecast
from augnet.audits.status import status
from augnet.config import load_config
from augnet.engine import Choice
from augnet.storage import names
from pipeline.main import main
from pipeline.tables import engine_rows

SMALL_UNITS = "--store.shard_bytes=50000"


def test_status_tells_what_is_done_and_what_is_missing(tmp_path, images, cnn_path, capsys):
    (images / "ant" / "0000.png").write_bytes(b"no image")
    out = tmp_path / "out"
    command = audit_command(cnn_path, images, out, SMALL_UNITS, "--log-level=error")
    assert main(command) == 0
    found = status(str(out), time.time())
    assert (found.finished, found.units_done, found.units) == (True, 5, 5)
    assert (found.images_done, found.images, found.failed, found.missing) == (40, 40, 1, ())
    assert found.images_per_second > 0 and 0 <= found.idle_seconds < 600
    assert found.reasons == (
        "decode: not a PNG, JPEG, WebP, BMP, GIF or TIFF image, or one with a broken header (1 image)",
    )

    for unit in (1, 3):
        (out / names.shard("records", unit, 5)).unlink()
    (out / names.MANIFEST).unlink()
    found = status(str(out), time.time())
    assert (found.finished, found.units_done, found.images_done, found.missing) == (False, 3, 24, (1, 3))
    assert found.remaining_seconds > 0
    capsys.readouterr()
    assert main(["status", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "units      3 of 5" in shown and "missing    units 1, 3" in shown and "not finished" in shown


def test_status_and_check_of_something_else_are_one_line(tmp_path, capsys):
    for command in ("status", "check"):
        assert main([command, str(tmp_path / "nowhere")]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_plan_foresees_an_audit_and_writes_nothing(tmp_path, cnn_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    write_images(images, 50)
    (images / "ant" / "0000.png").write_bytes(b"no image")
    command = audit_command(cnn_path, images, out, SMALL_UNITS, "--log-level=error")
    assert main(["plan", *command[1:]]) == 0
    shown = capsys.readouterr().out
    assert not out.exists()
    assert "images    50" in shown and "units     7 of up to 8 images" in shown
    assert re.search(r"disk      about \d+\.\d kB of Jacobians; 216.0 kB before compression", shown)
    assert "about" in shown and "1 of 50 sampled images would fail" in shown and "refused" not in shown
    assert "engine    derivative rules; up to 3 rows at a time" in shown
    assert re.search(r"accuracy  float32; \d\.\de-\d\d from the model in float32", shown)


@pytest.mark.parametrize("store", [{}, {"dtype": "float16"}, {"dtype": "bfloat16"}, {"format": "npz"}])
def test_plan_knows_the_size_on_disk(tmp_path, cnn_path, store):
    images, out = tmp_path / "images", tmp_path / "out"
    write_images(images, 150)
    flags = {"model.path": str(cnn_path), "images.path": str(images), "output": str(out)}
    flags |= {f"store.{key}": value for key, value in store.items()}
    found = forecast(load_config(flags=flags))
    assert main(["audit", *(f"--{key}={value}" for key, value in flags.items()), "--log-level=error"]) == 0
    written = sum(path.stat().st_size for path in (out / "jacobians").iterdir())
    assert abs(found.disk_bytes / written - 1) < 0.1
    assert found.stored_bytes > written or store.get("dtype") != "bfloat16"


def test_an_audit_that_fits_once_compressed_starts(tmp_path, images, cnn_path, capsys):
    store = ["--store.dtype=bfloat16", "--store.pool=2"]
    command = audit_command(cnn_path, images, tmp_path / "out", *store)
    assert main(["plan", *command[1:]]) == 0
    about, before = re.search(
        r"about (\d+\.\d) kB of Jacobians; (\d+\.\d) kB before", capsys.readouterr().out
    ).groups()
    assert float(about) < float(before)
    limit = int(1000 * (float(about) * 1.1 + float(before)) / 2)
    assert main([*command, f"--store.max_bytes={limit}"]) == 0
    assert main([*command, "--fresh", f"--store.max_bytes={int(1000 * float(about))}"]) == 2
    assert f"would write about {about} kB for 40 images, more than store.max_bytes" in capsys.readouterr().err


def test_an_audit_has_the_room_of_its_own_shards(tmp_path, images, cnn_path, monkeypatch, capsys):
    out = tmp_path / "out"
    command = audit_command(cnn_path, images, out, SMALL_UNITS, "--log-level=error")
    assert main(command) == 0
    (out / names.MANIFEST).unlink()
    full = shutil.disk_usage(out)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert main(command) == 0
    assert main([*command, "--output", str(tmp_path / "other")]) == 2
    assert "more than the free disk (0 bytes)" in capsys.readouterr().err


def test_plan_shows_the_gain_of_a_model_that_is_timed():
    report = {"passes": 8, "gain": 12.3456, "error": 2.5e-3, "error_against": "float64"}
    choice = Choice("rules", rows_per_pass=4, batch_size=2, xla=True, report=report)
    shown = engine_rows(choice, "bfloat16")
    parts = ["derivative rules", "8 backward passes per image", "up to 4 rows at a time"]
    assert shown["engine"] == "; ".join([*parts, "12.3 times as fast as a tape", "XLA"])
    assert shown["accuracy"] == "bfloat16; 2.5e-03 from the model in float64"
    tape = Choice("tape", rows_per_pass=1, batch_size=2)
    assert engine_rows(tape, "float32") == {"engine": "a tape over the model", "accuracy": "float32"}
    unsure = replace(tape, report={"rules": "disagree with the tape"})
    assert (
        engine_rows(unsure, "float32")["engine"] == "a tape over the model; the rules disagree with the tape"
    )


def test_plan_says_what_would_be_refused_and_why(tmp_path, images, cnn_path, capsys):
    out = tmp_path / "out"
    command = audit_command(cnn_path, images, out, "--log-level=error")
    assert main(command) == 0
    before = digests(out)
    flags = {"model.path": str(cnn_path), "images.path": str(images), "output": str(out)}
    found = forecast(load_config(flags=flags | {"jacobian.outputs": "predicted", "store.max_bytes": 1000}))
    assert [refusal.split(":")[0] for refusal in found.refusals] == ["store.jacobians", "output"]
    assert "jacobian.outputs: 'all' -> 'predicted'" in found.refusals[1]
    assert main(["plan", *command[1:], "--jacobian.outputs=predicted"]) == 2
    assert "holds another audit" in capsys.readouterr().out
    assert forecast(load_config(flags=flags)).refusals == ()  # it would be taken up
    assert digests(out) == before
