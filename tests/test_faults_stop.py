"""Signals, lost worker processes, and two audits of one folder at the same time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from audit_processes import audit_command, digests, start_audit, wait_for
from conftest import write_images

from augnet.audits.integrity import check
from augnet.storage.files import OutputFolder

PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers=1")
SMALL_UNITS = "--store.shard_bytes=50000"


@pytest.fixture(scope="module")
def many_images(tmp_path_factory):
    """So many that an audit is not over before it is stopped."""
    folder = tmp_path_factory.mktemp("many")
    write_images(folder, 3000)
    return folder


def processes_of(marker):
    """The processes with this text in their environment or command line, by id."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            text = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if marker.encode() in text and state != "Z" and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def workers_of(marker):
    return [
        pid for pid in processes_of(marker) if b"pipeline.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize(
    "signum, status, word", [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_a_signal_ends_the_audit_within_seconds_and_says_how_to_go_on(
    tmp_path, cnn_path, fork_server, signum, status, word
):
    write_images(tmp_path / "images", 600)
    out = tmp_path / "out"
    command = audit_command(cnn_path, tmp_path / "images", out, SMALL_UNITS, "--log-level=warning")
    pid = fork_server.start(command)
    wait_for(lambda: any((out / "records").glob("*.json")))
    began = time.monotonic()
    os.kill(pid, getattr(signal, signum))
    assert fork_server.wait(pid) == status
    assert time.monotonic() - began < 5
    said = (tmp_path / "log").read_text().splitlines()
    assert said[-1:] == [f"augnet: {word}; the same command goes on from the finished units"]
    assert not list(out.rglob(".writing-*"))
    done = {path.name for path in (out / "records").iterdir()}
    assert 0 < len(done) < 75
    assert fork_server.run(command) == 0
    assert check(str(out)) == []


def test_a_signal_takes_the_worker_processes_along(tmp_path, cnn_path, many_images):
    command = audit_command(cnn_path, many_images, tmp_path / "out", SMALL_UNITS, *PROCESSES)
    marker = str(tmp_path)
    process = start_audit(*command, env={**os.environ, "MARKER": marker})
    wait_for(lambda: any((tmp_path / "out" / "records").glob("*.json")), 180)
    assert workers_of(marker)
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does: the workers get it, too
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    wait_for(lambda: not processes_of(marker), 5)
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == "augnet: interrupted; the same command goes on from the finished units"


def test_a_killed_worker_process_ends_the_audit_with_a_message(tmp_path, cnn_path, many_images):
    command = audit_command(cnn_path, many_images, tmp_path / "out", SMALL_UNITS, *PROCESSES)
    marker = str(tmp_path)
    process = start_audit(*command, env={**os.environ, "MARKER": marker})
    wait_for(lambda: any((tmp_path / "out" / "records").glob("*.json")), 180)
    os.kill(workers_of(marker)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    wait_for(lambda: not processes_of(marker), 5)
    assert "Traceback" not in errors
    assert "a worker process was lost" in errors.splitlines()[-1]


def test_workers_end_when_the_driver_is_killed(tmp_path, cnn_path, many_images):
    command = audit_command(cnn_path, many_images, tmp_path / "out", SMALL_UNITS, *PROCESSES)
    marker = str(tmp_path)
    process = start_audit(*command, env={**os.environ, "MARKER": marker})
    wait_for(lambda: any((tmp_path / "out" / "records").glob("*.json")), 180)
    process.kill()
    process.communicate(timeout=10)
    wait_for(lambda: not processes_of(marker), 5)


def test_two_audits_of_one_folder_at_a_time_both_end_right(tmp_path, cnn_path, fork_server):
    write_images(tmp_path / "images", 160)
    flags = (SMALL_UNITS, "--log-level=warning")
    assert fork_server.run(audit_command(cnn_path, tmp_path / "images", tmp_path / "alone", *flags)) == 0
    command = audit_command(cnn_path, tmp_path / "images", tmp_path / "out", *flags)
    pids = [fork_server.start(command) for _ in range(3)]
    assert [fork_server.wait(pid) for pid in pids] == [0, 0, 0], Path(fork_server.log).read_text()
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert check(str(tmp_path / "out")) == []


def test_temporary_files_of_dead_runs_are_swept_and_those_of_running_ones_stay(tmp_path):
    folder = OutputFolder(str(tmp_path))
    code = f"""
import os, signal
from augnet.storage.files import OutputFolder
with OutputFolder({str(tmp_path)!r}).writing("jacobians/part-00000-of-00001.parquet"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent)
    assert len(list(tmp_path.rglob(".writing-*"))) == 1
    with folder.writing("summary.json") as mine:
        folder.sweep()
        assert list(tmp_path.rglob(".writing-*")) == [mine]


@pytest.mark.parametrize("end", ["return 3", "raise ValueError"])
def test_what_the_work_holds_is_gone_when_it_has_ended(end):
    """Files that are freed while the interpreter ends would abort it."""
    script = f"""
import threading, time
from pipeline.stopping import stoppable

class Held:
    def __del__(self):
        time.sleep(0.5)
        print("freed", end=" ")

held = threading.local()

def work():
    held.value = Held()
    {end}

try:
    print(stoppable(work))
except ValueError:
    print("failed")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("freed 3" if "3" in end else "freed failed")
