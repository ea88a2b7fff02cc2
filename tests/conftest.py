"""Models with known Jacobians, and small folders of real images."""

from __future__ import annotations

import gc
import logging
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from audit_processes import ForkServer
from PIL import Image

from pipeline.logs import PACKAGES

gc.set_threshold(10_000, 10, 10)  # each search for garbage goes through half a million imported objects

SIZE = (12, 10)
CLASSES = ("ant", "bee", "cow")


def linear_model(outputs: int = 3, channels: int = 3) -> keras.Model:
    """J is the kernel, everywhere."""
    keras.utils.set_random_seed(1)
    image = keras.Input((*SIZE, channels))
    return keras.Model(image, keras.layers.Dense(outputs)(keras.layers.Flatten()(image)))


def small_cnn(outputs: int = 3, channels: int = 3) -> keras.Model:
    """BatchNorm, Dropout, ReLU, max-pool and a fused softmax, with statistics as after a training."""
    keras.utils.set_random_seed(2)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((*SIZE, channels)),
            layers.Conv2D(6, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Dropout(0.4),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(outputs, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(3)
    norm = model.layers[1]
    norm.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in norm.weights])
    return model


def write_images(folder: Path, count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> None:
    """PNG files `class/number.png` of random pixels, as many in each class."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        path = folder / CLASSES[index % len(CLASSES)] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(path)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the engine chooses by timing is kept for this run of the tests, not for the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_log_level() -> None:
    """A command that an earlier test ran in this process has set its `--log-level` for good."""
    for package in PACKAGES:
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def running_fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with ForkServer(tmp_path_factory.mktemp("server") / "log") as server:
        yield server


@pytest.fixture
def fork_server(running_fork_server: ForkServer, tmp_path: Path) -> ForkServer:
    """Starts audits as processes; what they say is in tmp_path / "log"."""
    running_fork_server.log = str(tmp_path / "log")
    return running_fork_server


@pytest.fixture(scope="session")
def keras2_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that Keras 2 wrote; see keras2/make.py."""
    folder = tmp_path_factory.mktemp("keras2")
    with zipfile.ZipFile(Path(__file__).parent / "keras2" / "models.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 40 images in three classes, of the models' own size."""
    folder = tmp_path / "images"
    write_images(folder, 40)
    return folder


@pytest.fixture
def cnn_path(tmp_path: Path) -> Path:
    path = tmp_path / "cnn.keras"
    small_cnn().save(path)
    return path
