"""Audits in processes of their own, to be killed, stopped and watched."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from augnet.storage import names

HERE = Path(__file__).parent


class ForkServer:
    """Starts audits fast, in the environment of the moment; see fork_server.py.

    Attributes:
        log: a path, behind which audits write what they say.
    """

    def __init__(self, log):
        self.log = str(log)
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
        )
        assert self._process.stdout.readline(), "the fork server did not start"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def start(self, arguments, die_at=None):
        """The process id, and group, of a new audit."""
        arguments = [str(part) for part in arguments]
        order = {"arguments": arguments, "log": self.log, "die_at": die_at, "environment": dict(os.environ)}
        return self._ask(**order)["pid"]

    def wait(self, pid):
        """Exit status, or minus the signal that ended the audit."""
        return self._ask(wait=pid)["status"]

    def run(self, arguments, die_at=None):
        return self.wait(self.start(arguments, die_at))

    def run_until(self, condition, extra_seconds, arguments):
        """Kill the audit's whole process group so long after the condition holds, if it is still there."""
        pid = self.start(arguments)
        while not condition() and not _has_ended(pid):
            time.sleep(0.01)
        time.sleep(extra_seconds)
        os.killpg(pid, signal.SIGKILL)  # no wait has reaped it yet, so the group exists
        return self.wait(pid)

    def _ask(self, **order):
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _has_ended(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def audit_command(model, images, output, *flags):
    return [str(part) for part in ("audit", "--model", model, "--images", images, "--output", output, *flags)]


def start_audit(*command, **options):
    """`augnet audit ...` as a user starts it, in a process group of its own; its output as text."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=HERE.parent,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background jobs ignore it
        **options,
    )


def digests(folder):
    """sha256 of every file but run.json, by name."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and path.name != names.RUN)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wait_for(condition, seconds=60):
    """Wait until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
