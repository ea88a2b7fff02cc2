"""Audits on Flink for real: inside Beam's job server, and on a cluster of processes: `make test-flink`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import FlinkCluster, local_flags
from conftest import small_cnn, write_images
from fetch import missing

from augnet.storage import names

pytestmark = pytest.mark.flink

IMAGES = 500
UNIT_FLAGS = ["--store.shard_bytes=20000"]  # 4 images a unit: 125 units, enough to be interrupted among
JOB_SECONDS = 600


@pytest.fixture(scope="session", autouse=True)
def flink() -> None:
    if why := missing():
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)


@pytest.fixture(scope="session")
def cluster(flink: None, request: pytest.FixtureRequest) -> Iterator[FlinkCluster]:
    """A JobManager and two TaskManagers, which the terminal hears of."""
    with FlinkCluster() as cluster:
        overview = cluster.get("/overview")
        with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print(f"\nFlink {overview['flink-version']}, {overview['taskmanagers']} TaskManagers")
        yield cluster


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags that name a model and its images."""
    folder = tmp_path_factory.mktemp("inputs")
    write_images(folder / "images", IMAGES)
    small_cnn().save(folder / "model.keras")
    return ["--model", str(folder / "model.keras"), "--images", str(folder / "images"), *UNIT_FLAGS]


@pytest.fixture(scope="session")
def in_process(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the in-process run wrote."""
    output = tmp_path_factory.mktemp("expected") / "out"
    finish(start_audit(inputs, output))
    return output


@pytest.fixture(scope="session")
def expected(in_process: Path) -> dict[str, str]:
    return digests(in_process)


@pytest.fixture
def output(in_process: Path, tmp_path: Path) -> Path:
    """A folder that holds nothing but what the in-process run chose by timing."""
    folder = tmp_path / "out"
    folder.mkdir()
    for path in in_process.glob("engine-*.json"):
        shutil.copy(path, folder)
    return folder


def start_audit(inputs: list[str], output: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline", "audit", *inputs, "--output", str(output), *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    text = process.communicate(timeout=JOB_SECONDS)[0]
    assert process.returncode == status, text
    return text


def digests(output: Path) -> dict[str, str]:
    """sha256 by name of every file but run.json, and but what a killed worker left half written."""
    files = (path for path in output.rglob("*") if path.is_file() and path.name != names.RUN)
    finished = (path for path in files if not path.name.startswith(names.TEMPORARY_PREFIX))
    return {str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest() for path in finished}


def wait_for_records(output: Path, count: int, process: subprocess.Popen[str]) -> dict[str, int]:
    """Wait for that many finished units; returns the time each record was written."""
    while process.poll() is None:
        records = list((output / "records").glob("*.json"))
        if len(records) >= count:
            return {path.name: path.stat().st_mtime_ns for path in records}
        time.sleep(0.02)
    raise AssertionError(f"the audit ended before it had {count} records\n{process.communicate()[0]}")


def audit_vertex(cluster: FlinkCluster) -> tuple[dict, dict]:
    """The newest job, and that vertex of it that computes Jacobians."""
    newest = max(cluster.get("/jobs/overview")["jobs"], key=lambda job: job["start-time"])
    job = cluster.get(f"/jobs/{newest['jid']}")
    (vertex,) = (vertex for vertex in job["vertices"] if "AuditUnit" in vertex["name"])
    return job, cluster.get(f"/jobs/{job['jid']}/vertices/{vertex['id']}")


def test_flink_in_the_job_server_gives_the_same_files(inputs, expected, output):
    finish(start_audit(inputs, output, *local_flags(), "--parallelism=2"))
    assert digests(output) == expected


def test_a_cluster_gives_the_same_files_and_no_tensor_crosses_it(cluster, inputs, expected, output):
    finish(start_audit(inputs, output, *cluster.beam_flags))
    assert digests(output) == expected
    job, vertex = audit_vertex(cluster)
    computed_by = {task["taskmanager-id"] for task in vertex["subtasks"] if task["metrics"]["read-records"]}
    assert len(computed_by) == 2
    units = len(list((output / "records").iterdir()))
    crossed = {each["name"]: each["metrics"]["write-bytes"] for each in job["vertices"]}
    assert crossed[vertex["name"]] < 1000  # what leaves the tasks that compute: a count each
    assert sum(crossed.values()) < 1000 * units  # in all: some numbers for each unit


def test_a_killed_task_manager_loses_nothing(cluster, inputs, expected, output):
    process = start_audit(inputs, output, *cluster.beam_flags)
    before = wait_for_records(output, 10, process)
    cluster.kill(cluster.task_managers[-1])
    try:
        finish(process)
    finally:
        cluster.start_task_manager()
        cluster.wait_for_task_managers()
    job, _ = audit_vertex(cluster)
    assert job["timestamps"]["RESTARTING"], "killed too late to show anything"
    assert digests(output) == expected
    assert rewritten(output, before) == []


def test_a_cancelled_job_is_taken_up_by_the_same_command(cluster, inputs, expected, output):
    process = start_audit(inputs, output, *cluster.beam_flags)
    before = wait_for_records(output, 10, process)
    cluster.cancel_jobs()
    finish(process, status=1)
    assert not (output / names.MANIFEST).exists()
    finish(start_audit(inputs, output, *cluster.beam_flags))
    assert digests(output) == expected
    assert rewritten(output, before) == []


def test_what_failed_is_done_again_and_nothing_else(cluster, inputs, expected, output):
    image = Path(inputs[3]) / "bee" / "0100.png"
    whole = image.read_bytes()
    image.write_bytes(b"no image")
    try:
        finish(start_audit(inputs, output, *cluster.beam_flags))
    finally:
        image.write_bytes(whole)
    before = {path.name: path.stat().st_mtime_ns for path in (output / "records").iterdir()}
    finish(start_audit(inputs, output, *cluster.beam_flags, "--retry-failed"))
    assert digests(output) == expected
    assert len(rewritten(output, before)) == 1


def rewritten(output: Path, before: dict[str, int]) -> list[str]:
    """The units that were done a second time."""
    return [name for name, when in before.items() if (output / "records" / name).stat().st_mtime_ns != when]
