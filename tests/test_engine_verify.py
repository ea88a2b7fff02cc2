"""The judges pass a right engine, and fail one whose rows are wrong."""

import keras
import numpy as np

from augnet.engine import Engine
from augnet.engine.verify import verify

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
