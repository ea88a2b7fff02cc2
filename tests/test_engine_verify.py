"""The judges pass a right engine, and fail one whose rows are wrong."""

import keras
import numpy as np

from augnet.engine import Engine
from augnet.engine.verify import verify
from pipeline.main import main

layers = keras.layers


def model():
    keras.utils.set_random_seed(4)
    steps = [layers.Conv2D(6, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D(2)]
    return keras.Sequential([keras.Input((10, 10, 2)), *steps, layers.Flatten(), layers.Dense(4)])


def test_a_right_engine_passes():
    images = np.random.default_rng(1).normal(size=(5, 10, 10, 2)).astype("float32")
    checks = verify(Engine(model(), batch_size=4), images)
    assert len(checks) == 4 and all(check.passed for check in checks), checks


def test_a_wrong_engine_fails(monkeypatch):
    images = np.random.default_rng(1).normal(size=(3, 10, 10, 2)).astype("float32")
    right = Engine.jacobian
    monkeypatch.setattr(
        Engine, "jacobian", lambda self, x: right(self, x) * np.linspace(0.5, 1, 10)[:, None, None]
    )
    checks = verify(Engine(model(), batch_size=4), images)
    assert not checks[0].passed


def test_augnet_verify_shows_a_table_and_says_no_with_status_1(
    images, cnn_path, tmp_path, capsys, monkeypatch
):
    command = ["verify", "--model", str(cnn_path), "--images", str(images), "--output", str(tmp_path / "out")]
    assert main([*command, "--sample=3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("passed") == 4 and "over 3" in shown
    assert not (tmp_path / "out").exists()
    right = Engine.jacobian
    monkeypatch.setattr(Engine, "jacobian", lambda self, x: 1.01 * right(self, x))
    assert main([*command, "--sample=3"]) == 1
    captured = capsys.readouterr()
    assert "FAILED" in captured.out and "float64 oracle" in captured.err


def test_in_bfloat16_the_judges_allow_its_rounding_and_no_fault(monkeypatch):
    images = np.random.default_rng(1).normal(size=(4, 10, 10, 2)).astype("float32")
    engine = Engine(model(), precision="bfloat16", batch_size=4)
    checks = verify(engine, images)
    assert len(checks) == 4 and all(check.passed for check in checks), checks
    assert 1e-4 < checks[0].error < checks[0].tolerance < 1
    right = Engine.jacobian
    monkeypatch.setattr(
        Engine, "jacobian", lambda self, x: right(self, x) * np.linspace(-1, 1, 10)[:, None, None]
    )
    assert not verify(engine, images)[0].passed
