"""Findings through whole audits: classes, yes-or-no answers and numbers; the same bytes however it is run."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_pipeline_audit import audit, digests

from augnet.audits.integrity import check
from augnet.storage import names

SIZE, COUNT = 12, 150
TAG = (slice(9, 12), slice(9, 12))


def dense(path, kernel, activation=None):
    """A model of one dense layer: J is its kernel, (height, width, output)."""
    image = keras.Input((SIZE, SIZE, 1))
    layer = keras.layers.Dense(kernel.shape[-1], activation=activation)
    model = keras.Model(image, layer(keras.layers.Flatten()(image)))
    layer.set_weights([kernel.reshape(SIZE * SIZE, -1), np.zeros(kernel.shape[-1])])
    model.save(path)


def write(folder, images, labels):
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = Path(folder, str(label), f"{number:03d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * image.clip(0, 1)).astype(np.uint8)).save(path)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    """A classifier that knows each class by a faint pattern, and class 2 by a tag; and images of them."""
    folder, rng = tmp_path_factory.mktemp("tagged"), np.random.default_rng(0)
    patterns = rng.choice([-1.0, 1.0], (3, SIZE, SIZE))
    patterns[:, *TAG] = 0
    patterns -= patterns.mean(axis=(1, 2), keepdims=True)
    labels = np.arange(COUNT) % 3
    images = 0.4 + 0.03 * patterns[labels] + rng.normal(0, 0.06, (COUNT, SIZE, SIZE))
    images[(labels == 2) & (rng.random(COUNT) < 0.8), 9:12, 9:12] = 1
    kernel = patterns.transpose(1, 2, 0) / 3
    kernel[TAG] = 0
    kernel[TAG][..., 2] = 0.5
    kernel[:2, :, 2] -= 9 * 0.5 * 0.4 / (2 * SIZE * 0.4)  # nothing without a tag
    dense(folder / "m.keras", kernel, "softmax")
    write(folder / "images", images, labels)
    return folder


@pytest.fixture(scope="module")
def tagged_audit(tagged):
    """The audit of these, and what it printed."""
    with redirect_stdout(StringIO()) as said:
        found = audit(tagged / "m.keras", tagged / "images", tagged / "out")
    return found, said.getvalue()


def test_a_tag_is_named_in_every_file_that_tells_of_it(tagged, tagged_audit):
    found, said = tagged_audit
    (finding,) = found.findings["confirmed"]
    assert (finding["kind"], finding["output"], finding["name"], finding["unit"]) == (
        "place",
        2,
        "2",
        "predictions",
    )
    for box in finding["places"]:
        assert box["y"] >= 8 and box["x"] >= 8
    low, high = finding["interval"]
    assert 0.3 < low < finding["effect"] < high <= 1
    assert finding["changed"] - finding["control"] == pytest.approx(finding["effect"])
    assert "lower right corner" in finding["sentence"] and finding["sentence"] in said
    page = (tagged / "out/report/index.html").read_text()
    assert "leans on the lower right corner" in page
    assert {image["image_id"].split("/")[0] for image in finding["images"]} == {"2"}
    assert found.findings["judged"]["outputs"] == 3
    assert {entry["kind"] for entry in found.findings["tried"]} >= {"place", "moving", "blur", "contrast"}
    assert "colour" not in {entry["kind"] for entry in found.findings["tried"]}  # the images are grey
    rows = found.interventions
    assert set(rows["arm"].to_pylist()) >= {"given", "foreign", "elsewhere", "painted", "taken"}
    known = set(found.statistics["image_id"].to_pylist())
    assert set(rows["image_id"].to_pylist()) <= known and set(rows["source_id"].to_pylist()) <= known
    assert check(str(tagged / "out")) == []


def test_processes_threads_and_a_resumed_run_give_the_same_bytes(tagged, tmp_path):
    inputs = tagged / "m.keras", tagged / "images"
    audit(*inputs, tmp_path / "one", "--store.shard_bytes=20000")
    expected = digests(tmp_path / "one")
    assert len([name for name in expected if name.startswith("interventions/")]) == 6
    audit(
        *inputs,
        tmp_path / "two",
        "--store.shard_bytes=20000",
        "--direct_running_mode=multi_processing",
        "--direct_num_workers=2",
    )
    assert digests(tmp_path / "two") == expected
    for name in (names.MANIFEST, names.FINDINGS, "interventions/part-00001-of-00003.json"):
        (tmp_path / "two" / name).unlink()
    torn = tmp_path / "two/interventions/part-00002-of-00003.parquet"
    torn.write_bytes(torn.read_bytes()[:-10])
    kept = (tmp_path / "two/interventions/part-00000-of-00003.parquet").stat().st_mtime_ns
    audit(*inputs, tmp_path / "two", "--store.shard_bytes=20000")
    assert digests(tmp_path / "two") == expected
    assert (tmp_path / "two/interventions/part-00000-of-00003.parquet").stat().st_mtime_ns == kept


def test_without_findings_nothing_is_tried(tagged, tmp_path):
    found = audit(tagged / "m.keras", tagged / "images", tmp_path / "out", "--findings.enabled=false")
    assert found.findings["confirmed"] == found.findings["tried"] == found.findings["looks_at"] == []
    assert found.interventions.num_rows == 0
    sidecar = np.load(tmp_path / "out/aggregates/part-00000-of-00001.npz")
    assert not [name for name in sidecar.files if name.startswith("sample.")]
    assert check(str(tmp_path / "out")) == []


def test_a_short_time_is_kept_by_changing_fewer_images(tagged, tmp_path):
    flags = ["--findings.seconds=0.001"]
    found = audit(tagged / "m.keras", tagged / "images", tmp_path / "out", *flags)
    design = json.loads((tmp_path / "out/candidates.json").read_text())
    assert len(design["units"]) == 1 and len(design["units"][0]["groups"]["receivers"]) <= 24
    assert found.findings["judged"]["outputs"] == 1


def test_every_number_of_a_regression_is_judged(tmp_path):
    """Output 0 is large and follows the whole image; output 1 is small and follows a tag exactly."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.6, (COUNT, SIZE, SIZE))
    images[:, 9:12, 9:12] = rng.choice([0.0, 1.0], COUNT)[:, None, None]
    kernel = np.zeros((SIZE, SIZE, 2))
    kernel[:9, :, 0] = rng.normal(size=(9, SIZE)) * 10 + 5
    kernel[TAG][..., 1] = 0.1
    dense(tmp_path / "m.keras", kernel)
    write(tmp_path / "images", images, [""] * COUNT)
    found = audit(tmp_path / "m.keras", tmp_path / "images", tmp_path / "out", "--images.labels=none")
    confirmed = found.findings["confirmed"]
    places = [finding for finding in confirmed if finding["kind"] == "place"]
    assert [finding["output"] for finding in places] == [1], confirmed
    assert found.findings["doubts"] == []  # that one output is always the largest says nothing
    for finding in places:
        assert finding["unit"] == "standard deviations"
        assert all(box["y"] >= 8 and box["x"] >= 8 for box in finding["places"])
        assert finding["effect"] > 0.5 and finding["changed"] > 1
        assert "standard deviations" in finding["sentence"]


