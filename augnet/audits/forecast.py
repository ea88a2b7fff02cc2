"""What an audit would do, before it does it: images, bytes, time, and whether it may start at all."""

from __future__ import annotations

import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from augnet.audits.plan import earlier_run, prepare
from augnet.audits.records import REF_COLUMNS, refs_of
from augnet.audits.run import Run
from augnet.audits.sizing import refuse_oversize, stored_bytes
from augnet.audits.worker import open_engine
from augnet.config import Config
from augnet.engine import Choice
from augnet.errors import AugnetError, ImageError
from augnet.sources import ImageRef, open_source
from augnet.storage.files import OutputFolder, private_file


@dataclass(frozen=True)
class Forecast:
    """What `augnet audit` would do with a config.

    Attributes:
        run: as the audit would describe itself.
        stored_bytes: of the Jacobians, before compression.
        seconds: of reading, decoding and computing all images in one process, by one timed batch; None where
            none of the first batch's images can be read.
        sampled, failing: images tried for that batch, and those of them that would be failures.
        refusals: why the audit would not start; empty if it would.
    """

    run: Run
    stored_bytes: int
    batch_size: int
    choice: Choice
    seconds: float | None
    sampled: int
    failing: int
    refusals: tuple[str, ...]


def forecast(config: Config) -> Forecast:
    """Plan an audit, time one batch of it, and write nothing that stays.

    Raises:
        ConfigError: config, model and images do not fit together, so that there is nothing to foresee.
    """
    with private_file(tempfile.gettempdir()) as table, tempfile.TemporaryDirectory() as scratch:
        planned = prepare(config, table)
        run, refusals = planned.run, []
        for rule in (
            lambda: refuse_oversize(config, run.model, run.images),
            lambda: earlier_run(OutputFolder(config.output), run),
        ):
            try:
                rule()
            except AugnetError as error:
                refusals.append(str(error))
        engine, preprocess = open_engine(run, planned.model, OutputFolder(scratch))
        refs = _first_refs(table, engine.batch_size)
        source, images = open_source(config.images), []
        began = time.perf_counter()
        for ref in refs:
            with suppress(ImageError):
                images.append(preprocess(source.read(ref)).image)
        spent, seconds = time.perf_counter() - began, None
        if images:
            engine.measure(batch := np.stack(images))  # the first one compiles
            began = time.perf_counter()
            engine.measure(batch)
            seconds = (spent + time.perf_counter() - began) / len(refs) * run.images
    return Forecast(
        run=run,
        stored_bytes=run.images * stored_bytes(config, run.model),
        batch_size=engine.batch_size,
        choice=engine.choice(),
        seconds=seconds,
        sampled=len(refs),
        failing=len(refs) - len(images),
        refusals=tuple(refusals),
    )


def _first_refs(table: Path, count: int) -> list[ImageRef]:
    with pq.ParquetFile(table) as plan:
        return refs_of(next(plan.iter_batches(count, columns=[*REF_COLUMNS])))
