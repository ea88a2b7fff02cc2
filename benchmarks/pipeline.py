"""What the pipeline costs on top of the engine: images per second of whole audits and of a bare loop."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from augnet.opening import open_engine
from augnet.config import load_config
from augnet.run import Run
from augnet.sources import open_source
from augnet.storage.files import OutputFolder
from benchmarks.models import mobilenet, small_cnn
from benchmarks.results import write_section
from pipeline.audit import run_audit

CASES = (("CNN, 64x64x3, 10 outputs", 64, 6144), ("MobileNetV2, 224x224x3, 10 outputs", 224, 512))


def main() -> None:
    """Write the section `pipeline` of RESULTS.md."""
    lines = [
        "`python -m benchmarks pipeline`: a whole audit, from the call to the finished report, against a "
        "bare loop of the compiled engine over the same images, already decoded. In process, two threads.",
        "",
        "| model | images | store.jacobians | bare loop, images/s | audit, images/s | share |",
        "|---|---|---|---|---|---|",
    ]
    for name, size, count in CASES:
        model = small_cnn(size, 10) if size == 64 else mobilenet(size, 10)
        with tempfile.TemporaryDirectory(prefix="augnet-pipeline-") as scratch:
            _make_images(Path(scratch) / "images", size, count)
            model.save(Path(scratch) / "model.keras")
            for stored in ("none", "all"):
                audit, bare = _audit_and_bare_loop(Path(scratch), model, stored)
                share = f"{count / audit:.1f} | {bare / audit:.0%}"
                lines.append(f"| {name} | {count} | {stored} | {count / bare:.1f} | {share} |")
    write_section("Pipeline overhead", lines)


def _audit_and_bare_loop(folder: Path, model: keras.Model, stored: str) -> tuple[float, float]:
    """Seconds of a whole audit, and of the engine alone over the same images."""
    output = str(folder / f"audit-{stored}")
    config = load_config(
        flags={
            "model.path": str(folder / "model.keras"),
            "images.path": str(folder / "images"),
            "output": output,
            "store.jacobians": stored,
        }
    )
    began = time.perf_counter()
    run_audit(config, [])
    audit_seconds = time.perf_counter() - began

    run = Run.read(OutputFolder(output))
    engine, preprocess = open_engine(run, model, OutputFolder(output))
    source = open_source(config.images)
    images = np.stack([preprocess(source.read(ref)).image for ref in source.list()])
    no_labels = np.full(len(images), -1, np.int32)
    batches = [slice(i, i + engine.batch_size) for i in range(0, len(images), engine.batch_size)]
    engine.measure(images[batches[0]], no_labels[batches[0]], no_labels[batches[0]])  # compile
    began = time.perf_counter()
    for batch in batches:
        engine.measure(images[batch], no_labels[batch], no_labels[batch])
    bare_seconds = time.perf_counter() - began
    shutil.rmtree(output)
    return audit_seconds, bare_seconds


def _make_images(folder: Path, size: int, count: int) -> None:
    """Smooth pictures with some noise: they decode at the speed of photographs."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{index:06d}.jpg", quality=90)


if __name__ == "__main__":
    main()
