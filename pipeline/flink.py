"""Beam's Flink runner, except that signals stay with the process that submits."""

from __future__ import annotations

import atexit

from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability import flink_runner
from apache_beam.runners.portability.job_server import JobServer


class FlinkRunner(flink_runner.FlinkRunner):
    """Starts the job server from any thread and stops it at exit.

    Beam's own takes SIGINT over when it starts the server, which only the main thread may do.
    """

    def default_job_server(self, options: PipelineOptions) -> JobServer:
        flink = options.view_as(FlinkRunnerOptions)
        if flink.flink_submit_uber_jar:  # there is no server process then, and no signal either
            return super().default_job_server(options)
        flink.flink_master = self.add_http_scheme(flink.flink_master)
        server = flink_runner.FlinkJarJobServer(options)
        atexit.register(server.stop)
        return server
