"""The Python worker that a Flink TaskManager starts beside itself (`--environment_type=PROCESS`).

Beam starts a command, tells it where to ask for everything else, and expects that it becomes the worker. The
command inside Beam's container images installs the job's packages first; this one runs what is installed, so
augnet must be, in the environment of this interpreter, wherever a TaskManager runs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import grpc
from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
from apache_beam.runners.worker import sdk_worker_main
from google.protobuf import json_format, text_format


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the worker of the given id, until the runner closes the connection."""
    parser = argparse.ArgumentParser(description="A Beam worker; Flink's TaskManagers start it.")
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True, metavar="HOST:PORT")
    options, _ = parser.parse_known_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.update(WORKER_ID=options.id, **_provided(options.provision_endpoint, options.id))
    sdk_worker_main.main([])


def _provided(endpoint: str, worker_id: str) -> dict[str, str]:
    """What the runner provides, under the names by which Beam's worker looks for it."""
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        info = stub.GetProvisionInfo(request, metadata=[("worker_id", worker_id)]).info
    return {
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.control_endpoint),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }


if __name__ == "__main__":
    main()
