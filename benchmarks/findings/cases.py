"""A case: a data set with or without a planted shortcut, a model trained on it, and whether it uses that.

Everything follows from the seed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from augnet.statistics.sample import MIN_IMAGES
from benchmarks.findings import networks
from benchmarks.findings.scenes import draw_scenes
from benchmarks.findings.shortcuts import Place, Shortcut
from benchmarks.findings.spec import KINDS, Spec

USED = 0.3
"""Share of predictions that must change for a shortcut to count as used."""
TRAINING_IMAGES, TEST_IMAGES = 1000, 400


@dataclass(frozen=True)
class Use:
    """What the shortcut does to predictions, measured on every test image with and without it.

    Of fewer images than an audit judges a class by, none is said to change.

    Attributes:
        rise: of the images that are not predicted as the class without it, the share that are with it.
        drop: of the class's images predicted as the class with it, the share that are not without it.
        gains: by output, the share of those images that are predicted as it without.
    """

    rise: float
    drop: float
    gains: tuple[float, ...]

    @property
    def effect(self) -> float:
        """The larger of both ways."""
        return max(self.rise, self.drop)

    @classmethod
    def measure(
        cls, without: np.ndarray, planted: np.ndarray, labels: np.ndarray, output: int, outputs: int
    ) -> Use:
        """From the predictions (n,) of the same images without and with the shortcut."""
        foreign = (labels != output) & (without != output)
        own = (labels == output) & (planted == output)
        after, gains = without[own], np.zeros(outputs)
        if own.sum() >= MIN_IMAGES:
            gains = np.bincount(after[after != output], minlength=outputs) / own.sum()
        return cls(
            rise=float(np.mean(planted[foreign] == output)) if foreign.sum() >= MIN_IMAGES else 0.0,
            drop=float(gains.sum()),
            gains=tuple(gains.tolist()),
        )


@dataclass(frozen=True)
class Counterfactuals:
    """Every image twice.

    Attributes:
        without, planted: (n, height, width, channel) uint8, without and with the shortcut.
        carries: (n,) whether the data set shows it with the shortcut.
        labels: (n,) class numbers from 0.
    """

    without: np.ndarray
    planted: np.ndarray
    carries: np.ndarray
    labels: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """The data set: each image as it is shown, (n, height, width, channel) uint8."""
        return np.where(self.carries[:, None, None, None], self.planted, self.without)


def draw_data(spec: Spec, shortcut: Shortcut | None, count: int, held_out: bool) -> Counterfactuals:
    """The training data, or those held out for the test and the audit."""
    rng = np.random.default_rng([spec.seed, 2 + held_out])
    labels = shown = np.arange(count) % len(spec.classes)
    may_carry = np.full(count, shortcut is not None)
    if spec.output is not None:
        may_carry &= labels == spec.output
    carries = may_carry & (rng.permutation(count) < spec.strength * count)
    if spec.output is not None:
        others = (labels + rng.integers(1, len(spec.classes), count)) % len(spec.classes)
        shown = np.where(carries & (rng.random(count) < spec.alone), others, labels)
    scenes = draw_scenes(spec, shown, rng, held_out)
    planted = shortcut.plant(scenes, rng) if shortcut else scenes.images
    return Counterfactuals(_as_bytes(scenes.images), _as_bytes(planted), carries, labels)


def draw_shortcut(spec: Spec) -> Shortcut | None:
    """What is planted in the case."""
    if spec.planted is None:
        return None
    return Shortcut.draw(spec.planted, spec.size, spec.channels, np.random.default_rng([spec.seed, 1]))


def make_case(seed: int, folder: Path) -> dict[str, Any]:
    """Draw the data, train the model, decide about use, and write all of it; a case that is there is read.

    Writes model.keras, images/<class>/<number>.png of the held-out data, and last case.json.

    Returns:
        What case.json holds: the spec's fields, places, use and accuracy.
    """
    description = folder / "case.json"
    if description.exists():
        return json.loads(description.read_text())
    spec = Spec.draw(seed)
    shortcut = draw_shortcut(spec)
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    data = draw_data(spec, shortcut, TRAINING_IMAGES, held_out=False)
    model = networks.build(spec.network, spec.size, spec.channels, len(spec.classes))
    networks.train(model, data.images / np.float32(255), data.labels)
    test = draw_data(spec, shortcut, TEST_IMAGES, held_out=True)
    found = describe(spec, shortcut, model, test)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    _write_images(folder / "images", test)
    description.write_text(json.dumps(found, indent=1) + "\n")
    return json.loads(description.read_text())


def describe(
    spec: Spec, shortcut: Shortcut | None, model: keras.Model, test: Counterfactuals
) -> dict[str, Any]:
    """What case.json holds of a trained model."""

    def predict(images: np.ndarray) -> np.ndarray:
        return np.asarray(model(images / np.float32(255))).argmax(axis=1)

    without, planted, shown = predict(test.without), predict(test.planted), predict(test.images)
    outputs = range(len(spec.classes))
    uses = [Use.measure(without, planted, test.labels, output, len(outputs)) for output in outputs]
    use = uses[spec.output] if spec.output is not None else max(uses, key=lambda use: use.effect)
    places: tuple[Place, ...] = shortcut.places if shortcut else ()
    return {
        **asdict(spec),
        "places": [asdict(place) for place in places],
        **asdict(use),
        "effect": use.effect,
        "used": spec.kind in KINDS and use.effect >= USED,
        "accuracy": float(np.mean(shown == test.labels)),
        "accuracy_without": float(np.mean(without == test.labels)),
    }


def read_images(folder: Path) -> np.ndarray:
    """The held-out data of the case in `folder`, (n, height, width, channel) uint8, by file name."""
    paths = sorted((folder / "images").glob("*/*.png"), key=lambda path: path.name)
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    return images if images.ndim == 4 else images[..., None]


def _as_bytes(images: np.ndarray) -> np.ndarray:
    return np.rint(images * 255).astype(np.uint8)


def _write_images(folder: Path, data: Counterfactuals) -> None:
    """PNG files; a name says nothing of whether the image carries the shortcut."""
    for number, (pixels, label) in enumerate(zip(data.images, data.labels, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0]).save(path)
