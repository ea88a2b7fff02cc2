"""What remote workers can see, checked before a job is submitted to them."""

from __future__ import annotations

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
)

from augnet.config import Config
from augnet.errors import ConfigError
from augnet.redact import without_secrets
from pipeline.runners import is_in_process


def refuse_unseen_paths(config: Config, options: PipelineOptions) -> None:
    """Raise ConfigError for a path of this machine that the workers of a remote runner cannot see.

    Dataflow's workers are machines of their own and see none. Flink's may share a file system with this one;
    only workers in containers, the default of a cluster elsewhere, certainly do not.

    Raises:
        ConfigError: names each such path, and what to do.
    """
    reason = _why_unseen(options)
    if reason is None:
        return
    given = {"model.path": config.model.path, "images.path": config.images.path, "output": config.output}
    local = {key: value for key, value in given.items() if is_local_path(value)}
    if local:
        found = ", ".join(f"{key}: {without_secrets(value)!r}" for key, value in local.items())
        raise ConfigError(f"{found}: on this machine, which {reason}")


def is_local_path(path: str) -> bool:
    """Whether a path is one of the machine that reads it, rather than an address that all machines share."""
    scheme, separator, _ = path.partition("://")
    return not separator or scheme in ("file", "local")


def _why_unseen(options: PipelineOptions) -> str | None:
    """Why the workers do not see this machine's files, and what to do; None where they do or may."""
    if is_in_process(options):
        return None
    runner = options.view_as(StandardOptions).runner
    if runner == "DataflowRunner":
        return "Dataflow's workers cannot see; copy it to a bucket they can read and give its gs:// address"
    environment = options.view_as(PortableOptions).environment_type
    if environment in (None, "DOCKER") and not is_embedded(options):
        return (
            f"the {runner}'s workers, in containers, cannot see; give an address that they can read (s3://, "
            "gs://), or run the workers beside a shared file system (--environment_type=PROCESS or EXTERNAL)"
        )
    return None


def is_embedded(options: PipelineOptions) -> bool:
    """Whether Flink runs inside the job server, and Beam's workers in this process."""
    if options.view_as(StandardOptions).runner != "FlinkRunner":
        return False
    portable, master = options.view_as(PortableOptions), options.view_as(FlinkRunnerOptions).flink_master
    return master in ("[local]", "[auto]") and portable.environment_type in (None, "LOOPBACK")
