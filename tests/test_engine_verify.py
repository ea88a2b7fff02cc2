"""The judges pass a right engine, and fail one whose rows are wrong."""

import keras
import numpy as np
from engine_helpers import engine_of

from augnet.engine import Engine
from augnet.engine.rules.elementwise import Clip
from augnet.engine.verify import RULES, verify
from pipeline.main import main

layers = keras.layers


def model():
    keras.utils.set_random_seed(4)
    steps = [layers.Conv2D(6, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D(2)]
    return keras.Sequential([keras.Input((10, 10, 2)), *steps, layers.Flatten(), layers.Dense(4)])


def test_a_right_engine_passes():
    images = np.random.default_rng(1).normal(size=(5, 10, 10, 2)).astype("float32")
    checks = verify(engine_of(model(), batch_size=4), images)
    assert len(checks) == 5 and all(check.passed for check in checks), checks


def test_a_wrong_engine_fails(monkeypatch):
    images = np.random.default_rng(1).normal(size=(3, 10, 10, 2)).astype("float32")
    right = Engine.jacobian
    monkeypatch.setattr(
        Engine, "jacobian", lambda self, x: right(self, x) * np.linspace(0.5, 1, 10)[:, None, None]
    )
    checks = verify(engine_of(model(), batch_size=4), images)
    assert not checks[0].passed


def test_a_fault_too_small_for_float32_fails(monkeypatch):
    images = np.random.default_rng(1).normal(size=(3, 10, 10, 2)).astype("float32")
    right = Clip.value_and_slope

    def wrong(self, x):
        made, slope = right(self, x)
        return made, slope * (1 + 1e-7)

    monkeypatch.setattr(Clip, "value_and_slope", wrong)
    checks = {check.name: check for check in verify(engine_of(model(), batch_size=4), images)}
    assert [name for name, check in checks.items() if not check.passed] == [RULES]


def test_a_kink_near_every_image_is_no_fault():
    keras.utils.set_random_seed(4)
    steps = [layers.Conv2D(4, 3, padding="same"), layers.ReLU(), layers.Flatten(), layers.Dense(3)]
    kinked = keras.Sequential([keras.Input((10, 10, 2)), *steps])
    images = np.random.default_rng(1).normal(size=(3, 10, 10, 2)).astype("float32")
    images[:, :2, :2] = 0
    engine = engine_of(kinked, batch_size=4)
    nudge, right = np.zeros_like(images[:1]), engine.jacobian
    nudge[:, :2, :2] = np.random.default_rng(2).normal(scale=1e-6, size=(1, 2, 2, 2))
    engine.jacobian = lambda x: right(x + nudge)
    own, rules, *_ = verify(engine, images)
    assert own.kinks == 3 and own.passed
    assert rules.kinks == 0 and rules.passed


def test_a_model_that_is_dead_on_the_images_passes():
    dead = model()
    dead.layers[0].bias.assign(np.full(6, -1e3))
    images = np.random.default_rng(1).normal(size=(2, 10, 10, 2)).astype("float32")
    engine = engine_of(dead, batch_size=4)
    assert not engine.jacobian(images).any()
    assert all(check.passed for check in verify(engine, images))


def test_augnet_verify_shows_a_table_and_says_no_with_status_1(
    images, cnn_path, tmp_path, capsys, monkeypatch
):
    command = ["verify", "--model", str(cnn_path), "--images", str(images), "--output", str(tmp_path / "out")]
    assert main([*command, "--sample=3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("passed") == 5 and "over 3" in shown
    assert not (tmp_path / "out").exists()
    right = Engine.jacobian
    monkeypatch.setattr(Engine, "jacobian", lambda self, x: 1.01 * right(self, x))
    assert main([*command, "--sample=3"]) == 1
    captured = capsys.readouterr()
    assert "FAILED" in captured.out and "float64 oracle" in captured.err


def test_in_bfloat16_the_judges_allow_its_rounding_and_no_fault(monkeypatch):
    images = np.random.default_rng(1).normal(size=(4, 10, 10, 2)).astype("float32")
    engine = engine_of(model(), precision="bfloat16", batch_size=4)
    checks = verify(engine, images)
    assert len(checks) == 5 and all(check.passed for check in checks), checks
    assert 1e-4 < checks[0].error < checks[0].tolerance < 1
    right = Engine.jacobian
    monkeypatch.setattr(
        Engine, "jacobian", lambda self, x: right(self, x) * np.linspace(-1, 1, 10)[:, None, None]
    )
    assert not verify(engine, images)[0].passed
