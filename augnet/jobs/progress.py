"""How far an audit in this process is, on standard error: a line rewritten in place, in notebooks too."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

Progress = Callable[[str, int, int], None]
"""Told of a step, the images done, and of how many."""

IN_PLACE_SECONDS = 0.2
LINE_SECONDS = 15.0


class ProgressLine:
    """Shows what it is called with; where a line cannot be rewritten, a new one now and then."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty() or _in_notebook()
        self._began = self._shown = time.monotonic()
        self._first: int | None = None
        self._length = 0

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = done  # by earlier runs
        if now - self._shown >= (IN_PLACE_SECONDS if self._in_place else LINE_SECONDS):
            self._shown = now
            rate = (done - self._first) / (now - self._began)
            self._write(f"{step}: {done} of {total} images" + (f", {rate:.1f} per second" if rate else ""))

    def end(self, message: str) -> None:
        """Leave a last line."""
        self._write(message)
        if self._in_place:
            self._stream.write("\n")
        self._stream.flush()

    def _write(self, text: str) -> None:
        text = f"augnet: {text}"
        self._stream.write(f"\r{text:{self._length}}" if self._in_place else f"{text}\n")
        self._stream.flush()
        self._length = len(text)


def _in_notebook() -> bool:
    """Whether this is a Jupyter kernel, whose standard error is no terminal but can be rewritten."""
    return "ipykernel" in sys.modules and hasattr(sys.stderr, "pub_thread")
