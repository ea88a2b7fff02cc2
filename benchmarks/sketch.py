"""What `jacobian.sketch` costs beside all rows, and how often the exact value is within two standard errors.

    python -m benchmarks.sketch [--images 16] [--write]

MobileNetV2 of 96x96 images with 1000 outputs and random weights; 5 rows and 32 combinations against all rows.
Processor time, both measured whole, in turns in one process.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from augnet.engine import Engine, EngineOptions, inspect_model
from augnet.selection import ALL, RowSelection
from augnet.statistics.sketch import estimates
from benchmarks.results import write_section

OUTPUTS, TOP, COMBINATIONS, BATCH, SHAPE = 1000, 5, 32, 2, (96, 96, 3)


def main(arguments: Sequence[str] = ("--write",)) -> None:
    parser = argparse.ArgumentParser(description="estimates from a sketch, against all rows")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--write", action="store_true", help="write the results to benchmarks/RESULTS.md")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(SHAPE, weights=None, classes=OUTPUTS, classifier_activation=None)
    inspected = inspect_model(model)
    top = RowSelection("top", top=TOP)
    common = {"stored": None, "batch_size": BATCH, "map_pool": 4}
    every = Engine(inspected, EngineOptions(outputs=ALL, **common), tuning_seconds=0)
    few = Engine(inspected, EngineOptions(outputs=top, sketch=COMBINATIONS, **common), tuning_seconds=0)
    images = np.random.default_rng(1).uniform(-1, 1, (options.images, *SHAPE)).astype(np.float32)
    for engine in (every, few):
        engine.measure(images[:BATCH])  # compiles
    spent, covered, off = np.zeros(2), {}, {}
    for first in range(0, options.images, BATCH):
        part, found = images[first : first + BATCH], []
        for k, engine in enumerate((every, few)):
            begun = sum(os.times()[:2])
            found.append(engine.measure(part))
            spent[k] += sum(os.times()[:2]) - begun
        exact, sketched = found
        values = np.linalg.eigvalsh(exact.gram)
        truth = {"sketch_frobenius": np.sqrt(values.sum(axis=1)), "sketch_spectral": np.sqrt(values[:, -1])}
        made = estimates(sketched.sketch_gram, sketched.sketch_l1, int(np.prod(SHAPE)))
        for name, value in truth.items():
            estimate, error = made[name]
            covered.setdefault(name, []).extend(np.abs(estimate - value) <= 2 * error)
            off.setdefault(name, []).extend(np.stack([estimate / value - 1, error / value], axis=1))
    every_ms, few_ms = 1e3 * spent / options.images
    rows = f"{TOP} rows and {COMBINATIONS} combinations of {OUTPUTS} outputs"
    lines = [
        f"`python -m benchmarks.sketch`: {rows} take",
        f"{few_ms / every_ms:.1%} of the processor time of all rows, {few_ms:.0f} against {every_ms:.0f} ms "
        "an image, with all measures.",
        "",
        "| estimate | images | within two standard errors | off by, root mean square | standard error |",
        "|---|---|---|---|---|",
    ]
    for name, within in covered.items():
        wrong, error = np.sqrt(np.mean(np.square(off[name]), axis=0))
        lines.append(f"| `{name}` | {len(within)} | {np.mean(within):.0%} | {wrong:.1%} | {error:.1%} |")
    if options.write:
        write_section("Sketch", lines)
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1:])
