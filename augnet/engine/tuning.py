"""Choosing a program by timing, once; afterwards only what was chosen is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from augnet.engine.backends import backend, host
from augnet.engine.kernels import Kernels, Place, fastest
from augnet.engine.rows import RuleRows
from augnet.engine.types import Tensor, Tensors

if TYPE_CHECKING:
    from augnet.engine.row_program import RowProgram

log = logging.getLogger(__name__)

TUNING_SECONDS = 5.0
"""What choosing may always take."""
TUNING_SHARE = 0.1
"""Of the predicted run, where that is more."""
HEAVY_ROWS = 5
"""Rows per pass, at least, of a program whose weights are laid out anew in every pass."""
TRIED_PASSES = 4
"""Backward passes of a program while it is tried: their time stands out from the forward pass's."""
FORWARD_RUNS = 3
"""Of a trial's forward pass alone, about."""
ROW_COPIES = 3
"""Of the rows that were not computed when a program was timed: passes leave them in pieces."""
TAPE_ROWS = 2
"""Rows that the tape is timed on: it may be very slow."""
SMALL_WORK = 3e6
"""Elements touched per batch below which a program takes milliseconds, and timing is not worth it."""
BUSY_SHARE = 0.25
"""Of the machine's processors, used by others while programs were timed: then the times say little."""


@dataclass(frozen=True)
class Choice:
    """What an engine does, as chosen once; as JSON it is what every other worker and every resumed run reads.

    Attributes:
        program: "rules" (over the rewritten graph) or "tape" (over the model).
        rows_per_pass: rows of an image that go through a backward pass together.
        batch_size: images per batch.
        xla: whether the rows are computed by one XLA program.
        kernels: the kernel chosen for every operation that has several.
        busy: whether others used the machine while programs were timed.
        report: what was found, for people: times, gain, agreement, and `error`, the normwise relative
            difference between the rows and those of the tape in the arithmetic `error_against`. Nothing
            depends on it.
    """

    program: str
    rows_per_pass: int
    batch_size: int
    xla: bool = False
    kernels: dict[str, str] = field(default_factory=dict)
    busy: bool = False
    report: dict[str, Any] = field(default_factory=dict)  # plain JSON values

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Choice:
        """What to_json() gave. Raises TypeError for what is none, or another version's."""
        return cls(**tree)


