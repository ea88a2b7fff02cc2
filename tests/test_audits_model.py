"""A model is loaded and inspected once per process, and the device is that of whoever computes."""

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from audit_processes import audit_command
from conftest import small_cnn

from augnet.audits import worker
from augnet.audits.forecast import forecast
from augnet.audits.plan import plan
from augnet.audits.run import Run
from augnet.audits.unit import Auditor
from augnet.config import load_config
from augnet.engine import Choice, Engine
from augnet.errors import AuditError, ConfigError
from augnet.sources import FolderSource
from augnet.sources.memory import MemorySource
from augnet.storage.files import OutputFolder
from pipeline.main import main


@pytest.fixture
def config(tmp_path, images, cnn_path):
    flags = {"model.path": str(cnn_path), "images.path": str(images), "output": str(tmp_path / "out")}
    return load_config(flags=flags)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of choices that no other test has written to."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "augnet" / "engine"


@pytest.fixture
def counted(monkeypatch, caplog):
    """Counts (files that Keras loaded a model from, inspections) since the last time it was asked."""
    loaded, load = [], keras.saving.load_model

    def counting(path, *args, **options):
        loaded.append(path)
        return load(path, *args, **options)

    monkeypatch.setattr(keras.saving, "load_model", counting)
    caplog.set_level(logging.DEBUG, "augnet.engine.inspection")

    def count():
        inspections = [record for record in caplog.records if "inspecting model" in record.message]
        made = len(loaded), len(inspections)
        loaded.clear()
        caplog.clear()
        return made

    return count


def test_a_command_loads_and_inspects_the_model_once(tmp_path, images, cnn_path, counted):
    flags = audit_command(cnn_path, images, tmp_path / "out", "--store.shard_bytes=50000")[1:]
    for command in ("plan", "audit", "audit"):  # the second audit finds all units done
        assert main([command, *flags]) == 0
        assert counted() == (1, 1), command


def test_verify_loads_and_inspects_the_model_once(tmp_path, images, cnn_path, counted):
    assert main(["verify", *audit_command(cnn_path, images, tmp_path / "out", "--sample=3")[1:]]) == 0
    assert counted() == (1, 1)


def test_a_worker_of_its_own_loads_the_model_that_was_planned(config, cnn_path, counted):
    plan(config)
    assert counted() == (1, 1)
    Auditor.open(config.output)
    assert counted() == (1, 1)
    other = small_cnn()
    other.layers[0].bias.assign(np.full(6, 0.5))
    other.save(cnn_path)
    with pytest.raises(AuditError, match=r"model\.path: .* changed after the audit began"):
        Auditor.open(config.output)


def test_the_planner_s_model_serves_every_step_of_its_run_and_only_while_it_is_handed_on(config, counted):
    planned = plan(config)
    with worker.handing_on(planned.run, planned.model):
        assert worker.model_of(planned.run) is worker.model_of(planned.run) is planned.model
        other = replace(planned.run, fingerprint="of another audit")
        assert worker.model_of(other) is not planned.model
    assert counted() == (2, 2)
    assert worker.model_of(planned.run) is not planned.model


def test_images_are_handed_on_with_the_model(config):
    planned = plan(config)
    source = MemorySource(config.images, np.zeros((2, 12, 10, 3), np.uint8))
    with worker.handing_on(planned.run, planned.model, source):
        assert worker.source_of(planned.run) is source
    with worker.handing_on(planned.run, planned.model):
        assert isinstance(worker.source_of(planned.run), FolderSource)


def test_run_json_tells_of_the_model_and_of_no_device(config):
    run = plan(config).run
    written = json.loads(OutputFolder(config.output).read_bytes("run.json"))["model"]
    assert written["input_shape"] == [12, 10, 3] and written["output_count"] == 3
    assert not {"device", "row_count", "stored_shape"} & written.keys()
    assert Run.read(OutputFolder(config.output)) == run