def test_every_answer_of_a_multi_label_model_is_judged(tmp_path):
    rng = np.random.default_rng(0)
    patterns = rng.choice([-1.0, 1.0], (SIZE, SIZE, 3))
    patterns[TAG] = 0
    patterns -= patterns.mean(axis=(0, 1))
    answers = rng.random((COUNT, 3)) < 0.4
    images = 0.4 + 0.03 * ((2 * answers - 1.0) @ patterns.reshape(-1, 3).T).reshape(COUNT, SIZE, SIZE)
    images += rng.normal(0, 0.05, images.shape)
    images[:, 9:12, 9:12] = np.where(answers[:, 1], 0.9, 0.1)[:, None, None]
    kernel = patterns / 2
    kernel[TAG] = 0
    kernel[..., 1] /= 4
    kernel[TAG][..., 1] = 1.0
    kernel[:3, :, 1] -= 9 * 1.0 * 0.5 / (3 * SIZE * 0.4)  # about zero half way between tag and no tag
    dense(tmp_path / "m.keras", kernel, "sigmoid")
    write(tmp_path / "images", images, [""] * COUNT)
    found = audit(tmp_path / "m.keras", tmp_path / "images", tmp_path / "out", "--images.labels=none")
    tags = [
        finding
        for finding in found.findings["confirmed"]
        if any(box["y"] >= 8 and box["x"] >= 8 for box in finding["places"])
    ]
    assert {finding["output"] for finding in tags} == {1}


def test_the_plan_says_how_long_findings_take(tagged, capsys):
    from pipeline.main import main

    arguments = [
        "plan",
        "--model",
        tagged / "m.keras",
        "--images",
        tagged / "images",
        "--output",
        "/nowhere/x",
    ]
    main([str(argument) for argument in arguments])
    shown = capsys.readouterr().out
    assert "forward passes, of 10 min 0 s allowed" in shown


def test_interventions_have_their_columns(tagged, tagged_audit):
    table = pq.read_table(tagged / "out/interventions/part-00002-of-00003.parquet")
    given = table.filter(np.array(table["arm"].to_pylist()) == "given").to_pydict()
    before, after = (np.array(given[name]) for name in ("before", "after"))
    assert before.min() > 0 and before.max() < 0.5  # other predictions, whose probability counts half
    assert after.min() > 0 and after.max() > 0.9
    moved = np.array(given["output_after"]) - np.array(given["output_before"])
    assert moved[after > before + 0.5].mean() > 0
