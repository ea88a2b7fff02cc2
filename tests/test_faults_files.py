"""Disks that fill up, files that change or vanish, models and devices that misbehave: in whole audits."""

import json
import os
import random
import shutil
import subprocess

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from audit_processes import audit_command, digests
from conftest import SIZE, linear_model, write_images
from PIL import Image

import augnet
import pipeline.audit
from augnet.audits.integrity import check
from augnet.audits.unit import Auditor
from augnet.engine.backends import backend
from augnet.errors import AuditError
from augnet.storage import names
from augnet.storage.files import OutputFolder
from pipeline.main import main

SMALL_UNITS = "--store.shard_bytes=50000"


def audit(model, images, out, *flags, status=0):
    assert main(audit_command(model, images, out, "--log-level=error", *flags)) == status
    return augnet.open_audit(out) if not status else None


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_named_and_the_audit_goes_on_when_there_is_space(
    tmp_path, cnn_path, small_disk, capsys
):
    write_images(tmp_path / "images", 100)
    flags = (SMALL_UNITS, "--log-level=error", "--store.jacobians=predicted")
    command = audit_command(cnn_path, tmp_path / "images", small_disk / "out", *flags)
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "No space left on device" in said[0] and "the same command goes on" in said[0]
    done = len(list((small_disk / "out" / "records").iterdir()))
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    assert done and main(command) == 0
    alone = audit_command(cnn_path, tmp_path / "images", tmp_path / "alone", *flags)
    assert main(alone) == 0
    assert digests(small_disk / "out") == digests(tmp_path / "alone")


@pytest.mark.parametrize("damage", ["altered", "truncated", "emptied", "gone"])
def test_damaged_files_are_made_again(damaged_audit, damage):
    folder, command, expected = damaged_audit
    for unit, kind in enumerate(("jacobians", "statistics", "failures", "aggregates", "records")):
        spoil(sorted((folder / kind).iterdir())[unit], damage)
    spoil(folder / names.PLAN, damage)
    assert main(command) == 0
    assert digests(folder) == expected


