"""What the pipeline costs on top of the engine: images per second of whole audits and of a bare loop."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from augnet.audits.run import Run
from augnet.audits.worker import model_of, open_engine
from augnet.config import Config, load_config
from augnet.sources import open_source
from augnet.storage.files import OutputFolder
from benchmarks.models import mobilenet, small_cnn
from benchmarks.results import write_section
from pipeline.audit import run_audit
from pipeline.runners import make_options

CASES = (
    ("CNN, 64x64x3, 10 outputs", small_cnn, 64, (1024, 6144)),
    ("MobileNetV2, 224x224x3, 10 outputs", mobilenet, 224, (64, 256)),
)
ROUNDS = 3
REPORT_IMAGES = 100
"""Fewer than by default: the cost of pictures grows up to 2,000 images, and then no more."""


def main() -> None:
    """Write the section `Pipeline overhead` of RESULTS.md."""
    lines = [
        "`python -m benchmarks pipeline`: whole audits of two sizes, in process with two threads, against a "
        "bare loop of the compiled engine over the same images, already decoded. The rate of the audit is "
        "that of the images by which the larger is larger; what both spend on starting and ending stands "
        f"beside it; the report has {REPORT_IMAGES} images, and findings, which have a budget of their own, "
        f"are off. Audits and bare loop take turns, {ROUNDS} times; shown are the medians.",
        "",
        "| model | images | stored | bare loop, images/s | audit, images/s | share | start and end |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, build, size, counts in CASES:
        model = build(size, 10)
        with tempfile.TemporaryDirectory(prefix="augnet-pipeline-") as scratch:
            folder = Path(scratch)
            _make_images(folder / "images", size, counts[1])
            model.save(folder / "model.keras")
            for stored in ("none", "all"):
                _audit_seconds(folder, 32, stored)  # what the engine chooses by timing, it chooses here
                rounds = [_round(folder, counts, stored) for _ in range(ROUNDS)]
                print(name, stored, rounds, flush=True)
                bare, rate, share, fixed = (statistics.median(column) for column in zip(*rounds, strict=True))
                lines.append(
                    f"| {name} | {counts[0]}, {counts[1]} | {stored} | {bare:.1f} | {rate:.1f} "
                    f"| {share:.0%} | {fixed:.1f} s |"
                )
    write_section("Pipeline overhead", lines)


def _round(folder: Path, counts: tuple[int, int], stored: str) -> tuple[float, float, float, float]:
    """Images per second of the bare loop and of an audit, the share, and the seconds that it takes beside."""
    small = _audit_seconds(folder, counts[0], stored)
    before = _bare_rate(folder, counts[0], stored)
    large = _audit_seconds(folder, counts[1], stored)
    bare = (before + _bare_rate(folder, counts[0], stored)) / 2
    rate = (counts[1] - counts[0]) / (large - small)
    return bare, rate, rate / bare, small - counts[0] / rate


def _config(folder: Path, count: int, stored: str) -> Config:
    return load_config(
        flags={
            "model.path": str(folder / "model.keras"),
            "images.path": str(folder / "images"),
            "images.limit": count,
            "output": str(folder / "audit"),
            "store.jacobians": stored,
            "report.images": REPORT_IMAGES,
            "findings.enabled": False,
        }
    )


def _audit_seconds(folder: Path, count: int, stored: str) -> float:
    """Of a whole audit, from the call to the finished report."""
    shutil.rmtree(folder / "audit", ignore_errors=True)
    began = time.perf_counter()
    run_audit(_config(folder, count, stored), make_options([], {}))
    return time.perf_counter() - began


def _bare_rate(folder: Path, count: int, stored: str) -> float:
    """Images per second of the engine alone, in the batches and by the choices of the audit before."""
    config, output = _config(folder, count, stored), OutputFolder(str(folder / "audit"))
    run = Run.read(output)
    engine, preprocess = open_engine(run, model_of(run), output)
    source = open_source(config.images)
    images = np.stack([preprocess(source.read(ref)).image for ref in source.list()])
    batches = [images[i : i + engine.batch_size] for i in range(0, len(images), engine.batch_size)]
    engine.measure(batches[0])  # compiles
    began = time.perf_counter()
    for batch in batches:
        engine.measure(batch)
    return len(images) / (time.perf_counter() - began)


def _make_images(folder: Path, size: int, count: int) -> None:
    """Smooth pictures with some noise: they decode at the speed of photographs."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{index:06d}.jpg", quality=90)


if __name__ == "__main__":
    main()
