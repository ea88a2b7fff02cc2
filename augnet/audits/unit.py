"""Auditing one unit: read, decode, differentiate, measure, write. Works without Beam."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from augnet.audits.measure import measure_images
from augnet.audits.noise import NoisyTrials
from augnet.audits.records import REF_COLUMNS, WorkUnit, refs_of, unit_record
from augnet.audits.run import Run
from augnet.audits.worker import model_of, open_engine, source_of
from augnet.engine import Engine, JacobianBatch
from augnet.errors import AuditError, ImageError
from augnet.sources import Encoded, ImageRef, Prepared, Preprocess, Source
from augnet.statistics.aggregate import Aggregate, Shape
from augnet.statistics.gallery import sample_bounds
from augnet.statistics.sample import group_size
from augnet.storage import names, schema
from augnet.storage.addresses import retries
from augnet.storage.catalog import scalars
from augnet.storage.files import OutputFolder, UnitRecord
from augnet.storage.unit import UnitFiles

log = logging.getLogger(__name__)


COUNTED = (
    "images_audited",
    "images_failed",
    "batches",
    "batch_slots",  # images that the batches had room for
    "decode_microseconds",  # summed over the threads that decode
    "compute_microseconds",  # with the waiting for a device that another unit uses
    "write_microseconds",
    "storage_retries",
)
"""What an auditor counts as it works. For progress and metrics; no result depends on it."""

Count = Callable[[str, int], None]


@dataclass(frozen=True)
class Decoded:
    """An image of the plan, ready for the model or failed, and the time that took."""

    ref: ImageRef
    prepared: Prepared | ImageError
    microseconds: int


class Auditor:
    """What a worker process holds: the model once, and the folder that it writes to.

    Safe to use from several threads: while one unit computes, another decodes or writes.
    """

    def __init__(
        self, run: Run, folder: OutputFolder, engine: Engine, preprocess: Preprocess, source: Source
    ):
        self.run, self.folder, self.engine = run, folder, engine
        self.preprocess, self.source = preprocess, source
        self._task = run.task
        self._shape = Shape(
            engine.spec.output_count,
            len(run.mapped_labels),
            *engine.spec.input_shape,
            map_pool=run.map_pool,
            gallery=run.config.report.images,
            sampled=group_size(run.task, run.model.output_count, run.sampled),
            noises=len(run.config.statistics.noise),
            statistics=len(scalars(run.catalog)),
        )
        self._trials = NoisyTrials(engine, run.task, run.config.statistics.noise, run.images)
        self._bounds = sample_bounds(self._shape.gallery, run.images, run.mapped_label_images)
        self._label_ids: dict[str | None, int] = {name: k for k, name in enumerate(run.mapped_labels)}
        self._label_outputs: dict[str | None, int] = {name: k for name, k in run.label_outputs.items()}
        self._plan: pq.FileMetaData | None = None
        threads = max(source.reads_at_once, os.cpu_count() or 1)
        self._decoders = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    @classmethod
    def open(cls, output: str) -> Auditor:
        """The auditor of the run that the folder `output` describes; raises as model_of and open_engine."""
        folder = OutputFolder(output)
        run = Run.read(folder)
        engine, preprocess = open_engine(run, model_of(run), folder)
        return cls(run, folder, engine, preprocess, source_of(run))

    def audit(self, unit: WorkUnit, count: Count = lambda name, amount: None) -> UnitRecord:
        """Audit one unit, or return its record where an earlier attempt has finished it.

        Every file is written whole and under the unit's own name, the record last: doing a unit again,
        anywhere, gives the same files. `count` is told what was done after each batch, under COUNTED's names.

        Raises:
            AuditError: a file cannot be written, or the device has no memory for even one image.
        """
        record = unit_record(self.folder, self.run, unit.unit_id)
        if record and all(self.folder.intact(entry) for entry in record.files):
            log.info("unit %d: already done", unit.unit_id)
            return record
        refs = self._planned(unit)
        files = UnitFiles(self.folder, unit.unit_id, unit.unit_count, schema.statistics(self.run.catalog))
        aggregate = Aggregate.empty(self._shape)
        failures: list[dict[str, Any]] = []
        with files.storing_jacobians(self.run.config.store, self.engine.layout.stored_shape[1:]):
            for images in self._batches(unit, refs, failures):
                count("decode_microseconds", sum(image.microseconds for image in images))
                slots = self.engine.batch_size
                with _timed("compute_microseconds", count):
                    batch, columns = self._measure(images, aggregate)
                with _timed("write_microseconds", count):
                    files.add(columns, batch.stored, batch.rows)
                count("batches", 1)
                count("batch_slots", slots)
                count("images_audited", len(images))
        count("images_failed", len(failures))
        aggregate.failures = len(failures)
        with _timed("write_microseconds", count):
            record = UnitRecord(
                unit_id=unit.unit_id,
                fingerprint=self.run.fingerprint,
                planned=len(refs),
                audited=aggregate.images,
                failed=aggregate.failures,
                files=files.close(failures, aggregate.save),
            )
            self.folder.write_bytes(names.shard("records", unit.unit_id, unit.unit_count), record.to_json())
        count("storage_retries", retries.take())
        log.info("unit %d: %d images audited, %d failed", unit.unit_id, record.audited, record.failed)
        return record

    def read(self, refs: Sequence[ImageRef]) -> np.ndarray:
        """Model inputs (n, height, width, channel) of images that were audited before.

        Raises:
            AuditError: one of them cannot be read any more.
        """
        images = list(self._decode_ahead(refs))
        for image in images:
            if isinstance(image.prepared, ImageError):
                raise AuditError(
                    f"image {image.ref.image_id!r} was audited, but cannot be read again ({image.prepared}); "
                    "restore it, and the same command goes on"
                )
        return np.stack([image.prepared.image for image in images if isinstance(image.prepared, Prepared)])

    def _planned(self, unit: WorkUnit) -> list[ImageRef]:
        with (
            self.folder.open(names.PLAN) as stream,
            pq.ParquetFile(stream, metadata=self._plan, pre_buffer=False) as plan,
        ):
            self._plan = plan.metadata  # of many units, it takes long to read
            return refs_of(plan.read_row_group(unit.unit_id, [*REF_COLUMNS], use_threads=False))

    def _batches(
        self, unit: WorkUnit, refs: list[ImageRef], failures: list[dict[str, Any]]
    ) -> Iterator[list[Decoded]]:
        """Full batches of decoded images in plan order; an image that fails goes to `failures` instead."""
        batch: list[Decoded] = []
        for image in self._decode_ahead(refs):
            if isinstance(problem := image.prepared, ImageError):
                ref = image.ref
                log.warning("unit %d: image %r: %s: %s", unit.unit_id, ref.image_id, problem.stage, problem)
                failure = {"image_id": ref.image_id, "uri": ref.uri}
                failures.append(failure | {"stage": problem.stage, "error": str(problem)})
                continue
            batch.append(image)
            if len(batch) >= self.engine.batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    def _decode_ahead(self, refs: Iterable[ImageRef]) -> Iterator[Decoded]:
        """Decode in threads, in order, at most two batches ahead of the device."""
        waiting: deque[Future[Decoded]] = deque()
        for ref in refs:
            data = self._read(ref) if self.source.reads_forward(ref) else None
            waiting.append(self._decoders.submit(self._decode, ref, data))
            if len(waiting) >= 2 * self.engine.batch_size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _read(self, ref: ImageRef) -> Encoded | ImageError:
        try:
            return self.source.read(ref)
        except ImageError as error:
            return error

    def _decode(self, ref: ImageRef, data: Encoded | ImageError | None) -> Decoded:
        """The image, of its bytes where they are read already."""
        start = time.perf_counter_ns()
        data = self._read(ref) if data is None else data
        prepared: Prepared | ImageError
        try:
            prepared = data if isinstance(data, ImageError) else self.preprocess(data)
        except ImageError as error:
            prepared = error
        return Decoded(ref, prepared, (time.perf_counter_ns() - start) // 1000)

    def _measure(self, images: list[Decoded], aggregate: Aggregate) -> tuple[JacobianBatch, dict[str, Any]]:
        """Differentiate one batch, add it to the aggregate, and return its statistics by column."""
        refs = [image.ref for image in images]
        prepared = [image.prepared for image in images if isinstance(image.prepared, Prepared)]
        pixels = np.stack([part.image for part in prepared])
        label_ids = np.array([self._label_ids.get(ref.label, -1) for ref in refs], np.int32)
        targets = np.array([self._label_outputs.get(ref.label, -1) for ref in refs], np.int32)
        batch, columns = measure_images(
            self.engine,
            pixels,
            task=self._task,
            border=self.run.config.statistics.border,
            noise=self.run.config.statistics.noise,
            noise_copies=self.run.config.statistics.noise_copies,
            label_ids=label_ids,
            targets=targets,
        )
        image_ids = [ref.image_id for ref in refs]
        aggregate.add(
            batch,
            columns,
            pixels,
            image_ids=image_ids,
            label_ids=label_ids,
            picture=lambda index: self.preprocess.picture(pixels[index]),
            bounds=self._bounds,
            resized=sum(part.resized for part in prepared),
            recolored=sum(part.recolored for part in prepared),
        )
        aggregate.sample.add(batch, pixels, self._task, image_ids, [ref.uri for ref in refs])
        aggregate.noise += self._trials.reliability(batch, columns, pixels, image_ids)
        return batch, columns | {key: [getattr(ref, key) for ref in refs] for key in REF_COLUMNS}


@contextmanager
def _timed(name: str, count: Count) -> Iterator[None]:
    start = time.perf_counter_ns()
    yield
    count(name, (time.perf_counter_ns() - start) // 1000)
