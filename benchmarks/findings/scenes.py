"""Images of known classes, drawn in code: handwritten digits, shapes and textures, with nothing planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from benchmarks.findings.spec import Spec

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]

SHAPES: tuple[Field, ...] = (
    lambda u, v: u**2 + v**2 < 0.8,  # disc
    lambda u, v: np.maximum(abs(u), abs(v)) < 0.75,  # square
    lambda u, v: (v < 0.7) & (v > 1.7 * abs(u) - 0.9),  # triangle
    lambda u, v: (np.minimum(abs(u), abs(v)) < 0.25) & (np.maximum(abs(u), abs(v)) < 0.9),  # cross
    lambda u, v: (u**2 + v**2 < 0.85) & (u**2 + v**2 > 0.3),  # ring
    lambda u, v: abs(u) + abs(v) < 1,  # diamond
    lambda u, v: (abs(v) < 0.3) & (abs(u) < 0.95),  # bar
    lambda u, v: (abs(u) < 0.3) & (abs(v) < 0.95),  # pillar
    lambda u, v: (u**2 + v**2 < 0.9) & (v > 0),  # half a disc
    lambda u, v: (abs(abs(u) - abs(v)) < 0.3) & (np.maximum(abs(u), abs(v)) < 0.8),  # a cross on its side
)
"""Where a shape is, on coordinates in -1 .. 1 across and down."""

TEXTURES: tuple[Field, ...] = (
    lambda u, v: np.sin(u),
    lambda u, v: np.sin(v),
    lambda u, v: np.sin(0.7 * (u + v)),
    lambda u, v: np.sin(0.7 * (u - v)),
    lambda u, v: np.sin(u) * np.sin(v),
    lambda u, v: np.maximum(np.sin(u), np.sin(v)),
    lambda u, v: np.sin(u + 1.5 * np.sin(v)),
    lambda u, v: np.sin(np.hypot(u, v)),
)
"""Patterns in -1 .. 1 on coordinates in radians, of one range of frequencies: no class has its own."""


@dataclass(frozen=True)
class Scenes:
    """Images without a shortcut.

    Attributes:
        images: (n, height, width, channel) float32 in [0, 1].
        objects: (n, height, width) float32 in [0, 1], how much of a pixel the object covers.
    """

    images: np.ndarray
    objects: np.ndarray


def draw_scenes(spec: Spec, shown: np.ndarray, rng: np.random.Generator, held_out: bool) -> Scenes:
    """Scenes of these classes; their colours, noise and backgrounds say nothing about the class.

    Args:
        shown: (n,) class number of each image's object.
        held_out: whether digits are drawn that are kept for tests.
    """
    size, channels, count = spec.size, spec.channels, len(shown)
    kinds = np.array(spec.classes)[shown]
    if spec.data == "textures":
        covered = _textures(kinds, size, rng)
    else:
        side = size if spec.aligned else max(12, round(0.7 * size))
        drawn = _digits(kinds, side, rng, held_out) if spec.data == "digits" else _shapes(kinds, side, rng)
        covered = _placed(drawn, size, rng)
    ink = rng.choice([-1.0, 1.0], count) if spec.data == "shapes" else np.ones(count)
    strength = ink[:, None] * rng.uniform(0.2, 0.35, (count, 1)) * rng.uniform(0.8, 1.2, (count, channels))
    level = rng.uniform(0.35, 0.5, (count, 1)) + rng.uniform(-0.05, 0.05, (count, channels))
    images = level[:, None, None] + covered[..., None] * strength[:, None, None]
    images += 0.04 * smooth_noise(count, size, rng)[..., None]
    images += spec.noise * rng.standard_normal(images.shape, np.float32)
    objects = np.ones_like(covered) if spec.data == "textures" else covered
    return Scenes(np.clip(images, 0, 1).astype(np.float32), objects.astype(np.float32))


def smooth_noise(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """(count, size, size) of clouds with about unit spread."""
    return _resized(rng.standard_normal((count, 5, 5)), size)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    factors = (1, size / images.shape[1], size / images.shape[2])
    return zoom(images, factors, order=1, grid_mode=True, mode="nearest")


def _digits(kinds: np.ndarray, side: int, rng: np.random.Generator, held_out: bool) -> np.ndarray:
    data = load_digits()
    usable = (np.arange(len(data.target)) % 4 == 3) == held_out
    chosen = [rng.choice(np.flatnonzero(usable & (data.target == kind))) for kind in kinds]
    return np.clip(_resized(data.images[chosen] / 16, side), 0, 1)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates across and down, -1 .. 1."""
    steps = (np.arange(side) + 0.5) / side * 2 - 1
    return np.broadcast_to(steps, (side, side)), np.broadcast_to(steps[:, None], (side, side))


def _shapes(kinds: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    across, down = _grid(side)
    drawn = []
    for kind in kinds:
        turn, radius, stretch = rng.uniform(-0.3, 0.3), rng.uniform(0.55, 0.85), rng.uniform(0.85, 1.15)
        u = (np.cos(turn) * across - np.sin(turn) * down) / radius * stretch
        v = (np.sin(turn) * across + np.cos(turn) * down) / radius
        drawn.append(SHAPES[kind](u, v))
    return np.array(drawn, float)


def _textures(kinds: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    across, down = _grid(size)
    drawn = []
    for kind in kinds:
        cycles, (right, below) = rng.uniform(1.5, 3.5), rng.uniform(-1, 1, 2)
        drawn.append(TEXTURES[kind](np.pi * cycles * (across - right), np.pi * cycles * (down - below)))
    waves = np.array(drawn)
    waves -= waves.mean(axis=(1, 2), keepdims=True)  # else brightness and contrast would tell the classes
    return 0.6 * waves / waves.std(axis=(1, 2), keepdims=True)


def _placed(drawn: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Each picture somewhere on an empty one of this size."""
    side = drawn.shape[1]
    placed = np.zeros((len(drawn), size, size))
    corners = rng.integers(0, size - side + 1, (len(drawn), 2))
    for picture, target, (y, x) in zip(drawn, placed, corners, strict=True):
        target[y : y + side, x : x + side] = picture
    return placed
