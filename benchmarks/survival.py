"""How near survival under noise is foretold, against many noisy forward passes of every image.

    python -m benchmarks.survival [--images 200] [--passes 2000] [--write]

The models of both demonstrations, at the noise under which half of the predictions survive.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image

import augnet
from benchmarks.results import write_section
from pipeline.demo import Kind, prepare_demo

BISECTIONS, PASSES_EACH = 12, 50
"""By which the noise is found, and the passes of every image in each of them."""
NAMES = {"tag": "demo, grey digits", "cast": "demo, digits in colour"}


def main(arguments: Sequence[str] = ("--write",)) -> None:
    parser = argparse.ArgumentParser(description="survival under noise, foretold and seen")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--passes", type=int, default=2000)
    parser.add_argument("--write", action="store_true", help="write the results to benchmarks/RESULTS.md")
    options = parser.parse_args(arguments)
    lines = [
        f"`python -m benchmarks.survival`: {options.images} images, each with {options.passes} noisy forward "
        "passes; the mean absolute error of `survival` against the share of them that are predicted as "
        "without noise.",
        "",
        "| model | noise | survive | error with 64 copies | of the Jacobian alone | of the passes |",
        "|---|---|---|---|---|---|",
    ]
    for kind in get_args(Kind):
        with tempfile.TemporaryDirectory() as scratch:
            lines.append(_line(Path(scratch), kind, options.images, options.passes))
    if options.write:
        write_section("Survival under noise", lines)
    else:
        print("\n".join(lines))


def _line(scratch: Path, kind: Kind, count: int, passes: int) -> str:
    path, folder = prepare_demo(scratch, kind=kind)
    model = keras.models.load_model(path)
    files = sorted(folder.glob("*/*.png"), key=lambda file: file.name)
    images = np.stack([_read(file) for file in files[:: len(files) // count][:count]])
    sigma = _where_half_survive(model, images)
    seen = _survival(model, images, sigma, passes, seed=1)
    foretold = []
    for copies in (64, 0):
        keys = {"statistics.noise": [sigma], "statistics.noise_copies": copies}
        keys |= {"findings.enabled": False, "store.jacobians": "none"}
        audit = augnet.audit(model, images, scratch / f"audit{copies}", progress=False, **keys)
        foretold.append(audit.column(f"survival_{sigma:g}").to_numpy())
    own, alone = (np.abs(part - seen).mean() for part in foretold)
    sampling = np.sqrt(2 / np.pi * seen * (1 - seen) / passes).mean()
    return f"| {NAMES[kind]} | {sigma:g} | {seen.mean():.0%} | {own:.3f} | {alone:.3f} | {sampling:.3f} |"


def _read(file: Path) -> np.ndarray:
    """(height, width, channel) float32 in [0, 1]."""
    with Image.open(file) as picture:
        pixels = np.asarray(picture, np.float32) / 255
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _where_half_survive(model: keras.Model, images: np.ndarray) -> float:
    """A standard deviation of noise, rounded to two digits."""
    low, high = 0.0, 8.0
    for seed in range(BISECTIONS):
        middle = (low + high) / 2
        if _survival(model, images, middle, PASSES_EACH, seed).mean() > 0.5:
            low = middle
        else:
            high = middle
    return float(f"{high:.2g}")


def _survival(model: keras.Model, images: np.ndarray, sigma: float, passes: int, seed: int) -> np.ndarray:
    """(n,) the share of noisy copies of images (n, ...) that are predicted as the image itself."""
    rng = np.random.default_rng(seed)
    before = _predicted(model, images)
    same = np.zeros(len(images))
    for _ in range(passes):
        noisy = images + np.float32(sigma) * rng.standard_normal(images.shape, np.float32)
        same += _predicted(model, noisy) == before
    return same / passes


def _predicted(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """(n,) output numbers of images (n, ...)."""
    return np.asarray(model(images)).argmax(axis=-1)


if __name__ == "__main__":
    main(sys.argv[1:])
