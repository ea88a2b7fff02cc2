"""Survival under noise in whole audits: what is foretold, and what noisy copies show."""

import numpy as np
import pytest
from conftest import linear_model, small_cnn

import augnet
from augnet.audits import noise as trials
from augnet.audits.integrity import check
from augnet.errors import ConfigError


def audited(model, images, output, *noise, **keys):
    keys = {"findings.enabled": False, "statistics.noise": list(noise)} | keys
    return augnet.audit(model, images, output, progress=False, **keys)


@pytest.fixture
def linear(monkeypatch):
    """Its outputs move as foretold; all images of an audit are tried."""
    monkeypatch.setattr(trials, "IMAGES", 1000)
    return linear_model()


def test_a_linear_model_survives_as_foretold(tmp_path, images, linear):
    found = audited(linear, images, tmp_path / "out", 0.05, 0.5)
    assert check(str(tmp_path / "out")) == []
    survival = {sigma: found.statistics[f"survival_{sigma}"].to_numpy() for sigma in (0.05, 0.5)}
    assert (survival[0.05] >= survival[0.5] - 1e-3).all() and 0.4 < survival[0.5].mean() < 0.95
    for entry in found.summary["noise"]["sigmas"]:
        assert entry["images"] == 40
        assert entry["foretold"] == pytest.approx(survival[entry["sigma"]].mean(), abs=1e-12)
        assert entry["seen"] == pytest.approx(entry["foretold"], abs=0.03)
        assert entry["mean_abs_error"] < 1.5 * entry["sampling_error"]
    assert found.summary["statistics"]["survival_0.05"]["count"] == 40
    assert found.worst("survival_0.5", 1)["survival_0.5"][0].as_py() == survival[0.5].min()
    page = found.folder.read_bytes("report/index.html").decode()
    assert '<section id="noise">' in page and page.count('<svg class="reliability"') == 2


def test_noise_is_in_the_units_of_the_input_space(tmp_path, images, linear):
    here = audited(linear, images, tmp_path / "model", 0.5)
    there = audited(linear, images, tmp_path / "pixel", 127.5, **{"jacobian.input_space": "pixel"})
    np.testing.assert_allclose(there.column("survival_127.5"), here.column("survival_0.5"), atol=1e-6)
    seen = [audit.summary["noise"]["sigmas"][0]["seen"] for audit in (here, there)]
    assert seen[0] == pytest.approx(seen[1], abs=1e-3)


def test_how_images_are_cut_into_units_leaves_no_trace(tmp_path, images):
    model, batches = small_cnn(), {"jacobian.batch_size": 8, "images.limit": 16}
    whole = audited(model, images, tmp_path / "one", 0.1, **batches)
    again = audited(model, images, tmp_path / "again", 0.1, **batches)
    parts = audited(model, images, tmp_path / "many", 0.1, **batches, **{"store.shard_bytes": 40_000})
    assert len(list(parts.folder.names("records"))) > 1
    assert again.folder.read_bytes("summary.json") == whole.folder.read_bytes("summary.json")
    (one,), (many,) = (audit.summary["noise"]["sigmas"] for audit in (whole, parts))
    assert one.pop("bins") == [pytest.approx(entry) for entry in many.pop("bins")]
    assert one == pytest.approx(many) and one["images"] == 16


def test_without_every_row_nothing_is_foretold_or_tried(tmp_path, images):
    found = audited(small_cnn(), images, tmp_path / "out", 0.1, **{"jacobian.outputs": "top:2"})
    assert found.statistics["survival_0.1"].null_count == 40
    (entry,) = found.summary["noise"]["sigmas"]
    assert entry["images"] == 0 and entry["seen"] is None
    page = found.folder.read_bytes("report/index.html").decode()
    assert "Nothing is foretold" in page and '<svg class="reliability"' not in page


@pytest.mark.parametrize("noise", [[0], [0.1, 0.1], [-1], ["much"], [float("inf")]])
def test_what_is_no_noise_is_refused(tmp_path, images, noise):
    with pytest.raises(ConfigError, match=r"statistics\.noise: .* does not fit; give .*number"):
        audited(small_cnn(), images, tmp_path / "out", *noise)
