"""What can be planted: every kind of shortcut, as a change to images that can be made to any of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.findings.scenes import Scenes
from benchmarks.findings.spec import PLACES


@dataclass(frozen=True)
class Place:
    """A rectangle of pixels."""

    y: int
    x: int
    height: int
    width: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True)
class Shortcut:
    """One kind with all that was drawn for it.

    Attributes:
        kind: of spec.KINDS.
        places: where it lies; empty for what has no fixed place.
        colour: (channel,) of patches and lines, or what a cast adds to each channel.
        amount: brightness that is added, factor of the contrast, standard deviation of the blur in pixels,
            amplitude of patterns; side of a moving patch in pixels.
        cycles: of patterns, along a side.
    """

    kind: str
    places: tuple[Place, ...]
    colour: np.ndarray
    amount: float
    cycles: float

    @classmethod
    def draw(cls, kind: str, size: int, channels: int, rng: np.random.Generator) -> Shortcut:
        """A shortcut of this kind for images of this size."""
        bright = rng.random() < 0.7
        colour = np.full(channels, 0.95 if bright else 0.03)
        if channels == 3 and rng.random() < 0.5 and kind != "watermark":
            colour[rng.integers(3)] = 0.03 if bright else 0.9
        amount = 0.0
        if kind == "colour":
            colour = rng.permutation([0.12, 0.0, -0.12])
        elif kind == "brightness":
            amount = rng.choice([-0.22, 0.22])
        elif kind == "contrast":
            amount = rng.choice([0.3, 2.0])
        elif kind == "blur":
            amount = max(1.0, size / 24)
        elif kind == "moving":
            amount = _patch_side(size)
        elif kind in ("frequency", "background"):
            amount = rng.uniform(0.15, 0.2)
        cycles = rng.uniform(0.25, 0.4) * size  # finer than objects and textures are
        return cls(kind, _draw_places(kind, size, rng), colour, float(amount), float(cycles))

    def plant(self, scenes: Scenes, rng: np.random.Generator) -> np.ndarray:
        """Every image of the scenes with the shortcut: images (n, height, width, channel) in [0, 1]."""
        images = scenes.images.copy()
        count, size = images.shape[:2]
        if self.kind == "watermark":
            y, x = np.mgrid[:size, :size]
            for rows, columns in (place.pixels for place in self.places):
                strokes = ((x + y) // 2 % 2)[rows, columns, None]  # slanted, as of a word
                images[:, rows, columns] += 0.45 * strokes * (self.colour - images[:, rows, columns])
        elif self.kind in PLACES:
            for rows, columns in (place.pixels for place in self.places):
                images[:, rows, columns] = self.colour
        elif self.kind == "moving":
            side = int(self.amount)
            for image, (y, x) in zip(images, rng.integers(0, size - side + 1, (count, 2)), strict=True):
                image[y : y + side, x : x + side] = self.colour
        elif self.kind == "colour":
            images += self.colour
        elif self.kind == "brightness":
            images += self.amount
        elif self.kind == "contrast":
            mean = images.mean(axis=(1, 2), keepdims=True)
            images = mean + (images - mean) * self.amount
        elif self.kind == "blur":
            images = gaussian_filter(images, (0, self.amount, self.amount, 0))
        elif self.kind == "frequency":  # one band, in a direction of the image's own
            images += self._waves(rng.uniform(0, np.pi, count), size, rng)
        else:  # the same stripes behind every object, at any phase
            stripes = self._waves(np.full(count, np.pi / 4), size, rng)
            images += stripes * (1 - scenes.objects[..., None])
        return np.clip(images, 0, 1).astype(np.float32)

    def _waves(self, direction: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """(n, size, size, 1) plane waves of this amplitude, each at a phase of its own."""
        y, x = np.mgrid[:size, :size] * (2 * np.pi * self.cycles / size)
        across, down = np.cos(direction)[:, None, None], np.sin(direction)[:, None, None]
        phase = rng.uniform(0, 2 * np.pi, (len(direction), 1, 1))
        return self.amount * np.sin(across * x + down * y + phase)[..., None]


def _patch_side(size: int) -> int:
    return max(2, round(size / 8))


def _draw_places(kind: str, size: int, rng: np.random.Generator) -> tuple[Place, ...]:
    side = _patch_side(size)
    if kind == "corner":
        return (_corners(size, side)[rng.integers(4)],)
    if kind == "edge":
        along, end = rng.integers(2 * side, size - 3 * side + 1), rng.choice([0, size - side])
        y, x = (along, end) if rng.random() < 0.5 else (end, along)
        return (Place(int(y), int(x), side, side),)
    if kind == "inside":
        y, x = rng.integers(2 * side, size - 3 * side + 1, 2)
        return (Place(int(y), int(x), side, side),)
    if kind == "line":
        end = int(rng.choice([0, size - 1]))
        return (Place(end, 0, 1, size) if rng.random() < 0.5 else Place(0, end, size, 1),)
    if kind == "watermark":
        height, width = max(3, round(size / 6)), max(5, round(size / 3))
        y, x = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
        return (Place(int(y), int(x), height, width),)
    if kind == "several":
        chosen = rng.permutation(4)[: rng.integers(2, 4)]
        return tuple(_corners(size, side)[k] for k in chosen)
    return ()


def _corners(size: int, side: int) -> list[Place]:
    margin = size // 32
    ends = (margin, size - side - margin)
    return [Place(y, x, side, side) for y in ends for x in ends]
