"""The audit as Beam transforms. Pixels and Jacobians never leave the worker: only unit records travel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from augnet.audits.records import WorkUnit
from augnet.audits.unit import COUNTED, Auditor
from augnet.errors import AuditError, ConfigError
from augnet.jobs.finish import finish
from augnet.storage.addresses import retries
from augnet.storage.files import UnitRecord
from transforms.driver import end_with_driver

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
            | "AuditUnit" >> beam.ParDo(AuditUnit(self.output)).with_output_types(UnitRecord)
        )


class AuditUnit(beam.DoFn):
    """Holds the model, once per worker process, and audits one unit after another."""

    images_here = 0
    """Images measured by this process: what a progress bar in the same process can see between records."""

    def __init__(self, output: str):
        self._output = output
        self._shared = Shared()
        self._counters = {name: Metrics.counter(NAMESPACE, name) for name in COUNTED}

    def setup(self) -> None:
        end_with_driver()
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # read when TensorFlow first uses a GPU
        with problems_named():
            self._auditor = self._shared.acquire(lambda: Auditor.open(self._output), tag=self._output)

    def process(self, unit: WorkUnit) -> Iterator[UnitRecord]:
        with problems_named():
            yield self._auditor.audit(unit, self._count)

    def _count(self, name: str, amount: int) -> None:
        self._counters[name].inc(amount)
        if name == "images_audited":
            AuditUnit.images_here += amount


class Finalize(beam.PTransform):
    """UnitRecords -> the manifest: finishes the audit once the files of all units are there."""

    def __init__(self, output: str):
        super().__init__()
        self.output = output

    def expand(self, records: beam.PCollection[UnitRecord]) -> beam.PCollection[dict[str, Any]]:
        return (
            records
            | "WaitForAll" >> beam.combiners.Count.Globally()  # int
            | "Fold" >> beam.Map(_finish, output=self.output)  # manifest
        )


def _finish(_: int, output: str) -> dict[str, Any]:
    with problems_named():
        manifest = finish(output)
    Metrics.counter(NAMESPACE, "storage_retries").inc(retries.take())
    return manifest


@contextmanager
def problems_named() -> Iterator[None]:
    """Makes an AuditError, whose message reaches the user through any runner, of what a user can cause."""
    try:
        yield
    except ConfigError as error:  # all was well where the audit was planned
        raise AuditError(f"{error} (found by a worker, after the audit was planned)") from error
    except OSError as error:
        raise AuditError(f"{type(error).__name__}: {error}; the same command goes on from there") from error
