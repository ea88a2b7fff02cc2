"""An audit as a Beam job: plan here, compute on the workers, fold at the end."""

from __future__ import annotations

import apache_beam as beam

from augnet.audit import WorkUnit
from augnet.config import Config
from augnet.planning import plan
from augnet.run import Run
from pipeline.progress import show_progress
from pipeline.runners import audit_problem, make_options, make_runner
from transforms.audit import AuditUnits, Finalize


def run_audit(config: Config, beam_flags: list[str], fresh: bool = False) -> Run:
    """Plan an audit, run it to its end, and return its description.

    Raises:
        ConfigError: before any work, when something does not fit.
        AuditError: when the audit ended with a problem.
    """
    options = make_options(beam_flags, config.beam)
    run = plan(config, fresh)
    try:
        with show_progress(run), beam.Pipeline(runner=make_runner(options), options=options) as pipeline:
            build(pipeline, run)
    except RuntimeError as error:  # what runners make of a worker's exception
        problem = audit_problem(error)
        if problem:
            raise problem from error
        raise
    return run


def build(pipeline: beam.Pipeline, run: Run) -> None:
    """Apply the audit's transforms; the diagram in ARCHITECTURE.md."""
    (
        pipeline
        | "Units" >> beam.Create([WorkUnit(unit, run.units) for unit in range(run.units)])  # WorkUnit
        | "AuditUnits" >> AuditUnits(run.config.output)  # UnitRecord
        | "Finalize" >> Finalize(run.config.output)  # manifest
    )
