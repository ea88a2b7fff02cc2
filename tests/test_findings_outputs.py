"""Whole audits of models whose outputs are no classes, and the triage of one whose outputs are."""

import json

import keras
import numpy as np
import pytest
from conftest import SIZE, small_cnn, write_images
from sklearn.metrics import roc_auc_score

import augnet
from augnet.storage import names
from pipeline.main import main

TAG = (slice(0, 2), slice(8, 10))  # the upper right corner of 12 x 10 pixels
MAPS = ("gini", "entropy", "border_fraction", "centre_y", "centre_x", "spread")


def audit(folder, model, count=12):
    write_images(folder / "images", count)
    model.save(folder / "m.keras")
    flags = ["--model", folder / "m.keras", "--images", folder / "images", "--output", folder / "out"]
    assert main(["audit", *map(str, flags), "--log-level=error", "--preprocess.scale=unit"]) == 0
    return augnet.open_audit(folder / "out")


def linear(kernel, bias, activation=None):
    """f(x) = activation(sum of kernel x + bias), kernel (height, width, channel, output)."""
    model = keras.Sequential(
        [
            keras.Input((*SIZE, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(kernel.shape[-1], activation=activation),
        ]
    )
    model.set_weights([kernel.reshape(-1, kernel.shape[-1]), np.asarray(bias)])
    return model


def page(found):
    return found.folder.read_bytes(names.REPORT).decode()


def test_a_regression_of_one_output(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(*SIZE, 3, 1))
    found = audit(tmp_path, linear(kernel, [0.0]))
    for name in ("stable_rank", "effective_rank", "margin_l2", "correct"):
        assert found.statistics[name].null_count == 12, name
    ends = found.summary["extremes"]
    for name in ("frobenius", "spectral", "gini", "spread"):  # the same for all images, but for rounding
        assert found.summary["statistics"][name]["count"] == 12
        assert ends[name] == {"lowest": [], "highest": []}, name
    assert len(ends["alignment"]["highest"]) == 12
    assert "auroc" not in json.dumps(found.summary)
    assert (found.triage["best"], found.triage["rows"], found.triage["review"]) == (None, [], [])
    assert 'id="gallery-' not in page(found) and 'id="triage"' not in page(found)
    assert "No image is flagged." in page(found) and "that takes 20 images" in page(found)
    data = found.folder.read_bytes("report/data.js").decode()
    assert '"first":{"sort":"frobenius","order":"highest"}' in data  # the alarming end


def test_every_output_of_a_regression_is_described_by_its_own_row(tmp_path):
    """Output 1 is a small one that follows a corner exactly; output 0 is always larger."""
    kernel = np.zeros((*SIZE, 3, 2))
    kernel[..., 0] = 1
    kernel[(*TAG, slice(None), 1)] = 1e-3
    found = audit(tmp_path, linear(kernel, [100.0, 0.0]))
    assert set(found.statistics["predicted"].to_pylist()) == {0}
    whole, tag = found.outputs.to_pylist()
    for name in MAPS:
        assert whole[name] == pytest.approx(found.statistics[name][0].as_py(), abs=1e-6), name
    assert (tag["centre_y"], tag["centre_x"]) == pytest.approx((1 / 12, 9 / 10))
    assert tag["gini"] == pytest.approx(1 - 4 / 120)
    assert tag["entropy"] == pytest.approx(np.log(4) / np.log(120))
    assert tag["border_fraction"] == pytest.approx(3 / 4)  # the frame is one pixel wide
    assert tag["mean_row_l2"] == pytest.approx(1e-3 * np.sqrt(12))


def test_a_multilabel_model(tmp_path):
    kernel, bias = np.random.default_rng(1).normal(size=(*SIZE, 3, 3)) / 20, np.array([0.3, -0.2, 0.1])
    found = audit(tmp_path, linear(kernel, bias, "sigmoid"))
    f = np.array(found.statistics["outputs"].to_pylist())
    for name, norm in (
        ("margin_l2", (kernel**2).sum((0, 1, 2)) ** 0.5),
        ("margin_linf", np.abs(kernel).sum((0, 1, 2))),
    ):
        np.testing.assert_allclose(found.statistics[name], (np.abs(f) / norm).min(axis=1), rtol=1e-4)
    assert found.triage["best"] is None and found.summary["judged"] == 0
    assert "no classes" in found.triage["sentence"]


def test_the_triage_of_a_classifier(tmp_path, capsys):
    found = audit(tmp_path, small_cnn(), count=60)
    table, triage = found.statistics, found.triage
    wrong = ~np.array(table["correct"].to_pylist())
    assert (triage["errors"], triage["judged"]) == (wrong.sum(), 60) and 10 <= wrong.sum() <= 50
    rows = {row["statistic"]: row for row in triage["rows"]}
    assert rows["margin_l2"]["auroc"] == pytest.approx(roc_auc_score(wrong, -table["margin_l2"].to_numpy()))
    probability = table["probability"].to_numpy()
    assert rows["maximum_probability"]["auroc"] == pytest.approx(roc_auc_score(wrong, -probability))
    shown = {row["image_id"]: row for row in triage["review"]}
    assert set(shown) == set(table["image_id"].to_pylist())
    for image_id, predicted, label in zip(
        *(table[name].to_pylist() for name in ("image_id", "predicted", "label")), strict=True
    ):
        assert (shown[image_id]["predicted"], shown[image_id]["label"]) == (predicted, label)
    assert triage["sentence"] in page(found) and 'id="triage"' in page(found)
    assert triage["sentence"] in capsys.readouterr().out
