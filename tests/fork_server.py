"""Forks audits from a process that has imported everything, so that a start takes a moment, not seconds.

Reads JSON lines and answers each: {"arguments": [...], "log": path, "die_at": n or null, "environment": {}}
starts an audit as the leader of its own process group and gives {"pid": ...}; {"wait": pid} gives
{"status": ...}. With `die_at` the audit kills itself, by SIGKILL, right before the n-th time that it moves a
file into place (negative: right after it).
"""

import json
import os
import signal
import sys
from contextlib import suppress


def audit(arguments, log, die_at, environment):
    os.setpgrp()
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if die_at:
        moves = 0

        def count(event, _):
            nonlocal moves
            if event == "os.rename":  # os.replace raises this event, too
                moves += 1
                if moves == abs(die_at) + (die_at < 0):  # the next one begins where the last one has ended
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
    os._exit(main(arguments))


if __name__ == "__main__":
    from pipeline.logs import import_beam, import_tensorflow

    import_beam()
    import_tensorflow()

    import pipeline.audit
    from pipeline.main import main

    print(json.dumps({"ready": bool(pipeline.audit)}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = {"status": os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])}
        elif pid := os.fork():
            with suppress(PermissionError, ProcessLookupError):
                os.setpgid(pid, pid)  # here and there: whoever is first
            answer = {"pid": pid}
        else:
            audit(**order)
        print(json.dumps(answer), flush=True)
