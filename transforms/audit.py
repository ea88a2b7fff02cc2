"""The audit as Beam transforms. Pixels and Jacobians never leave the worker: only unit records travel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from augnet.audits.records import WorkUnit
from augnet.audits.unit import COUNTED, Auditor
from augnet.errors import AuditError, ConfigError
from augnet.findings.unit import Investigator
from augnet.jobs.finish import conclude, prepare_interventions
from augnet.storage.addresses import retries
from augnet.storage.files import UnitRecord
from transforms.driver import end_with_driver

NAMESPACE = "augnet"

_investigators: WeakKeyDictionary[Auditor, Investigator] = WeakKeyDictionary()


class Step(beam.PTransform):
    """One step of an audit.

    Attributes:
        output: the audit's folder, which holds run.json and plan.parquet.
        model: what the steps of one worker process share: the model, once.
    """

    def __init__(self, output: str, model: Shared):
        super().__init__()
        self.output, self.model = output, model


class AuditUnits(Step):
    """WorkUnits -> UnitRecords; the shards are written where they are computed."""

    def expand(self, units: beam.PCollection[WorkUnit]) -> beam.PCollection[UnitRecord]:
        work = AuditUnit(self.output, self.model)
        return (
            units
            | "Spread" >> beam.Reshuffle()  # WorkUnit
            | "AuditUnit" >> beam.ParDo(work).with_output_types(UnitRecord)
        )


class Fold(Step):
    """UnitRecords -> the WorkUnits of interventions, once the files of all units are there."""

    def expand(self, records: beam.PCollection[UnitRecord]) -> beam.PCollection[WorkUnit]:
        work = FoldUnits(self.output, self.model)
        return (
            records
            | "WaitForAll" >> beam.combiners.Count.Globally()  # int
            | "Fold" >> beam.ParDo(work).with_output_types(WorkUnit)
        )


class Interventions(Step):
    """WorkUnits -> UnitRecords of the candidates tried; forward passes, written where they are computed."""

    def expand(self, units: beam.PCollection[WorkUnit]) -> beam.PCollection[UnitRecord]:
        work = Intervene(self.output, self.model)
        return (
            units
            | "Spread" >> beam.Reshuffle()  # WorkUnit
            | "Intervene" >> beam.ParDo(work).with_output_types(UnitRecord)
        )


class Conclude(beam.PTransform):
    """UnitRecords of interventions -> the manifest: finishes the audit once all of them are there."""

    def __init__(self, output: str):
        super().__init__()
        self.output = output

    def expand(self, records: beam.PCollection[UnitRecord]) -> beam.PCollection[dict[str, Any]]:
        return (
            records
            | "WaitForAll" >> beam.combiners.Count.Globally()  # int
            | "Conclude" >> beam.Map(_conclude, output=self.output)  # manifest
        )


class WithModel(beam.DoFn):
    """Holds the model, once per worker process, whatever the step."""

    def __init__(self, output: str, model: Shared):
        self._output, self._model = output, model

    def setup(self) -> None:
        end_with_driver()
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # read when TensorFlow first uses a GPU
        with problems_named():
            self._auditor = self._model.acquire(lambda: Auditor.open(self._output), tag=self._output)


class AuditUnit(WithModel):
    """Audits one unit after another."""

    images_here = 0
    """Images measured by this process: what a progress bar in the same process can see between records."""

    def __init__(self, output: str, model: Shared):
        super().__init__(output, model)
        self._counters = {name: Metrics.counter(NAMESPACE, name) for name in COUNTED}

    def process(self, unit: WorkUnit) -> Iterator[UnitRecord]:
        with problems_named():
            yield self._auditor.audit(unit, self._count)

    def _count(self, name: str, amount: int) -> None:
        self._counters[name].inc(amount)
        if name == "images_audited":
            AuditUnit.images_here += amount


class FoldUnits(WithModel):
    """Folds the units of an audit and says what to try of what they show, unit of interventions by unit."""

    def process(self, _: int) -> Iterator[WorkUnit]:
        with problems_named():
            yield from prepare_interventions(self._auditor)


class Intervene(WithModel):
    """Tries what one target may lean on."""

    def process(self, unit: WorkUnit) -> Iterator[UnitRecord]:
        with problems_named():
            yield investigator(self._auditor).investigate(unit)


def investigator(auditor: Auditor) -> Investigator:
    """The one of this process for an auditor."""
    if auditor not in _investigators:
        _investigators[auditor] = Investigator(auditor)
    return _investigators[auditor]


def _conclude(_: int, output: str) -> dict[str, Any]:
    with problems_named():
        manifest = conclude(output)
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
