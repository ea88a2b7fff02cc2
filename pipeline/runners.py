"""Beam runners: in this process by default, any other by its name."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.portability.local_job_service import beam_provision_api_pb2
from apache_beam.runners.portability.portable_runner import JobServiceHandle
from apache_beam.runners.runner import PipelineRunner, create_runner
from apache_beam.transforms.environments import SubprocessSDKEnvironment

from augnet.config import config_keys
from augnet.errors import AuditError, ConfigError, closest, did_you_mean
from pipeline.flink import FlinkRunner

IN_PROCESS = (None, "DirectRunner", "FnApiRunner")
RUNNERS = (*StandardOptions.KNOWN_RUNNER_NAMES, "FnApiRunner")
WITH_JOB_SERVER = ("FlinkRunner", "PortableRunner", "SparkRunner")

LOCAL_THREADS = 2
"""Threads of an in-process run: one decodes and writes while the other computes."""


def make_options(flags: list[str], settings: dict[str, object]) -> PipelineOptions:
    """Beam options from command-line flags and from the `beam:` section; flags win.

    Raises:
        ConfigError: an option or a runner that Beam does not know. Runners with a job server have options
            that only the server knows; there, what is close to one of Beam's is taken for a slip.
    """
    flags = [*_as_flags(settings), *flags]
    options = PipelineOptions(flags)
    _refuse_unknown(options)
    if is_in_process(options):
        direct = options.view_as(DirectOptions)
        if not any(flag.startswith("--direct_running_mode") for flag in flags):
            direct.direct_running_mode = "multi_threading"
        if not any(flag.startswith("--direct_num_workers") for flag in flags):
            direct.direct_num_workers = LOCAL_THREADS
    return options


def _refuse_unknown(options: PipelineOptions) -> None:
    runner = options.view_as(StandardOptions).runner
    if runner is not None and runner not in RUNNERS and "." not in runner:  # a class of one's own has a dot
        raise ConfigError(
            f"--runner: {runner!r} does not fit; give {', '.join(RUNNERS)}{did_you_mean(runner, RUNNERS)}"
        )
    known = options.get_all_options().keys()
    given = options.get_all_options(drop_default=True, retain_unknown_options=True).keys()
    unknown = sorted(given - known)
    if runner in WITH_JOB_SERVER:
        unknown = [name for name in unknown if closest(name, known)]
    meant = {name: name for name in known} | {key.rpartition(".")[2]: key for key in config_keys()}
    lines = [
        f"--{name}: neither augnet nor Beam knows it; see augnet audit --help"
        + "".join(f"; did you mean --{meant[near]}?" for near in closest(name, meant))
        for name in unknown
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def _as_flags(settings: dict[str, object]) -> Iterator[str]:
    """The `beam:` section as the flags that Beam parses; what is false or null is left out."""
    for key, value in settings.items():
        for item in value if isinstance(value, list) else [value]:
            if item is True:
                yield f"--{key}"
            elif item is not False and item is not None:
                yield f"--{key}={json.dumps(item) if isinstance(item, dict) else item}"


def is_in_process(options: PipelineOptions) -> bool:
    """Whether the audit runs in this process (or in processes that it starts)."""
    return options.view_as(StandardOptions).runner in IN_PROCESS


def works_in_threads(options: PipelineOptions) -> bool:
    """Whether the workers are threads of this process; to be asked before make_runner changes the options."""
    return is_in_process(options) and (
        options.view_as(DirectOptions).direct_running_mode != "multi_processing"
    )


def make_runner(options: PipelineOptions) -> PipelineRunner:
    """The runner that the options name.

    Beam's DirectRunner would first try to download another runner and drop the direct_* options with it,
    so the in-process runner is built here, and its worker processes are told the options. They are ours
    (worker.py), for which Beam must not be told that they are processes.
    """
    name = options.view_as(StandardOptions).runner
    if name == "FlinkRunner":
        return FlinkRunner()
    if not is_in_process(options):
        return create_runner(name)
    # Beam empties its buffers once a second from a thread of its own, without a lock against the one that
    # fills them, and what is written in between is lost (benchmarks/scale.py). 0: only when they are full.
    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    direct, environment = options.view_as(DirectOptions), None
    if direct.direct_running_mode == "multi_processing":
        direct.direct_running_mode = None
        command = f"exec {shlex.quote(sys.executable)} -m pipeline.worker"
        environment = SubprocessSDKEnvironment.from_command_string(command)
    return FnApiRunner(default_environment=environment, provision_info=ExtendedProvisionInfo(provision))


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
