"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from augnet.storage.files import OutputFolder

if TYPE_CHECKING:
    from augnet.audits.run import Run

log = logging.getLogger(__name__)

REFRESH_SECONDS = 0.5
LINE_SECONDS = 15.0
BAR = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"))


@contextmanager
def show_progress(run: Run) -> Iterator[None]:
    """Show how far `run` is while the block runs.

    What other processes do is seen when they finish a unit; what this one does, batch by batch.
    """
    console = Console(stderr=True)
    stop = threading.Event()
    show = _bar if console.is_terminal else _lines
    watcher = threading.Thread(target=show, args=(_Counter(run), stop, console), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        stop.set()
        watcher.join()


@contextmanager
def show_steps() -> Iterator[Callable[[str, int, int], None]]:
    """Show what the block tells the function that it is given: a step, the images done, and of how many.

    Elsewhere than on a terminal there is a line for every new step, and one for the images every few seconds.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Steps().tell
        return
    with Progress(*BAR, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("", total=None)
        yield lambda step, done, total: progress.update(task, description=step, completed=done, total=total)


class _Steps:
    """Plain lines."""

    def __init__(self) -> None:
        self._step, self._said = "", 0.0

    def tell(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if step == self._step and now - self._said < LINE_SECONDS:
            return
        self._step, self._said = step, now
        log.info("%s: %d of %d images", step, done, total)


class _Counter:
    """Counts the images that are done, by the records in the folder and by this process."""

    def __init__(self, run: Run):
        from transforms.audit import AuditUnit  # with it come Beam and TensorFlow

        self.total = run.images
        self._folder = OutputFolder(run.config.output)
        self._unit_images = -(-run.images // run.units)
        self._counted, self._before = AuditUnit, AuditUnit.images_here
        self._skipped = self._recorded()

    def _recorded(self) -> int:
        return min(self.total, len(self._folder.names("records")) * self._unit_images)

    def done(self) -> int:
        here = self._skipped + self._counted.images_here - self._before
        return min(self.total, max(self._recorded(), here))


def _bar(counter: _Counter, stop: threading.Event, console: Console) -> None:
    with Progress(*BAR, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("auditing", total=counter.total)
        while not stop.wait(REFRESH_SECONDS):
            done = counter.done()
            step = "auditing" if done < counter.total else "summing up"
            progress.update(task, completed=done, description=step)
        progress.update(task, completed=counter.done())


def _lines(counter: _Counter, stop: threading.Event, console: Console) -> None:
    began, first = time.monotonic(), counter.done()
    while not stop.wait(LINE_SECONDS):
        done = counter.done()
        rate = (done - first) / (time.monotonic() - began)
        log.info("%d of %d images, %.1f images per second", done, counter.total, rate)