def test_the_choice_is_filed_under_the_worker_s_device(config, own_cache, monkeypatch):
    planned, folder = plan(config), OutputFolder(config.output)
    worker.open_engine(planned.run, planned.model, folder)
    assert folder.engine_names() == ["engine-cpu.json"]
    of_a_gpu = SimpleNamespace(device_kind=lambda: "gpu")
    monkeypatch.setattr(worker, "backend", of_a_gpu)  # a worker elsewhere, of the same run
    worker.open_engine(planned.run, planned.model, folder)
    assert sorted(folder.engine_names()) == ["engine-cpu.json", "engine-gpu.json"]
    assert len(list(own_cache.iterdir())) == 2  # nor is one kind's choice another's


@pytest.mark.skipif(worker.backend.has_tensor_float_32(), reason="this device has TensorFloat-32")
def test_who_plans_may_lack_what_the_workers_have(config, monkeypatch):
    tf32 = config.model_copy(update={"jacobian": config.jacobian.model_copy(update={"precision": "tf32"})})
    plan(tf32)
    with pytest.raises(ConfigError, match=r"jacobian\.precision: tf32 needs an NVIDIA GPU"):
        Auditor.open(tf32.output)
    with pytest.raises(ConfigError, match=r"jacobian\.precision: tf32 needs an NVIDIA GPU"):
        forecast(tf32)
    monkeypatch.setattr(worker.backend, "has_tensor_float_32", lambda: True)
    assert Auditor.open(tf32.output).engine.precision == "tf32"


def test_what_was_chosen_on_a_busy_machine_serves_this_audit_alone(config, own_cache, monkeypatch):
    choose, chosen = Engine.choice, []

    def choice(self):
        chosen.append(replace(choose(self), busy=busy))
        return chosen[-1]

    monkeypatch.setattr(Engine, "choice", choice)
    planned, folder = plan(config), OutputFolder(config.output)
    for busy, kept in ((True, 0), (False, 1)):
        if folder.exists("engine-cpu.json"):
            folder.remove("engine-cpu.json")
        worker.open_engine(planned.run, planned.model, folder)
        assert Choice.from_json(folder.read_json("engine-cpu.json")).busy is busy
        assert (len(list(own_cache.iterdir())) if own_cache.exists() else 0) == kept


def test_a_damaged_choice_in_the_cache_is_made_anew(config, own_cache):
    planned, folder = plan(config), OutputFolder(config.output)
    worker.open_engine(planned.run, planned.model, folder)
    (kept,) = own_cache.iterdir()
    for damage in (b"{", b'{"program": "tape", "no such field": 1}'):
        kept.write_bytes(damage)
        folder.remove("engine-cpu.json")
        worker.open_engine(planned.run, planned.model, folder)
        assert json.loads(kept.read_bytes()) == folder.read_json("engine-cpu.json")


def test_another_worker_s_choice_is_taken_over(config, own_cache):
    planned, folder = plan(config), OutputFolder(config.output)
    engine, _ = worker.open_engine(planned.run, planned.model, folder)
    other = replace(engine.choice(), batch_size=3)
    folder.write_json("engine-cpu.json", other.to_json())
    again, _ = worker.open_engine(planned.run, planned.model, folder)
    assert again.choice() == other and again.batch_size == 3


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"preprocess.size": [5, 5]}, r"preprocess\.size: \[5, 5\] is not the size"),
        ({"jacobian.outputs": [0, 7]}, r"jacobian\.outputs: \[7\] are not outputs"),
        ({"store.jacobians": [9]}, r"store\.jacobians: \[9\] are not outputs"),
        ({"jacobian.reduce": "mean"}, r"jacobian\.reduce: the model's outputs have shape"),
        ({"model.output": "no such"}, r"model\.output: no output named 'no such'"),
    ],
)
def test_errors_of_the_engine_name_the_keys_of_the_configuration(config, flags, words):
    given = {"model.path": config.model.path, "images.path": config.images.path, "output": config.output}
    with pytest.raises(Exception, match=words):
        plan(load_config(flags=given | flags))
