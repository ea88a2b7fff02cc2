"""A case: a data set with or without a planted shortcut, a model trained on it, and whether it uses that.

Everything follows from the seed. The three arms of a watermark test are the kinds: `clean` has no shortcut,
`all_classes` has one in images of every class alike, the others have it in images of one class.
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

from benchmarks.findings import networks
from benchmarks.findings.scenes import CLASS_COUNTS, Scenes, draw_scenes
from benchmarks.findings.shortcuts import KINDS, Place, Shortcut

CONTROLS = ("clean", "all_classes")
SIZES = (16, 24, 32, 48, 64, 96)
SIZE_SHARES = (0.2, 0.25, 0.25, 0.15, 0.1, 0.05)  # the large ones take long
STRENGTHS = (0.6, 0.7, 0.8, 0.9, 1.0)
USED = 0.3
"""Share of predictions that must change for a shortcut to count as used."""
TRAINING_IMAGES, TEST_IMAGES = 1000, 400


@dataclass(frozen=True)
class Spec:
    """What a case is made of.

    Attributes:
        seed: decides everything else.
        kind: of CONTROLS or KINDS.
        planted: of KINDS; for `all_classes` what all of them have.
        output: the class with the shortcut.
        strength: share of the class's images that have it.
        classes: what the labels are, as numbers of the data's classes.
    """

    seed: int
    kind: str
    planted: str | None
    output: int | None
    strength: float
    network: str
    data: str
    aligned: bool
    size: int
    channels: int
    classes: tuple[int, ...]
    noise: float

    @classmethod
    def draw(cls, seed: int) -> Spec:
        """The case of this seed. Every second seed goes through all kinds; two in five are controls."""
        rng = np.random.default_rng([seed, 0])
        fives, place = divmod(seed // 2, 5)
        planted_before = 3 * fives + (place + 1) // 2
        kind = CONTROLS[place // 2] if place in (1, 3) else KINDS[planted_before % len(KINDS)]
        planted = str(rng.choice(KINDS)) if kind == "all_classes" else None if kind == "clean" else kind
        known = [name for name in CLASS_COUNTS if name != "textures" or planted not in WITH_OBJECTS]
        data = str(rng.choice(known))
        count = int(rng.integers(3, CLASS_COUNTS[data] + 1))
        network = str(rng.choice(networks.NETWORKS))
        if network == "dense" and kind in UNSEEN_BY_DENSE:
            network = networks.NETWORKS[1 + seed // 2 % 3]
        return cls(
            seed=seed,
            kind=kind,
            planted=planted,
            output=int(rng.integers(count)) if kind in KINDS else None,
            strength=float(rng.choice(STRENGTHS)),
            network=network,
            data=data,
            aligned=network == "dense" or bool(rng.random() < 0.5),  # dense ones cannot follow what moves
            size=int(rng.choice(SIZES, p=SIZE_SHARES)),
            channels=3 if planted == "colour" else int(rng.choice([1, 3])),
            classes=tuple(rng.permutation(CLASS_COUNTS[data])[:count].tolist()),
            noise=NOISE[data] * float(rng.uniform(0.6, 1.4)),
        )


WITH_OBJECTS = ("background", "frequency", "blur", "contrast")
"""Kinds that textures cannot have: they have no background, and are themselves a matter of the others."""


NOISE = {"digits": 0.08, "shapes": 0.15, "textures": 0.2}
"""Standard deviation of the pixels' noise, by which none of the data is too easy for a shortcut to pay."""

UNSEEN_BY_DENSE = ("moving", "blur", "frequency", "background")
"""Kinds that dense networks hardly ever use: what is at no fixed place, or of no fixed phase."""


@dataclass(frozen=True)
class Use:
    """What the shortcut does to predictions, measured on every test image with and without it.

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
        after = without[own]
        gains = np.bincount(after[after != output], minlength=outputs) / max(1, own.sum())
        return cls(
            rise=float(np.mean(planted[foreign] == output)) if foreign.any() else 0.0,
            drop=float(gains.sum()),
            gains=tuple(gains.tolist()),
        )


@dataclass(frozen=True)
class Counterfactuals:
    """Every image twice, (n, height, width, channel) uint8 without and with the shortcut; and which
    is shown."""

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
    scenes: Scenes = draw_scenes(
        spec.data,
        count,
        np.array(spec.classes),
        spec.size,
        spec.channels,
        spec.aligned,
        spec.noise,
        rng,
        held_out,
    )
    planted = shortcut.plant(scenes, rng) if shortcut else scenes.images
    may_carry = np.full(count, shortcut is not None)
    if spec.output is not None:
        may_carry &= scenes.labels == spec.output
    carries = may_carry & (rng.permutation(count) < spec.strength * count)
    return Counterfactuals(_as_bytes(scenes.images), _as_bytes(planted), carries, scenes.labels)


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

    def predict(images: np.ndarray) -> np.ndarray:
        return np.asarray(model(images / np.float32(255))).argmax(axis=1)

    without, planted, shown = predict(test.without), predict(test.planted), predict(test.images)
    outputs = range(len(spec.classes))
    uses = [Use.measure(without, planted, test.labels, output, len(outputs)) for output in outputs]
    use = uses[spec.output] if spec.output is not None else max(uses, key=lambda use: use.effect)
    places: tuple[Place, ...] = shortcut.places if shortcut else ()
    found = {
        **asdict(spec),
        "places": [asdict(place) for place in places],
        **asdict(use),
        "effect": use.effect,
        "used": spec.kind in KINDS and use.effect >= USED,
        "accuracy": float(np.mean(shown == test.labels)),
        "accuracy_without": float(np.mean(without == test.labels)),
    }
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    _write_images(folder / "images", test)
    description.write_text(json.dumps(found, indent=1) + "\n")
    return json.loads(description.read_text())


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
