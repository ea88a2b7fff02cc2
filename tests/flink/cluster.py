"""A Flink cluster on loopback: a JobManager and TaskManagers, each with a Python worker of its own.

`python tests/flink/cluster.py` starts one and prints how to submit to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from fetch import CACHE, JOB_SERVER, LINE, RELEASE

START_SECONDS = 180
SLOTS = 2
"""Per TaskManager; one is used, the other is for the work of a TaskManager that is lost."""

HEAP = "-Xmx256m"

SETTINGS = {
    "jobmanager.rpc.address": "127.0.0.1",
    "jobmanager.bind-host": "127.0.0.1",
    "rest.address": "127.0.0.1",
    "rest.bind-address": "127.0.0.1",
    "taskmanager.host": "127.0.0.1",
    "taskmanager.bind-host": "127.0.0.1",
    "taskmanager.numberOfTaskSlots": SLOTS,
    "cluster.evenly-spread-out-slots": "true",
    # Beam's batch jobs take the cluster's restart strategy, and without one they fail with the first worker.
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": 5,
    "restart-strategy.fixed-delay.delay": "2 s",
    "cluster.registration.error-delay": 500,
    "heartbeat.interval": 1000,
    "heartbeat.timeout": 10000,
    # What Flink's start scripts would work out: a TaskManager started without them asks for all of it.
    "taskmanager.cpu.cores": "1.0",
    "taskmanager.memory.framework.heap.size": "128m",
    "taskmanager.memory.framework.off-heap.size": "64m",
    "taskmanager.memory.task.heap.size": "128m",
    "taskmanager.memory.task.off-heap.size": "0",
    "taskmanager.memory.managed.size": "64m",
    "taskmanager.memory.network.min": "32m",
    "taskmanager.memory.network.max": "32m",
    "taskmanager.memory.jvm-metaspace.size": "128m",
    "taskmanager.memory.jvm-overhead.min": "64m",
    "taskmanager.memory.jvm-overhead.max": "64m",
}

LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} - %m%n
"""

JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"

OPENED = (  # what Flink asks of Java 17; from the configuration that Flink comes with
    "java.lang",
    "java.lang.reflect",
    "java.net",
    "java.io",
    "java.nio",
    "java.text",
    "java.time",
    "java.util",
    "java.util.concurrent",
    "java.util.concurrent.atomic",
    "java.util.concurrent.locks",
    "sun.nio.ch",
)


class FlinkCluster:
    """Starts on entering, and on leaving stops every process that it started.

    Attributes:
        task_managers: their processes; `kill` takes one of them.
        folder: configuration, logs and temporary files.
    """

    def __init__(self, task_managers: int = 2):
        self._count = task_managers
        self._rest_port, rpc_port = _free_ports(2)
        self._settings = {**SETTINGS, "rest.port": self._rest_port, "jobmanager.rpc.port": rpc_port}
        self._processes: list[subprocess.Popen[bytes]] = []
        self.task_managers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> FlinkCluster:
        self._scratch = tempfile.TemporaryDirectory(prefix="augnet-flink-")
        self.folder = Path(self._scratch.name)
        self._settings |= {
            "io.tmp.dirs": self.folder / "tmp",
            "blob.storage.directory": self.folder / "blobs",
        }
        (self.folder / "tmp").mkdir()
        lines = (f"{key}: {value}\n" for key, value in self._settings.items())
        (self.folder / "config.yaml").write_text("".join(lines))
        (self.folder / "log4j.properties").write_text(LOGGING)
        (self.folder / "worker").write_text(
            f'#!/bin/sh\nexec {sys.executable} -m pipeline.flink_worker "$@"\n'
        )
        (self.folder / "worker").chmod(0o755)
        try:
            self._start_java("jobmanager", JOB_MANAGER, "--executionMode", "cluster")
            for _ in range(self._count):
                self.start_task_manager()
            self.wait_for_task_managers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            self.kill(process)
        self._scratch.cleanup()

    def start_task_manager(self) -> None:
        name = f"taskmanager-{len(self.task_managers)}"
        self.task_managers.append(self._start_java(name, TASK_MANAGER))

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL, to the process and to what it started."""
        with contextlib.suppress(ProcessLookupError):  # it had ended, and nothing of it is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wait_for_task_managers(self) -> None:
        """Wait until every TaskManager that lives has registered, and no other."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            living = sum(process.poll() is None for process in self.task_managers)
            if self._registered() == living >= self._count:
                return
            time.sleep(0.3)
        logs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))
        raise TimeoutError(f"no Flink cluster after {START_SECONDS} seconds\n{logs}")

    def get(self, path: str) -> Any:
        """What the REST service of the JobManager answers."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as answer:
            return json.load(answer)

    def cancel_jobs(self) -> None:
        for job in self.get("/jobs")["jobs"]:
            if job["status"] in ("CREATED", "RUNNING", "RESTARTING"):
                url = f"http://{self.address}/jobs/{job['id']}?mode=cancel"
                urllib.request.urlopen(urllib.request.Request(url, method="PATCH"), timeout=10).close()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._rest_port}"

    @property
    def beam_flags(self) -> list[str]:
        """What to give `augnet audit` to run here, with both TaskManagers at work."""
        return [
            *local_flags(f"--flink_master={self.address}"),
            f"--parallelism={self._count}",
            "--environment_type=PROCESS",
            f"--environment_option=process_command={self.folder / 'worker'}",
        ]

    def _registered(self) -> int:
        try:
            return int(self.get("/overview")["taskmanagers"])
        except OSError:  # the JobManager is not there yet
            return 0

    def _start_java(self, name: str, main_class: str, *arguments: str) -> subprocess.Popen[bytes]:
        jars = ":".join(str(path) for path in sorted((CACHE / "flink").glob("*.jar")))
        options = [HEAP, "-XX:+UseSerialGC", f"-Dlog4j.configurationFile={self.folder / 'log4j.properties'}"]
        options += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in OPENED]
        command = ["java", *options, "-cp", jars, main_class, "--configDir", str(self.folder), *arguments]
        return self._start(name, command)

    def _start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, to be killed whole
            )
        self._processes.append(process)
        return process


def local_flags(master: str = "--flink_master=[local]") -> list[str]:
    """What to give `augnet audit` to run on Flink, by default inside the job server."""
    return [
        "--runner=FlinkRunner",
        master,
        f"--flink_version={LINE}",
        f"--flink_job_server_jar={JOB_SERVER}",
        "--job_server_jvm_properties=-Xmx512m",
        "--max_bundle_size=4",  # on Flink 2, so that a bundle is of several units; Flink 1 has no such bound
    ]


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    with FlinkCluster() as cluster:
        count = len(cluster.task_managers)
        print(f"Flink {RELEASE}, {count} TaskManagers, until Ctrl-C; logs in {cluster.folder}")
        print("augnet audit CONFIG.yaml", shlex.join(cluster.beam_flags), flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
