"""Noise images, on which models are looked at and programs are compared; and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from augnet.engine.types import Tensors

PROBES = 4
"""Enough to tell a kink in some from a fault in all."""


def probe_images(shape: tuple[int, ...], raw: bool, dtype: str) -> np.ndarray:
    """Noise images (PROBES, *shape), in [0, 1] or, for raw pixels, in 0..255; the same every time."""
    noise = np.random.default_rng(0).uniform(0, 255 if raw else 1, (PROBES, *shape))
    return noise.astype(dtype)


def outputs_of(function: Callable[[Tensors], Tensors], given: Any) -> list[np.ndarray]:
    """What a function makes of arrays in any structure: all tensors of its own structure, as float64."""
    made = keras.tree.flatten(function(keras.tree.map_structure(keras.ops.convert_to_tensor, given)))
    return [np.asarray(keras.ops.convert_to_numpy(tensor), dtype=np.float64) for tensor in made]
