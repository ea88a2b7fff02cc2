"""RunInference with a JacobianModelHandler, against the audit of the same images."""

import json
import pickle

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from conftest import CLASSES, SIZE, small_cnn, write_images
from PIL import Image

import augnet
from augnet.errors import ConfigError
from augnet.storage import schema
from pipeline.main import main
from transforms import inference
from transforms.inference import JacobianModelHandler, Labelled

COLUMNS = [
    name
    for name in schema.STATISTICS.names
    if name not in ("image_id", "uri", "label", "metadata", "jacobian_file", "jacobian_row")
]
GATHERED = []


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inference")
    write_images(folder / "images", 40)
    small_cnn().save(folder / "cnn.keras")
    return folder


@pytest.fixture(scope="module")
def images(folder):
    return folder / "images"


@pytest.fixture(scope="module")
def cnn_path(folder):
    return folder / "cnn.keras"


@pytest.fixture(scope="module")
def audit(folder, images, cnn_path):
    command = ["audit", "--model", cnn_path, "--images", images, "--output", folder / "audit"]
    assert main([*map(str, command), "--jacobian.batch_size=8", "--log-level=warning"]) == 0
    return augnet.open_audit(folder / "audit")


@pytest.fixture(scope="module")
def choice(audit):
    """What the audit's engine chose by timing: with it, nothing is timed again."""
    return json.loads(audit.folder.read_bytes("engine-cpu.json"))


def gather(result):
    GATHERED.append(result)  # named in a module, it is pickled by its name, and so finds this list


def run(elements, handler, keyed=False):
    """Results of a pipeline in this process, and Beam's counters."""
    GATHERED.clear()
    handler = KeyedModelHandler(handler) if keyed else handler
    pipeline = beam.Pipeline(runner=FnApiRunner())
    _ = pipeline | beam.Create(elements) | RunInference(handler) | beam.Map(gather)
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_namespace("augnet"))
    counters = {metric.key.metric.name: metric.result for metric in found["counters"]}
    sizes = {metric.key.metric.name: metric.result for metric in found["distributions"]}
    return list(GATHERED), counters, sizes


def pixels(path):
    return np.asarray(Image.open(path), np.float32) / 255


def test_keyed_images_give_the_rows_of_the_audit_to_the_last_bit(audit, images, cnn_path, choice):
    ids = audit.statistics["image_id"].to_pylist()
    elements = [(name, Labelled(pixels(images / name), CLASSES.index(name.split("/")[0]))) for name in ids]
    settings = {"jacobian.batch_size": 8}
    handler = JacobianModelHandler(str(cnn_path), settings, batch_size=8, choice=choice)
    found, counters, _ = run(elements, handler, keyed=True)
    results = dict(found)
    assert len(results) == len(found) == len(ids) == 40
    for row in audit.statistics.to_pylist():
        result = results[row["image_id"]]
        assert list(result) == [*COLUMNS, "failure"]
        assert result == {name: row[name] for name in COLUMNS} | {"failure": None}
    assert counters["num_inferences"] == 40


def test_unkeyed_images_without_labels(audit, images, cnn_path, choice):
    names = audit.statistics["image_id"].to_pylist()[:5]
    handler = JacobianModelHandler(str(cnn_path), batch_size=4, choice=choice)
    found, _, sizes = run([pixels(images / name) for name in names], handler)
    expected = sorted(audit.statistics["frobenius"].to_pylist()[:5])
    np.testing.assert_allclose(sorted(result["frobenius"] for result in found), expected, rtol=1e-5)
    assert {(result["correct"], result["loss_gradient_l2"]) for result in found} == {(None, None)}
    assert sizes["inference_request_batch_size"].max == 4  # and never more
    assert sizes["inference_request_batch_byte_size"].max == 4 * np.prod(SIZE) * 3 * 4


def test_encoded_bytes_and_what_is_no_image(audit, images, cnn_path, choice):
    row = audit.statistics.slice(0, 1).to_pylist()[0]
    handler = JacobianModelHandler(str(cnn_path), batch_size=4, choice=choice)
    elements = [("good", (images / row["image_id"]).read_bytes()), ("bad", b"not a picture")]
    found, _, _ = run(elements, handler, keyed=True)
    results = dict(found)
    assert results["good"]["failure"] is None
    np.testing.assert_allclose(results["good"]["frobenius"], row["frobenius"], rtol=1e-5)
    assert results["bad"]["failure"].startswith("decode: ")
    assert {results["bad"][column] for column in COLUMNS} == {None}


def test_rows_travel_only_where_they_are_asked_for(audit, images, cnn_path, choice):
    name = audit.statistics["image_id"][3].as_py()
    settings = {"store.jacobians": "top:2", "jacobian.input_space": "pixel"}
    handler = JacobianModelHandler(str(cnn_path), settings, batch_size=1, choice=choice)
    ((result,), _, _) = run([pixels(images / name)], handler)
    assert result["jacobian"].shape == (2, *SIZE, 3) and result["jacobian"].dtype == np.float32
    expected = audit.jacobian(name)[result["stored"]] / 255
    np.testing.assert_allclose(result["jacobian"], expected, rtol=1e-4, atol=1e-8)


def test_the_model_is_loaded_once_per_process(cnn_path, choice, monkeypatch):
    loaded, load = [], inference.open_model
    monkeypatch.setattr(
        inference, "open_model", lambda config: loaded.append(config.model.path) or load(config)
    )
    run(
        [np.zeros((*SIZE, 3), np.float32)] * 7,
        JacobianModelHandler(str(cnn_path), batch_size=2, choice=choice),
    )
    assert loaded == [str(cnn_path)]


def test_batches_are_of_one_size_and_are_not_pickled_to_be_weighed(monkeypatch):
    handler = JacobianModelHandler("m.keras", batch_size=16)
    assert handler.batch_elements_kwargs() == {"min_batch_size": 16, "max_batch_size": 16}
    monkeypatch.setattr(pickle, "dumps", None)
    batch = [np.zeros((4, 5, 3), np.float32), b"12345", Labelled(np.zeros((2, 2, 1), np.float32), 3)]
    assert handler.get_num_bytes(batch) == 4 * 5 * 3 * 4 + 5 + 16
    assert handler.get_metrics_namespace() == "augnet" and not handler.share_model_across_processes()


def test_another_model_may_be_given_later(cnn_path):
    handler = JacobianModelHandler("old.keras")
    handler.update_model_path(str(cnn_path))
    assert handler.load_model().engine.spec.output_count == 3


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"images.path": "x"}, "images.path: is not for RunInference"),
        ({"jacobian.ouputs": "all"}, "no such key"),
        ({"jacobian.outputs": "some"}, "jacobian.outputs: 'some'"),
    ],
)
def test_settings_are_checked_when_the_pipeline_is_built(settings, words):
    with pytest.raises(ConfigError, match=words):
        JacobianModelHandler("m.keras", settings)


def test_an_array_of_another_shape_is_an_error_that_says_so(cnn_path):
    handler = JacobianModelHandler(str(cnn_path))
    with pytest.raises(ValueError, match=r"shape \(3, 3, 3\); the model takes \(12, 10, 3\)"):
        handler.run_inference([np.zeros((3, 3, 3), np.float32)], handler.load_model())
