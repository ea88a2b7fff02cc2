"""A random sample of an audit's images, audited and thrown away: what an image takes of time and of disk."""

from __future__ import annotations

import random
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from augnet.audits.records import REF_COLUMNS, refs_of
from augnet.audits.run import Run
from augnet.audits.worker import open_engine
from augnet.engine import Choice, InspectedModel
from augnet.errors import ImageError
from augnet.sources import ImageRef, Source
from augnet.storage.files import OutputFolder
from augnet.storage.shards import open_jacobian_writer

IMAGES = 64
SECONDS = 10.0
"""A sample ends at so many images, or after so long; 64 images compress as all do, to a few %."""


@dataclass(frozen=True)
class Sample:
    """What was seen of some images.

    Attributes:
        images, failing: images tried, and those of them that would be failures.
        seconds: of reading, decoding and computing, noisy copies too, in one process, for each image tried;
            None where none can be read.
        disk_bytes: of the shards, for each image tried; None where none can be read.
        forward_seconds: of a forward pass alone; None likewise, or where no findings are sought.
    """

    images: int
    failing: int
    seconds: float | None
    disk_bytes: float | None
    forward_seconds: float | None
    batch_size: int
    choice: Choice


def take_sample(run: Run, model: InspectedModel, source: Source, plan: Path) -> Sample:
    """Audit a sample of the images in the table `plan`, and keep nothing.

    The first batch is computed twice, since its first time is that of a compiler too.
    """
    store = run.config.store
    images = failing = 0
    spent = 0.0
    with tempfile.TemporaryDirectory() as scratch:
        engine, preprocess = open_engine(run, model, OutputFolder(scratch))
        shard = Path(scratch) / "shard"
        writer = open_jacobian_writer(store.format, shard, engine.layout.stored_shape[1:], store.dtype)
        refs = _some_refs(plan, source, max(IMAGES // engine.batch_size, 1) * engine.batch_size)
        while batch := refs[images : images + engine.batch_size]:
            began, readable = time.perf_counter(), []
            for ref in batch:
                with suppress(ImageError):
                    readable.append(preprocess(source.read(ref)).image)
            spent += time.perf_counter() - began
            if readable:
                pixels = np.stack(readable)
                if failing == images:
                    engine.measure(pixels)
                began = time.perf_counter()
                measured = engine.measure(pixels)
                spent += time.perf_counter() - began
                if measured.rows is not None:
                    writer.write([str(index) for index in range(len(pixels))], measured.stored, measured.rows)
            images, failing = images + len(batch), failing + len(batch) - len(readable)
            if spent > SECONDS:
                break
        writer.close()
        forward = None
        copies = len(run.config.statistics.noise) * run.config.statistics.noise_copies
        if (run.config.findings.enabled or copies) and failing < images:
            engine.outputs(pixels)
            began = time.perf_counter()
            engine.outputs(pixels)
            forward = (time.perf_counter() - began) / len(pixels)
        written = shard.stat().st_size if store.jacobians else 0
    known = failing < images
    return Sample(
        images=images,
        failing=failing,
        seconds=spent / images + copies * (forward or 0.0) if known else None,
        disk_bytes=written / images if known else None,
        forward_seconds=forward if run.config.findings.enabled else None,
        batch_size=engine.batch_size,
        choice=engine.choice(),
    )


def _some_refs(plan: Path, source: Source, count: int) -> list[ImageRef]:
    """Images of the plan in random order, always the same; the first ones where others are slow to reach."""
    with pq.ParquetFile(plan) as file:
        total, unit_size = file.metadata.num_rows, file.metadata.row_group(0).num_rows
        first = _planned(file, 0)
        if source.reads_forward(first[0]):
            return first[:count]
        chosen = random.Random(0).sample(range(total), min(count, total))
        units = {unit: _planned(file, unit) for unit in {index // unit_size for index in chosen}}
    return [units[index // unit_size][index % unit_size] for index in chosen]


def _planned(plan: pq.ParquetFile, unit: int) -> list[ImageRef]:
    return refs_of(plan.read_row_group(unit, columns=[*REF_COLUMNS]))
