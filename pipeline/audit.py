"""An audit as a Beam job: plan here, compute on the workers, fold at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import nullcontext

import apache_beam as beam
from apache_beam.metrics import MetricsFilter
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult

from augnet.audits.engine_setup import engine_errors_by_key
from augnet.audits.plan import plan
from augnet.audits.records import WorkUnit
from augnet.audits.retry import forget_failures
from augnet.audits.run import Run
from augnet.audits.unit import COUNTED
from augnet.audits.worker import handing_on
from augnet.config import Config
from augnet.engine.graph.precision import refuse_missing
from augnet.errors import AuditError
from pipeline.packaging import send_package
from pipeline.progress import show_progress
from pipeline.runners import audit_problem, is_in_process, make_runner, works_in_threads
from transforms.audit import NAMESPACE, AuditUnits, Finalize

log = logging.getLogger(__name__)


def run_audit(
    config: Config, options: PipelineOptions, fresh: bool = False, retry_failed: bool = False
) -> Run:
    """Plan an audit, run it to its end, and return its description.

    Args:
        config: of the audit.
        options: of `make_options`.
        fresh: delete what the output folder holds of an earlier audit.
        retry_failed: do the units again in which images failed, and those that are not done yet; no other.

    Raises:
        ConfigError: before any work, when something does not fit.
        AuditError: when the audit ended with a problem.
    """
    send_package(options)
    if is_in_process(options):  # elsewhere, workers may have what this machine lacks
        with engine_errors_by_key():
            refuse_missing(config.jacobian.precision)
    planned = plan(config, fresh)
    run = planned.run
    units = forget_failures(config.output, run) if retry_failed else range(run.units)
    try:
        with (
            handing_on(run, planned.model) if works_in_threads(options) else nullcontext(),
            show_progress(run),
            beam.Pipeline(runner=make_runner(options), options=options) as pipeline,
        ):
            build(pipeline, run, units)
        log_work(pipeline.result)
    except RuntimeError as error:  # what runners make of a worker's exception
        problem = audit_problem(error)
        if problem is None and not is_in_process(options):
            reason = str(error).strip().splitlines()[-1]
            problem = AuditError(
                f"the job did not finish ({reason}); the same command goes on from the finished units"
            )
        if problem:
            raise problem from error
        raise
    return run


def log_work(result: PipelineResult) -> None:
    """Say in one line what the workers did; skipped units count for nothing here."""
    found = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    done = dict.fromkeys(COUNTED, 0)
    for metric in found:
        done[metric.key.metric.name] += metric.result
    seconds = {step: done[f"{step}_microseconds"] / 1e6 for step in ("decode", "compute", "write")}
    log.info(
        "work of all threads: %d images audited, %d failed, in %d batches %.0f %% full; "
        "decode %.1f s, compute %.1f s, write %.1f s; %d storage retries",
        done["images_audited"],
        done["images_failed"],
        done["batches"],
        100 * done["images_audited"] / max(1, done["batch_slots"]),
        *seconds.values(),
        done["storage_retries"],
    )


def build(pipeline: beam.Pipeline, run: Run, units: Iterable[int]) -> None:
    """Apply the audit's transforms to some of its units; the diagram in ARCHITECTURE.md."""
    (
        pipeline
        | "Units" >> beam.Create([WorkUnit(unit, run.units) for unit in units], reshuffle=False)
        | "AuditUnits" >> AuditUnits(run.config.output)  # UnitRecord
        | "Finalize" >> Finalize(run.config.output)  # manifest
    )
