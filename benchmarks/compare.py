"""What `augnet compare` takes for a million images a side: time and peak memory, in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.results import write_section

IMAGES = 1_000_000
LABELS = 1000
CAMERAS, SITES = 7, 50
"""Values of the metadata."""
UNIT = 512
"""Images in a file, as an audit writes them."""


def main() -> None:
    """Write the section `Comparison` of RESULTS.md."""
    with tempfile.TemporaryDirectory(prefix="augnet-compare-") as scratch:
        for seed, name in enumerate(("before", "after")):
            write_audit(Path(scratch, name), IMAGES, seed)
        write_results(measure(scratch))


def write_results(found: dict[str, Any]) -> None:
    """The section, from what `measure` found."""
    lines = [
        f"`python -m benchmarks compare`: two synthetic audits of {IMAGES:,} images each, of {LABELS:,} "
        f"labels and with metadata of {CAMERAS} and {SITES} values, without Jacobians; every figure and "
        "slice with its interval of 10,000 resamples; in a process of its own.",
        "",
        "| what | figure |",
        "|---|---|",
        f"| time | {found['seconds']:.0f} s |",
        f"| processor time | {found['processor_seconds']:.0f} s |",
        f"| peak memory | {found['peak_bytes'] / 2**30:.2f} GiB |",
    ]
    write_section("Comparison", lines)


def measure(folder: str) -> dict[str, Any]:
    """Compare the audits `before` and `after` of a folder in another process."""
    command = [sys.executable, "-m", "benchmarks.compare", folder]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def compare_here(folder: str) -> dict[str, Any]:
    """The comparison, its time and the peak memory of this process."""
    from augnet.comparison.run import compare

    began, used = time.perf_counter(), time.process_time()
    outcome = compare([f"{folder}/before", f"{folder}/after"], output=f"{folder}/comparison")
    return {
        "images": len(outcome.comparison.images),
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - used,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def write_audit(path: Path, images: int, seed: int) -> None:
    """The files of an audit that a comparison reads, with random figures: the same images, another model."""
    from augnet.config import config_json, load_config
    from augnet.storage import names, schema
    from augnet.storage.catalog import SCALARS
    from augnet.storage.files import OutputFolder
    from augnet.storage.shards import write_table

    folder, rng = OutputFolder(str(path)), np.random.default_rng(seed)
    units = -(-images // UNIT)
    for unit in range(units):
        numbers = np.arange(unit * UNIT, min(images, (unit + 1) * UNIT))
        n, labels = len(numbers), numbers * LABELS // images
        names_of_labels = [f"class {label:03d}" for label in labels]
        predicted = np.where(rng.random(n) < 0.8, labels, rng.integers(0, LABELS, n))
        paths = [f"{name}/{k:07d}.jpg" for name, k in zip(names_of_labels, numbers, strict=True)]
        columns: dict[str, Any] = {
            **{field.name: pa.nulls(n, field.type) for field in schema.STATISTICS},
            **{name: rng.lognormal(0, 0.5, n) for name in SCALARS},
            "image_id": paths,
            "uri": paths,
            "label": names_of_labels,
            "metadata": [[("camera", f"{k % CAMERAS}"), ("site", f"{k % SITES}")] for k in numbers],
            "predicted": predicted.astype(np.int32),
            "correct": predicted == labels,
        }
        with folder.writing(names.shard("statistics", unit, units)) as file:
            write_table(file, pa.table(columns, schema.STATISTICS))
    keys = {"model.path": "model.keras", "images.path": "images", "output": str(path)}
    shape = {"input_shape": [224, 224, 3], "output_count": LABELS, "activation": "softmax", "space": "logits"}
    run = {
        "fingerprint": str(seed),
        "identity": {"model": str(seed), "images": "", "config": {"model": {}}},
        "config": config_json(load_config(flags=keys | {"store.jacobians": "none"})),
        "model": shape,
        "preprocess": {"scale": "unit"},
        "label_outputs": {f"class {label:03d}": label for label in range(LABELS)},
    }
    folder.write_sealed(names.RUN, run)
    statistics = {name: {"count": images} for name in SCALARS}
    summary = {"images": images, "failures": 0, "judged": images, "statistics": statistics}
    folder.write_json(names.SUMMARY, summary)
    folder.write_json(names.FINDINGS, {"confirmed": [], "looks_at": [], "tried": []})
    folder.write_sealed(names.MANIFEST, {})


if __name__ == "__main__":
    print(json.dumps(compare_here(sys.argv[1])))
