"""Ending at once, and in order, when the user, the system or a lost worker process wants it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from transforms.driver import DRIVER_VARIABLE

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
GO_ON = "the same command goes on from the finished units"


class _Terminated(BaseException):
    """SIGTERM came."""


class _WorkerLost(Exception):
    """A worker process ended in the middle of its work."""


def stoppable(work: Callable[[], int]) -> int:
    """The exit status that `work` returns, or that of the signal that came before its end.

    The work runs in a thread of its own, deaf to signals with all its threads and child processes; so this
    one, which does nothing but wait, can end the process within a second, whatever the others are doing. A
    unit in progress is lost, and nothing else: files appear whole or not at all.
    """
    done: Future[int] = Future()

    def run() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            done.set_result(work())
        except BaseException as error:
            _give_up(done, error)

    def note_lost_worker(problem: Any) -> None:
        if problem.thread is not None and problem.thread.name == "run_worker":  # Beam's, one per process
            _give_up(done, _WorkerLost(str(problem.exc_value)))
        else:  # Beam's connections break with the worker, or at the end
            log.debug("thread %s: %s", problem.thread, problem.exc_value)

    if threading.current_thread() is not threading.main_thread():
        return work()  # signals are the main thread's
    before = signal.signal(signal.SIGTERM, _terminate)
    terminal = os.dup(2)  # the work may have turned standard error away for a while
    threading.excepthook, os.environ[DRIVER_VARIABLE] = note_lost_worker, str(os.getpid())
    try:
        worker = threading.Thread(target=run, name="work", daemon=True)
        worker.start()
        return _wait(worker, done)
    except KeyboardInterrupt:
        _leave(terminal, 130, f"interrupted; {GO_ON}")
    except _Terminated:
        _leave(terminal, 143, f"terminated; {GO_ON}")
    except _WorkerLost as error:
        _leave(terminal, 1, f"a worker process was lost, perhaps for want of memory ({error}); {GO_ON}")
    finally:
        threading.excepthook = threading.__excepthook__
        del os.environ[DRIVER_VARIABLE]
        signal.signal(signal.SIGTERM, before)
        os.close(terminal)


def _wait(worker: threading.Thread, done: Future[int]) -> int:
    """What the work gave, once its thread has ended: what that holds must go before the interpreter does."""
    while worker.is_alive():
        worker.join(POLL_SECONDS)  # a signal is noticed between two looks
        if done.done() and isinstance(done.exception(), _WorkerLost):
            break
    return done.result()


def _give_up(done: Future[int], error: BaseException) -> None:
    try:
        done.set_exception(error)
    except InvalidStateError:  # it has ended already
        log.debug("after the end: %s", error)


def _terminate(*_: Any) -> NoReturn:
    raise _Terminated


def _leave(terminal: int, status: int, message: str) -> NoReturn:
    """End this process and those it started without waiting for anything."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    for pid in _descendants():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # a worker writes whole files or none
    if "augnet.storage.files" in sys.modules:
        sys.modules["augnet.storage.files"].discard_private_files()
    show_cursor = "\x1b[?25h" if os.isatty(terminal) else ""  # the progress bar hides it
    os.write(terminal, f"{show_cursor}\naugnet: {message}\n".lstrip("\n").encode())
    sys.stdout.flush()
    os._exit(status)


def _descendants() -> list[int]:
    """The processes below this one, children first. Where there is no /proc, they end by themselves."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it has just ended
        children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found += children.get(pid, ())
    return found
