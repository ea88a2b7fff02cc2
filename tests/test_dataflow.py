"""The Dataflow job that configs/dataflow.yaml makes, translated and submitted by Beam to a stub on loopback.

Needs Beam's [gcp] extra; run by `make test-dataflow`. What the service would do with the job is not tested.
"""

import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

from augnet.config import load_config
from pipeline.audit import build
from pipeline.packaging import send_package
from pipeline.remote import refuse_unseen_paths
from pipeline.runners import make_options, make_runner

pytestmark = [
    pytest.mark.dataflow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google.*"),
    pytest.mark.filterwarnings("ignore::FutureWarning:google.*"),
    pytest.mark.filterwarnings("ignore::UserWarning:google.*"),
]
CONFIG = Path(__file__).parents[1] / "configs" / "dataflow.yaml"
UNITS = 4


class Service(BaseHTTPRequestHandler):
    """Takes jobs, and says that they are done."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path.partition("?")[0], json.loads(body)))
        reply = {"id": "job-1", "projectId": "PROJECT", "location": "us-central1"}
        data = json.dumps(reply | {"currentState": "JOB_STATE_DONE"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def submitted(tmp_path_factory):
    """What was sent to the service: `path`, `job` (JSON), `staged` (folder) and `pipeline` (proto)."""
    scratch = tmp_path_factory.mktemp("dataflow")
    staging = scratch / "staging"
    staging.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.requests = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = load_config(str(CONFIG))
    here = [f"--dataflow_endpoint=http://localhost:{server.server_port}", "--no_auth"]
    folders = [f"--temp_location={scratch}", f"--staging_location={staging}"]  # in place of a bucket
    options = make_options([*here, *folders], config.beam)
    refuse_unseen_paths(config, options)
    send_package(options)
    pipeline = beam.Pipeline(runner=make_runner(options), options=options)
    build(pipeline, SimpleNamespace(units=UNITS, config=config), range(UNITS))
    pipeline.run()
    server.shutdown()
    server.server_close()
    ((path, job),) = server.requests
    graph = beam_runner_api_pb2.Pipeline.FromString((staging / "pipeline.pb").read_bytes())
    return SimpleNamespace(path=path, job=job, staged=staging, pipeline=graph)


@pytest.fixture
def pool(submitted):
    (pool,) = submitted.job["environment"]["workerPools"]
    return pool


def test_one_batch_job_is_created_in_the_region_of_the_config(submitted):
    assert submitted.path == "/v1b3/projects/PROJECT/locations/us-central1/jobs"
    assert submitted.job["environment"]["version"]["job_type"] == "FNAPI_BATCH"


def test_the_package_is_sent_and_is_this_one(submitted, pool):
    assert "workflow.tar.gz" in [package["name"] for package in pool["packages"]]
    with tarfile.open(submitted.staged / "workflow.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"transforms/audit.py", "augnet/report/template.html", "configs/dataflow.yaml"} <= names


def test_the_container_is_the_one_of_the_config_and_brings_its_own_beam(submitted, pool):
    assert pool["workerHarnessContainerImage"] == "IMAGE"
    assert [image["containerImage"] for image in pool["sdkHarnessContainerImages"]] == ["IMAGE"]
    assert "dataflow_python_sdk.tar" not in {path.name for path in submitted.staged.iterdir()}


def test_one_gpu_per_worker_and_one_process_on_it(submitted, pool):
    environment = submitted.job["environment"]
    accelerator = "worker_accelerator=type:nvidia-l4;count:1;install-nvidia-driver"
    assert environment["serviceOptions"] == [accelerator]
    assert "no_use_multiple_sdk_containers" in environment["experiments"]
    assert "use_multiple_sdk_containers" not in environment["experiments"]
    assert pool["machineType"] == "g2-standard-8"  # the machines that L4 comes with


def test_a_bound_on_threads_disks_and_workers(pool):
    assert (pool["numThreadsPerWorker"], pool["diskSizeGb"]) == (4, 100)
    assert pool["autoscalingSettings"]["maxNumWorkers"] == 8


def test_the_main_session_is_not_pickled(submitted):
    assert not list(submitted.staged.glob("*main_session*"))
    assert submitted.job["environment"]["sdkPipelineOptions"]["options"]["save_main_session"] is False


def test_the_steps_are_ours_and_one_stage_holds_all_the_work(submitted):
    named = {transform.unique_name for transform in submitted.pipeline.components.transforms.values()}
    assert {"AuditUnits/AuditUnit", "Finalize/Fold"} <= named
    primitives = common_urns.primitives
    _, stages = translations.create_and_optimize_stages(
        submitted.pipeline,
        phases=translations.standard_optimize_phases(),
        known_runner_urns=frozenset([primitives.IMPULSE.urn, primitives.GROUP_BY_KEY.urn]),
    )
    fused = [[transform.unique_name for transform in stage.transforms] for stage in stages]
    (working,) = (names for names in fused if "AuditUnits/AuditUnit" in names)
    assert working[-1].startswith("Finalize/WaitForAll") and working[-1].endswith("Precombine")
