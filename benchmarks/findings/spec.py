"""What a case is made of, drawn from its seed.

The three arms of a watermark test are the kinds: `clean` has no shortcut, `all_classes` has one in images of
every class alike, the others have it in images of one class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PLACES = ("corner", "edge", "inside", "line", "watermark", "several")
"""Kinds at fixed places: patches, a line of one pixel along a side, a faint mark, several patches at once."""
KINDS = (*PLACES, "moving", "colour", "brightness", "contrast", "blur", "frequency", "background")
CONTROLS = ("clean", "all_classes")
WITH_OBJECTS = ("background", "frequency", "blur", "contrast")
"""Kinds that textures cannot have: they have no background, and are themselves a matter of the others."""

NETWORKS = ("dense", "pooled", "residual", "attention")
UNSEEN_BY_DENSE = ("moving", "blur", "frequency", "background")
"""Kinds that dense networks hardly ever use: what is at no fixed place, or of no fixed phase."""

CLASS_COUNTS = {"digits": 10, "shapes": 10, "textures": 8}
NOISE = {"digits": 0.08, "shapes": 0.15, "textures": 0.35}
"""Standard deviation of the pixels' noise, by which none of the data is too easy for a shortcut to pay."""

SIZES = (16, 24, 32, 48, 64, 96)
SIZE_SHARES = (0.25, 0.25, 0.25, 0.15, 0.07, 0.03)  # the large ones take long
STRENGTHS = (0.6, 0.7, 0.8, 0.9, 1.0)
ALONE = (0.0, 0.2, 0.4)
"""Shares of the images with the shortcut in which nothing else tells the class, so that models use it."""


@dataclass(frozen=True)
class Spec:
    """What a case is made of.

    Attributes:
        seed: decides everything else.
        kind: of CONTROLS or KINDS.
        planted: of KINDS; for `all_classes` what all of them have.
        output: the class with the shortcut.
        strength: share of the class's images that have it.
        alone: share of those that show an object of another class.
        data: a key of CLASS_COUNTS.
        aligned: objects lie in the middle and fill the image; else they are smaller and lie anywhere.
        size: height and width of the images.
        classes: what the labels 0, 1, ... are, as numbers below CLASS_COUNTS[data].
        noise: standard deviation of the pixels' noise.
    """

    seed: int
    kind: str
    planted: str | None
    output: int | None
    strength: float
    alone: float
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
        network = str(rng.choice(NETWORKS))
        if network == "dense" and kind in UNSEEN_BY_DENSE:
            network = NETWORKS[1 + seed // 2 % 3]
        return cls(
            seed=seed,
            kind=kind,
            planted=planted,
            output=int(rng.integers(count)) if kind in KINDS else None,
            strength=float(rng.choice(STRENGTHS)),
            alone=float(rng.choice(ALONE)),
            network=network,
            data=data,
            aligned=network == "dense" or bool(rng.random() < 0.5),  # dense ones cannot follow what moves
            size=int(rng.choice(SIZES, p=SIZE_SHARES)),
            channels=3 if planted == "colour" else int(rng.choice([1, 3])),
            classes=tuple(rng.permutation(CLASS_COUNTS[data])[:count].tolist()),
            noise=NOISE[data] * float(rng.uniform(0.6, 1.4)),
        )
