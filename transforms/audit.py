"""The audit as Beam transforms. Pixels and Jacobians never leave the worker: only unit records travel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from augnet.audit import Auditor, WorkUnit
from augnet.finalize import finalize
from augnet.storage.files import UnitRecord

NAMESPACE = "augnet"


class AuditUnits(beam.PTransform):
    """WorkUnits -> UnitRecords; the shards are written where they are computed.

    Attributes:
        output: the audit's folder, which holds run.json and plan.parquet.
    """

    def __init__(self, output: str):
        super().__init__()
        self.output = output

    def expand(self, units: beam.PCollection[WorkUnit]) -> beam.PCollection[UnitRecord]:
        return (
            units
            | "Spread" >> beam.Reshuffle()  # WorkUnit
            | "AuditUnit" >> beam.ParDo(AuditUnit(self.output))  # UnitRecord
        )


class AuditUnit(beam.DoFn):
    """Holds the model, once per worker process, and audits one unit after another."""

    images_here = 0
    """Images measured by this process: what a progress bar in the same process can see between records."""

    def __init__(self, output: str):
        self._output = output
        self._shared = Shared()
        self._images = Metrics.counter(NAMESPACE, "images_audited")
        self._failed = Metrics.counter(NAMESPACE, "images_failed")
        self._batches = Metrics.counter(NAMESPACE, "batches")

    def setup(self) -> None:
        self._auditor = self._shared.acquire(lambda: Auditor.open(self._output), tag=self._output)

    def process(self, unit: WorkUnit) -> Iterator[UnitRecord]:
        record = self._auditor.audit(unit, self._count_batch)
        self._failed.inc(record.failed)
        yield record

    def _count_batch(self, images: int) -> None:
        self._batches.inc()
        self._images.inc(images)
        AuditUnit.images_here += images


class Finalize(beam.PTransform):
    """UnitRecords -> the manifest: folds the units' files once all of them are there."""

    def __init__(self, output: str):
        super().__init__()
        self.output = output

    def expand(self, records: beam.PCollection[UnitRecord]) -> beam.PCollection[dict[str, Any]]:
        return (
            records
            | "WaitForAll" >> beam.combiners.Count.Globally()  # int
            | "Fold" >> beam.Map(lambda _, output: finalize(output), output=self.output)  # manifest
        )