def spoil(path, damage):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data[: {"altered": len(data), "truncated": len(data) // 2}.get(damage, 0)])
    if damage == "gone":
        path.unlink()


@pytest.fixture(scope="module")
def damaged_audit(tmp_path_factory):
    """A finished audit of 42 images in six units, the command that made it, and its digests."""
    root = tmp_path_factory.mktemp("damaged")
    write_images(root / "images", 42)
    linear_model().save(root / "model.keras")
    command = audit_command(
        root / "model.keras", root / "images", root / "out", SMALL_UNITS, "--log-level=error"
    )
    assert main(command) == 0
    return root / "out", command, digests(root / "out")


def test_a_damaged_description_is_refused_in_one_line(damaged_audit, capsys):
    folder, command, _ = damaged_audit
    path = folder / names.RUN
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()
    path.write_bytes(kept)
    assert len(said) == 1 and names.RUN in said[0] and "--fresh" in said[0]


def test_an_image_that_vanishes_after_the_plan_is_a_failure_and_a_changed_one_counts_as_read(
    tmp_path, images, cnn_path, monkeypatch
):
    gone, changed = images / "ant" / "0000.png", images / "bee" / "0001.png"
    opened = Auditor.open

    def meddle(output):
        gone.unlink(missing_ok=True)
        shutil.copy(images / "cow" / "0002.png", changed)
        return opened(output)

    monkeypatch.setattr(Auditor, "open", meddle)
    found = audit(cnn_path, images, tmp_path / "out")
    (failure,) = found.failures.to_pylist()
    assert (failure["image_id"], failure["stage"]) == ("ant/0000.png", "read")
    assert "No such file" in failure["error"]
    assert found.counts == {"planned": 40, "audited": 39, "failed": 1}
    np.testing.assert_array_equal(found.jacobian("bee/0001.png"), found.jacobian("cow/0002.png"))


@pytest.fixture
def retrained(cnn_path, monkeypatch):
    """Another model takes the place of the planned one as soon as the audit is planned."""
    planned = pipeline.audit.plan

    def plan_and_retrain(*arguments):
        made = planned(*arguments)
        linear_model().save(cnn_path)
        return made

    monkeypatch.setattr(pipeline.audit, "plan", plan_and_retrain)


def test_a_model_file_that_changes_before_a_worker_loads_it_ends_the_audit_with_a_message(
    tmp_path, images, cnn_path, retrained, capsys
):
    processes = ("--direct_running_mode=multi_processing", "--direct_num_workers=1")
    audit(cnn_path, images, tmp_path / "out", *processes, status=1)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "changed after the audit began" in said[0]


def test_a_model_file_that_changes_does_not_matter_to_who_has_planned_with_it(
    tmp_path, images, cnn_path, retrained
):
    found = audit(cnn_path, images, tmp_path / "out")
    assert found.run["model"]["activation"] == "softmax"
    assert found.statistics["probability"].null_count == 0  # the linear model has none


def test_infinite_and_undefined_jacobians_are_flagged_and_counted(tmp_path, images):
    image = keras.Input((*SIZE, 3))
    brightness = keras.layers.GlobalAveragePooling2D()(image)
    keras.Model(image, keras.ops.log(brightness)).save(tmp_path / "log.keras")
    for name in ("black", "dark"):
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(images / "ant" / f"{name}.png")
    found = audit(tmp_path / "log.keras", images, tmp_path / "out")
    flags = dict(zip(*(found.statistics[key].to_pylist() for key in ("image_id", "flags")), strict=True))
    assert flags["ant/black.png"] == flags["ant/dark.png"] != []
    assert sum(bool(flag) for flag in flags.values()) == 2
    assert found.counts == {"planned": 42, "audited": 42, "failed": 0}
    for name in (names.SUMMARY, names.MANIFEST, names.RUN):
        json.loads((tmp_path / "out" / name).read_text(), parse_constant=pytest.fail)
    assert check(str(tmp_path / "out")) == []


def test_a_device_out_of_memory_goes_on_with_smaller_batches(tmp_path, images, cnn_path, monkeypatch):
    whole = audit(cnn_path, images, tmp_path / "whole", "--jacobian.batch_size=16")
    run = backend.run
    for calls in ({1}, {2, 3}):
        made = []

        def run_out_of_memory(*arguments, calls=calls, made=made, **keywords):
            made.append(arguments)
            if len(made) in calls:
                raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
            return run(*arguments, **keywords)

        monkeypatch.setattr(backend, "run", run_out_of_memory)
        found = audit(cnn_path, images, tmp_path / f"out of {calls}", "--jacobian.batch_size=16")
        assert found.counts["audited"] == 40 and len(made) > 3
        for image_id in found.statistics["image_id"].to_pylist():
            rows = found.jacobian(image_id)
            np.testing.assert_allclose(rows, whole.jacobian(image_id), rtol=1e-4, atol=1e-6)


def test_a_device_without_memory_for_one_image_ends_with_a_message(
    tmp_path, images, cnn_path, monkeypatch, capsys
):
    def run_out_of_memory(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(backend, "run", run_out_of_memory)
    audit(cnn_path, images, tmp_path / "out", status=1)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "one image does not fit in memory" in said[0]


def test_an_output_below_a_file_is_refused(tmp_path, images, cnn_path, capsys):
    (tmp_path / "file").write_text("no folder")
    audit(cnn_path, images, tmp_path / "file" / "out", status=2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and f"output: {str(tmp_path / 'file')!r} is no folder" in said[0]


def test_too_many_failures_end_with_status_1_after_the_results(tmp_path, images, cnn_path, capsys):
    for path in sorted(images.rglob("*.png"))[:3]:
        path.write_bytes(b"not an image")
    audit(cnn_path, images, tmp_path / "out", status=1)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "3 of 40 images failed" in said[0] and "broken header (3 images)" in said[0]
    assert check(str(tmp_path / "out")) == []
    # How many may fail decides nothing of the result: the same audit is taken up.
    found = audit(cnn_path, images, tmp_path / "out", "--failures.max_fraction=0.1")
    assert found.counts == {"planned": 40, "audited": 37, "failed": 3}


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_an_audit_of_nothing_but_failures_is_a_valid_result(tmp_path, images, cnn_path, capsys, format):
    for path in images.rglob("*.png"):
        path.write_bytes(b"")
    audit(cnn_path, images, tmp_path / "out", f"--store.format={format}", status=1)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "read: the file is empty (40 images)" in said[0]
    found = augnet.open_audit(tmp_path / "out")
    assert found.statistics.num_rows == 0 and found.failures.num_rows == 40
    assert check(str(tmp_path / "out")) == []
    assert main(["report", str(tmp_path / "out")]) == 0


def test_other_files_and_parts_without_a_run_are_not_touched(tmp_path, images, cnn_path, capsys):
    out = tmp_path / "out"
    mine = ["statistics/mine.csv", "report/notes.txt", "my.txt"]
    folder = OutputFolder(str(out))
    for name in mine:
        folder.write_bytes(name, b"precious")
    audit(cnn_path, images, out, "--fresh", status=2)
    assert "other files" in capsys.readouterr().err
    assert all((out / name).read_bytes() == b"precious" for name in mine)
    shutil.rmtree(out)
    audit(cnn_path, images, out)
    (out / names.RUN).unlink()
    audit(cnn_path, images, out, status=2)
    assert "without its run.json" in capsys.readouterr().err
    audit(cnn_path, images, out, "--fresh")


def test_check_finds_every_altered_byte(damaged_audit):
    folder, _, _ = damaged_audit
    assert check(str(folder)) == []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    chance = random.Random(0)
    # Every file at least once, then by size.
    chosen = files + chance.choices(
        files, [path.stat().st_size for path in files], k=max(0, 200 - len(files))
    )
    for path in chosen:
        kept = path.read_bytes()
        place = chance.randrange(len(kept))
        changed = bytearray(kept)
        changed[place] ^= chance.randrange(1, 256)
        path.write_bytes(changed)
        problems = check(str(folder))
        path.write_bytes(kept)
        assert problems and any(path.name in problem for problem in problems), (path, place)
    assert len(chosen) >= 200 and check(str(folder)) == []
    assert {"manifest.json", "run.json", "plan.parquet", "index.html"} <= {path.name for path in chosen}


def test_check_finds_missing_and_foreign_files(damaged_audit, capsys):
    folder, _, _ = damaged_audit
    shard = next((folder / "jacobians").iterdir())
    kept = shard.read_bytes()
    shard.unlink()
    (folder / "extra.txt").write_text("hello")
    assert main(["check", str(folder)]) == 1
    shown = capsys.readouterr()
    assert f"{shard.parent.name}/{shard.name}: is missing" in shown.out
    assert "extra.txt: is no file of this audit" in shown.out and "2 problems" in shown.err
    shard.write_bytes(kept)
    (folder / "extra.txt").unlink()
    assert main(["check", str(folder)]) == 0


def test_check_finds_what_fits_its_checksums_and_not_the_plan(tmp_path, damaged_audit):
    """A part that was written again with one image twice, and the manifest made to fit."""
    copy = shutil.copytree(damaged_audit[0], tmp_path / "copy")
    folder = OutputFolder(str(copy))
    name = names.shard("statistics", 0, 6)
    table = pq.read_table(copy / name)
    pq.write_table(table.take([0, 0, *range(2, len(table))]), copy / name)
    manifest = folder.read_sealed(names.MANIFEST)
    for entry in manifest["files"]:
        if entry["name"] == name:
            entry.update(vars(folder.entry(name)))
    folder.write_sealed(names.MANIFEST, manifest)
    assert check(str(copy)) == ["unit 0: its images are not those of the plan, each once"]


@pytest.mark.parametrize("name", [names.SUMMARY, names.MAPS, names.RUN, names.GALLERY])
def test_a_report_of_a_damaged_audit_is_one_line(tmp_path, damaged_audit, capsys, name):
    copy = shutil.copytree(damaged_audit[0], tmp_path / "audit")
    spoil(copy / name, "truncated")
    assert main(["report", str(copy)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and name in said[0]


def test_names_in_tables_and_records_do_not_lead_out_of_the_folder(tmp_path, damaged_audit):
    secret = tmp_path / "secret.npz"
    np.savez(secret, output=np.zeros((9, 1), np.int32), jacobian=np.ones((9, 1, 1, 1, 1)))
    copy = shutil.copytree(damaged_audit[0], tmp_path / "audit")
    part = sorted((copy / "statistics").iterdir())[0]
    for place in ("../secret.npz", str(secret), "jacobians/../../secret.npz"):
        table = pq.read_table(part)
        column = table.schema.get_field_index("jacobian_file")
        forged = table.set_column(column, "jacobian_file", [[place] * len(table)])
        pq.write_table(forged, part)
        audit = augnet.open_audit(copy)
        image_id = table["image_id"][0].as_py()
        with pytest.raises(AuditError):
            audit.jacobian(image_id)


def test_pickles_are_not_loaded(tmp_path, damaged_audit):
    copy = shutil.copytree(damaged_audit[0], tmp_path / "audit")

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(copy / names.MAPS, allow_pickle=True, mean=np.array([Trap()], dtype=object))
    with pytest.raises(AuditError, match="augnet check"):
        _ = augnet.open_audit(copy).maps
    assert not (tmp_path / "sprung").exists()
