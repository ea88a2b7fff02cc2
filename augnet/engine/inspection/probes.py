"""Noise images, on which models are looked at and programs are compared."""

from __future__ import annotations

import numpy as np

PROBES = 4
"""Enough to tell a kink in some from a fault in all."""


def probe_images(shape: tuple[int, ...], raw: bool, dtype: str) -> np.ndarray:
    """Noise images (PROBES, *shape), in [0, 1] or, for raw pixels, in 0..255; the same every time."""
    noise = np.random.default_rng(0).uniform(0, 255 if raw else 1, (PROBES, *shape))
    return noise.astype(dtype)