def choose(
    program: RowProgram, batch_size: int, *, seconds: float = TUNING_SECONDS, images: int | None = None
) -> Choice:
    """The fastest program that agrees with the tape, or the likeliest where timing would not pay.

    Timing costs at most the larger of `seconds` and TUNING_SHARE of the predicted run: each step is taken
    only if the one before it says that there is time. A run that would itself be over sooner is not timed.

    Args:
        batch_size: images per batch, at most.
        seconds: what it may take whatever the run; 0: nothing is timed.
        images: of the run; None where that is not known.
    """
    rules = program.trusted_rules
    if rules is None:
        if seconds:
            return _timed_tape(program, batch_size, images, seconds)
        return Choice("tape", 1, batch_size, report=program.report)
    passes = program.passes
    sizes = _chunk_sizes(program, rules, batch_size)
    likely = sizes[1]
    untimed = Choice("rules", likely, batch_size, report=program.report)
    if not seconds or rules.work * batch_size * passes < SMALL_WORK:
        return untimed
    if images is not None:
        run_seconds = images * program.pass_seconds * (1 + passes)
        runs = FORWARD_RUNS + 2 * (1 + _trial_passes(likely, passes))
        first_trial = batch_size * program.pass_seconds * runs
        if run_seconds < seconds or first_trial > max(seconds, TUNING_SHARE * run_seconds):
            return untimed
    log.info("engine: trying programs for %d images at a time, for about %.0f s", batch_size, seconds)
    tuner = _Tuner(program, rules, batch_size, seconds)
    first = tuner.attempt(likely, xla=False)
    if first is None and batch_size > 1 and tuner.short_of_memory:
        log.info("engine: %d images at a time need more memory than there is; trying half", batch_size)
        return choose(program, batch_size // 2, seconds=seconds, images=images)
    if first is None:
        return untimed
    if images is not None:
        if images * first < seconds:  # the guess was far too high
            return replace(untimed, report=program.report | {"seconds_per_image": first})
        tuner.deadline = tuner.began + max(seconds, TUNING_SHARE * images * first)
    tuner.time_kernels()
    for size in sorted(set(sizes)):
        if size != likely or tuner.chosen:
            tuner.attempt(size, xla=False)
    if rules.fuses:
        tuner.attempt(sizes[-1], xla=True)
    return tuner.conclusion(tuner.tape_seconds())


def _timed_tape(program: RowProgram, batch_size: int, images: int | None, seconds: float) -> Choice:
    """One backward pass per row, or one that TensorFlow makes of them all: whichever is faster."""
    others, times = host.OtherProcesses(), dict[int, float]()
    probe = program.probe(batch_size)
    for size in sorted({1, program.row_count}):
        try:
            rows = partial(program.tape_rows, count=program.row_count, chunk=size)
            compiled = program.trial(rows, batch_size)
            backend.wait(compiled(probe))
            times[size] = backend.seconds(compiled, [probe], 0.3) / batch_size
        except backend.Unsupported as error:
            log.debug("engine: a tape with %d rows per pass: %s", size, error)
        if images is not None and images * times.get(size, 0.0) < seconds:
            break  # the run would be over before another program is compiled
    size = min(times, key=times.__getitem__, default=1)
    report = program.report | {"seconds_per_image": times.get(size)}
    return Choice("tape", size, batch_size, busy=others.share() > BUSY_SHARE, report=report)


def _trial_passes(size: int, passes: int) -> int:
    """Backward passes of a trial of a program with so many rows per pass."""
    return min(passes, size * max(1, TRIED_PASSES // size))


def _chunk_sizes(program: RowProgram, rules: RuleRows, batch_size: int) -> tuple[int, int, int]:
    """Rows per pass: few, what keeps the widest tensor in the caches, and what memory has room for."""
    per_row = batch_size * rules.widest * np.dtype(program.dtype).itemsize
    most = max(1, min(program.passes, int(program.memory_bytes / 8 / (4 * per_row))))
    if rules.work * batch_size * program.passes < SMALL_WORK:
        return most, most, most
    least = min(most, HEAVY_ROWS) if rules.heavy else 1
    return least, max(least, min(most, backend.CACHE_BYTES // per_row)), most


Tried = tuple[int, bool]
"""Rows per pass, and whether XLA compiled it."""


class _Tuner:
    """Programs tried one after the other, as long as time lasts.

    Attributes:
        seconds: per image, of the programs that fit into memory.
        memory: bytes at their peak, beyond those before the first program.
        chosen: the fastest kernels, as far as they were timed.
        deadline: by time.monotonic().
        short_of_memory: whether a program took more than it may.
    """

    def __init__(self, program: RowProgram, rules: RuleRows, batch_size: int, allowed_seconds: float):
        self.began, self._others = time.monotonic(), host.OtherProcesses()
        self._program, self._rules, self._batch_size = program, rules, batch_size
        self._places: dict[str, Place] = {}
        self._last = 0.0
        self._images = program.probe(batch_size)
        # TensorFlow keeps what it has freed, so memory is counted from here on, and not for each program
        # anew.
        self._used = backend.used_bytes()
        self._forward: float | None = None
        self.seconds: dict[Tried, float] = {}
        self.memory: dict[Tried, int] = {}
        self.deadline = self.began + allowed_seconds
        self.short_of_memory = False
        self.chosen: dict[str, str] = {}

    def attempt(self, size: int, xla: bool) -> float | None:
        """Time a program, if the last one says that there is time; None where it was not or does not fit."""
        tried = (size, xla)
        if self.seconds and time.monotonic() + self._last > self.deadline:
            return None
        began = time.monotonic()
        program, batch, passes = self._program, self._batch_size, self._program.passes
        trial = _trial_passes(size, passes)
        kernels = Kernels(self.chosen, None if self.seconds else self._places)
        try:
            compiled = program.trial(lambda x: program.rule_rows(x, size, kernels, trial), batch, xla)
            _, peak = backend.peak_of(lambda: backend.wait(compiled(self._images)))
            need = max(0, peak - self._used)
            need += ROW_COPIES * (max(passes, program.row_count) - trial) * program.image_bytes * batch
            if need > program.memory_bytes and (batch > 1 or self.seconds):
                self.short_of_memory = True
                return None
            taken = backend.seconds(compiled, [self._images], 0.3)
        except backend.OutOfMemory:  # which is one of Unsupported too
            self.short_of_memory = True
            return None
        except backend.Unsupported as error:
            log.debug("engine: %d rows per pass%s: %s", size, " with XLA" if xla else "", error)
            return None
        forward = self._forward_seconds() if trial < passes else 0.0
        self.memory[tried] = need
        self.seconds[tried] = (forward + max(taken - forward, 0) * passes / trial) / batch
        self._last = time.monotonic() - began
        return self.seconds[tried]

    def conclusion(self, tape_seconds: float | None) -> Choice:
        """The fastest of all that was tried.

        Args:
            tape_seconds: that the tape takes per image; None where that is not known.
        """
        program, rules, batch_size = self._program, self._rules, self._batch_size
        (size, xla), seconds = min(self.seconds.items(), key=lambda item: item[1])
        report = program.report | {
            "passes": program.passes,
            "seconds_per_image": seconds,
            "rows_per_pass": {f"{n}{' xla' * fused}": found for (n, fused), found in self.seconds.items()},
            "memory_bytes": self.memory[size, xla],
            "tuning_seconds": time.monotonic() - self.began,
        }
        words = f"{rules.summary}; {program.passes} backward passes for {program.row_count} rows, "
        words += f"{size} at a time{' with XLA' * xla}: about {1e3 * seconds:.3g} ms per image"
        if tape_seconds is not None:
            report |= {"tape_seconds_per_image": tape_seconds, "gain": tape_seconds / seconds}
            words += f", {tape_seconds / seconds:.3g} times as fast as a tape"
        log.info("engine: %s", words)
        busy = self._others.share() > BUSY_SHARE
        if tape_seconds is not None and tape_seconds < seconds:
            log.info("engine: going by the tape, which is faster here")
            return Choice("tape", 1, batch_size, busy=busy, report=report)
        return Choice("rules", size, batch_size, xla, self.chosen, busy, report)

    def time_kernels(self) -> None:
        """Choose kernels, in half of the time that is left."""
        now = time.monotonic()
        self.chosen = fastest(self._places, now + max(0.0, self.deadline - now) / 2)

    def tape_seconds(self) -> float | None:
        """About how long the tape takes per image; None where there is no time to find out."""
        program, batch = self._program, self._batch_size
        if time.monotonic() + 2 * self._last > self.deadline:
            return None
        rows = min(program.row_count, TAPE_ROWS)
        taken = self._seconds(lambda x: program.tape_rows(x, rows), 0.2)
        # One forward pass and `rows` backward passes were timed; the whole is one and R.
        return taken * (1 + program.row_count) / (1 + rows) / batch

    def _forward_seconds(self) -> float:
        if self._forward is None:
            self._forward = self._seconds(lambda x: self._rules.forward(x, Kernels()), 0.1)
        return self._forward

    def _seconds(self, function: Callable[[Tensor], Tensors], stop: float) -> float:
        """Of a function of a batch, compiled."""
        compiled = self._program.trial(function, self._batch_size)
        backend.wait(compiled(self._images))
        return backend.seconds(compiled, [self._images], stop)
