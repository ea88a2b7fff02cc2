"""Estimates from a sketch in whole audits: columns, summary, report, plan; and what is refused."""

import numpy as np
import pytest
from conftest import small_cnn

import augnet
from augnet.audits.integrity import check
from augnet.errors import ConfigError
from pipeline.main import main

OUTPUTS = 30
NAMES = ("sketch_frobenius", "sketch_spectral", "sketch_magnitude")
BESIDE = {"jacobian.outputs": "top:5", "jacobian.sketch": 8}


@pytest.fixture(scope="module")
def model():
    return small_cnn(OUTPUTS)


def audited(model, images, output, **keys):
    return augnet.audit(model, images, output, progress=False, **({"findings.enabled": False} | keys))


def test_estimates_and_their_errors_are_columns_and_labelled_approximate(tmp_path, images, model):
    found = audited(model, images, tmp_path / "out", **BESIDE)
    every = audited(model, images, tmp_path / "all")
    assert check(str(tmp_path / "out")) == []
    exact = {"sketch_frobenius": "frobenius", "sketch_spectral": "spectral"}
    for name in NAMES:
        values, errors = found.column(name).to_numpy(), found.column(f"{name}_error").to_numpy()
        assert (values > 0).all() and (errors > 0).all()
        if name in exact:
            assert np.mean(np.abs(values - every.column(exact[name]).to_numpy()) <= 2 * errors) > 0.85
        figures = found.summary["statistics"][name]
        assert figures["approximate"] and figures["mean_error"] == pytest.approx(errors.mean())
        assert found.statistics_schema.field(name).metadata == {b"approximate": b"true"}
        assert found.worst(name, 1)[name][0].as_py() == values.max()
    assert not any(name.startswith("sketch") for name in every.statistics.column_names)
    assert "approximate" not in every.summary["statistics"]["frobenius"]
    data = b"".join(found.folder.read_bytes(name) for name in found.folder.names("report"))
    assert b"approximate: norm of the Jacobian of all outputs" in data and b"mean_error" in data


def test_how_images_are_cut_into_units_leaves_no_trace(tmp_path, images, model):
    keys = BESIDE | {"jacobian.batch_size": 8}
    whole = audited(model, images, tmp_path / "one", **keys)
    again = audited(model, images, tmp_path / "again", **keys)
    parts = audited(model, images, tmp_path / "many", **keys, **{"store.shard_bytes": 40_000})
    assert len(list(parts.folder.names("records"))) > 1
    assert again.folder.read_bytes("summary.json") == whole.folder.read_bytes("summary.json")
    for name in (*NAMES, *(f"{name}_error" for name in NAMES)):
        np.testing.assert_allclose(parts.column(name), whole.column(name), rtol=1e-5)


@pytest.mark.parametrize("number", [0, 7, -1, 8.5, "many", True])
def test_what_is_no_sketch_is_refused(tmp_path, images, model, number):
    with pytest.raises(
        ConfigError, match=r"jacobian\.sketch: .* does not fit; give a whole number at least 8"
    ):
        audited(model, images, tmp_path / "out", **BESIDE | {"jacobian.sketch": number})


def test_a_sketch_beside_all_rows_is_refused(tmp_path, images, model):
    with pytest.raises(ConfigError, match=r"jacobian\.sketch: estimates what .*outputs: all computes"):
        audited(model, images, tmp_path / "out", **{"jacobian.sketch": 8})


def test_a_sketch_of_no_fewer_rows_than_all_is_refused_before_any_work(tmp_path, images, model):
    with pytest.raises(ConfigError, match=r"jacobian\.sketch: 25 .* 5 rows of jacobian\.outputs: top:5 "):
        audited(model, images, tmp_path / "out", **BESIDE | {"jacobian.sketch": 25})
    assert not (tmp_path / "out").exists()


def test_another_sketch_is_another_audit(tmp_path, images, model):
    audited(model, images, tmp_path / "out", **BESIDE)
    with pytest.raises(ConfigError, match=r"jacobian\.sketch: 8 -> 9"):
        audited(model, images, tmp_path / "out", **BESIDE | {"jacobian.sketch": 9})


def test_the_plan_says_how_many_rows_are_computed(tmp_path, images, model, capsys):
    model.save(tmp_path / "m.keras")
    flags = [f"--{key}={value}" for key, value in BESIDE.items()]
    paths = ["--model", tmp_path / "m.keras", "--images", images, "--output", tmp_path / "out"]
    assert main([*map(str, ["plan", *paths]), *flags, "--findings.enabled=false"]) == 0
    assert "8 combinations of all 30 outputs; 13 rows in place of 30" in capsys.readouterr().out
