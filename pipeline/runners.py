"""Beam runners: in this process by default, any other by its name."""

from __future__ import annotations

import re

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.portability.local_job_service import beam_provision_api_pb2
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, create_runner

from augnet.errors import AuditError, ConfigError

IN_PROCESS = (None, "DirectRunner", "FnApiRunner")

LOCAL_THREADS = 2
"""Threads of an in-process run: one decodes and writes while the other computes."""


def make_options(flags: list[str], settings: dict[str, object]) -> PipelineOptions:
    """Beam options from command-line flags and from the `beam:` section; flags win.

    Raises:
        ConfigError: an in-process run was given an option that Beam does not know. Other runners have
            options that only they know.
    """
    settings = {key.replace("-", "_"): value for key, value in settings.items()}
    given = PipelineOptions(flags).get_all_options(drop_default=True, retain_unknown_options=True)
    options = PipelineOptions(flags, **{key: value for key, value in settings.items() if key not in given})
    known = options.get_all_options()
    unknown = sorted((given.keys() | settings.keys()) - known.keys())
    if unknown and is_in_process(options):
        raise ConfigError(
            f"--{unknown[0]}: neither augnet nor Beam's in-process runner knows it; see augnet audit --help"
        )
    if is_in_process(options):
        direct = options.view_as(DirectOptions)
        if "direct_running_mode" not in given | settings:
            direct.direct_running_mode = "multi_threading"
        if "direct_num_workers" not in given | settings:
            direct.direct_num_workers = LOCAL_THREADS
    return options


def is_in_process(options: PipelineOptions) -> bool:
    """Whether the audit runs in this process (or in processes that it starts)."""
    return options.view_as(StandardOptions).runner in IN_PROCESS


def make_runner(options: PipelineOptions) -> PipelineRunner:
    """The runner that the options name.

    Beam's DirectRunner would first try to download another runner and drop the direct_* options with it,
    so the in-process runner is built here, and its worker processes are told the options.
    """
    if not is_in_process(options):
        return create_runner(options.view_as(StandardOptions).runner)
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return FnApiRunner(provision_info=ExtendedProvisionInfo(provision))


def audit_problem(error: BaseException) -> AuditError | None:
    """The problem that a worker named, from what a runner made of it.

    Runners hand back a worker's exception as a new one with the traceback in its text.
    """
    if isinstance(error, AuditError):
        return error
    named = re.findall(
        rf"^(?:{AuditError.__module__}\.)?{AuditError.__name__}: (.*)$", str(error), re.MULTILINE
    )
    return AuditError(re.sub(r" \[while running '.*'\]", "", named[-1])) if named else None
