"""Peak memory of an audit of 2,000 and of 20,000 small images: it must not grow with the dataset."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.models import small_cnn
from benchmarks.results import write_section

COUNTS = (2_000, 20_000)
SIZE = 32


def main() -> None:
    """Write the section `memory` of RESULTS.md."""
    with tempfile.TemporaryDirectory(prefix="augnet-memory-") as scratch:
        folder = Path(scratch)
        small_cnn(SIZE, 10).save(folder / "model.keras")
        _make_images(folder / "images", max(COUNTS))
        rows = []
        for stored in ("none", "all"):
            peaks = [_peak_megabytes(folder, count, stored) for count in COUNTS]
            rows.append((stored, *peaks, peaks[1] / peaks[0]))
    lines = [
        f"`python -m benchmarks memory`: peak resident memory of `augnet audit`, {SIZE}x{SIZE}x3 images, CNN "
        "with 10 outputs, the same folder with `--images.limit`.",
        "",
        f"| store.jacobians | {COUNTS[0]:,} images | {COUNTS[1]:,} images | ratio |",
        "|---|---|---|---|",
        *(f"| {stored} | {a:.0f} MB | {b:.0f} MB | {ratio:.2f} |" for stored, a, b, ratio in rows),
    ]
    write_section("Memory", lines)


def _make_images(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(count):
        path = folder / f"class{index % 10}" / f"{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(path, compress_level=1)


def _peak_megabytes(folder: Path, count: int, stored: str) -> float:
    command = [sys.executable, "-m", "pipeline", "audit", "--log-level=warning"]
    command += ["--model", str(folder / "model.keras"), "--images", str(folder / "images")]
    command += ["--output", str(folder / f"audit-{count}-{stored}")]
    command += [f"--images.limit={count}", f"--store.jacobians={stored}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
