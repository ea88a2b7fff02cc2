"""Choosing by timing, once; afterwards only what was chosen is done."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from augnet.engine.backends import tensorflow as backend

log = logging.getLogger(__name__)


TIMED_ELEMENTS = 2**21
"""Elements that a way is timed on: enough to fill the device, few enough to be done in milliseconds."""

BATCH_ELEMENTS = 10**7
"""Elements of the largest tensor of a batch: more gain nothing on a CPU (benchmarks/engine.py)."""
MEMORY_SHARE = 0.5
"""Of the memory that is free: decoding, writing and Beam need room beside the engine."""

Ways = dict[str, Callable[[Any], Any]]


def default_memory() -> int:
    """Bytes that an engine may use when nobody says."""
    return int(MEMORY_SHARE * backend.free_bytes())


class FixedPaths:
    """The ways that were chosen earlier; the first one where nothing was."""

    def __init__(self, chosen: dict[str, str] | None = None):
        self.chosen = dict(chosen or {})

    def choose(self, key: str, ways: Ways, shape: tuple[int, ...], dtype: Any) -> Callable[[Any], Any]:
        """The way for an argument of this shape; the key says what matters of it beside the batch."""
        name = self.chosen.get(key)
        return ways[name] if name in ways else next(iter(ways.values()))


class TimedPaths(FixedPaths):
    """Times every way when it is first asked for, as long as the time allowed lasts."""

    def __init__(self, seconds: float, chosen: dict[str, str] | None = None):
        super().__init__(chosen)
        self._deadline = time.monotonic() + seconds

    def choose(self, key: str, ways: Ways, shape: tuple[int, ...], dtype: Any) -> Callable[[Any], Any]:
        if key not in self.chosen and len(ways) > 1 and time.monotonic() < self._deadline:
            few = max(1, min(shape[0], TIMED_ELEMENTS // math.prod(shape[1:])))
            times: dict[str, float] = {}
            for name, way in ways.items():
                try:
                    best = min(times.values(), default=math.inf)
                    times[name] = backend.seconds(way, (few, *shape[1:]), dtype, best)
                except backend.Unsupported as error:
                    log.debug("engine: %s cannot be done as %s here (%s)", key, name, error)
            if times:
                self.chosen[key] = min(times, key=times.__getitem__)
                log.debug(
                    "engine: %s: %s", key, {name: f"{value * 1e3:.2f} ms" for name, value in times.items()}
                )
        return super().choose(key, ways, shape, dtype)


@dataclass(frozen=True)
class Choice:
    """What an engine does, as chosen once, for every other worker and every resumed run.

    Attributes:
        program: "rewritten" (rules over the rewritten graph) or "plain" (a tape over the model).
        rows_per_pass: rows of an image that go through a backward pass together.
        batch_size: images per batch.
        xla: whether the rows are computed by one XLA program.
        paths: the way chosen for every operation that has several.
        report: what was found, for people: times, gain, agreement, and `error`, the normwise relative
            difference between the rows and those of the plain program in the arithmetic `error_against`.
            Nothing depends on it.
        busy: the machine had other work while programs were timed: for this run, not for later ones.
    """

    program: str
    rows_per_pass: int
    batch_size: int
    xla: bool = False
    paths: dict[str, str] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    busy: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Choice:
        """What to_json() gave. Raises TypeError for what is none, or another version's."""
        return cls(**tree)


@dataclass(frozen=True)
class Problem:
    """What there is to choose for.

    Attributes:
        plain, rewritten: the two programs; rewritten is None for a model without a graph.
        oracle: both again in float64, for when float32 cannot tell a kink from a fault; None where there is
            none.
        images: probe images (n, *model_input).
        output_count: K.
        row_count: R.
        batch_size: images per batch.
        widest: elements of the largest tensor of an image.
        work: elements of all tensors of an image.
        memory_bytes: what the engine may use.
        rounding: of one product in a coarse arithmetic (bfloat16, TF32), where float64 has to judge; else 0.
    """

    plain: Any
    rewritten: Any
    oracle: Callable[[], tuple[Any, Any]] | None
    images: np.ndarray
    output_count: int
    row_count: int
    batch_size: int
    widest: int
    work: int
    memory_bytes: int
    rounding: float = 0.0


DISAGREES = "disagrees with the plain program"
KINK = 1e-4
"""Above this normwise difference of two float32 Jacobians a kink or a fault is at work, not rounding."""
FLOAT64_FAULT = 1e-5
"""Above this normwise difference of two float64 Jacobians it is a fault (constants may be float32)."""
COARSE_FACTOR = 3
"""In a coarse arithmetic the rewritten program may be so many times as far from float64 as the plain one."""
UNRULED_ROWS = 16
"""Rows per pass where a tape has to take them one by one: each is written into the program."""
HEAVY_ROWS = 5
"""Rows per pass, at least, of a program whose weights are laid out anew in every pass."""
TRIED_PASSES = 4
TRIAL_RUNS = 3
"""Of a program while it is tried, about."""
QUICK_SECONDS = 0.5
"""A program whose trial takes no longer is tried even when the time is up: it may be twice as fast."""
ROW_COPIES = 3
"""Of the rows that were not computed when a program was timed: passes leave them in pieces."""
CHECKED_IMAGES = 4
CHECKED_ROWS = 2
"""Rows and images that the programs are compared on: the plain one may be very slow."""
SMALL_WORK = 3e6
"""Elements touched per batch below which a program takes milliseconds, and timing is not worth it."""


def choose(problem: Problem, seconds: float) -> Choice:
    """The fastest program that agrees with the plain one, by timing it for about so many seconds."""
    start = time.monotonic()
    rewritten, batch, rows = problem.rewritten, problem.batch_size, problem.row_count
    plain = Choice("plain", 1, batch)
    if rewritten is None:
        return plain
    agreed, slow, plain_wins = _compared(problem)
    if not agreed.words:
        return replace(plain, report={"rewritten": DISAGREES} | _error_report(agreed.plain_error, "float64"))
    passes = rewritten.passes or rows
    sizes = chunk_sizes(problem, passes)
    report: dict[str, Any] = {"agreement": agreed.words, "passes": passes}
    report |= _error_report(agreed.error, agreed.against)
    if problem.work * batch * passes < SMALL_WORK or seconds <= 0:
        return Choice("rewritten", sizes[-1], batch, report=report)
    paths = TimedPaths(0.5 * seconds)
    trials = _trials(problem, sizes, paths, start + seconds)
    fitting = {way: trial for way, trial in trials.items() if trial.seconds < math.inf}
    if trials and not fitting:
        log.info("engine: %d images at a time need more memory than there is; trying half", batch)
        return choose(replace(problem, batch_size=batch // 2), seconds)
    if not fitting:
        return replace(plain, report=_error_report(agreed.plain_error, "float64"))
    (size, xla), best = min(fitting.items(), key=lambda item: item[1].seconds)
    fast = best.seconds
    report |= {
        "seconds_per_image": fast,
        "plain_seconds_per_image": slow,
        "gain": slow / fast,
        "rows_per_pass": {f"{n}{' xla' if fused else ''}": t.seconds for (n, fused), t in fitting.items()},
        "memory_bytes": best.memory,
        "tuning_seconds": time.monotonic() - start,
    }
    log.info(
        "engine: %s; %d backward passes for %d rows, %d at a time%s: about %.3g ms per image, %.3g times "
        "as fast as the plain way",
        rewritten.summary,
        passes,
        rows,
        size,
        " with XLA" if xla else "",
        1e3 * fast,
        slow / fast,
    )
    if slow < fast and plain_wins:  # both times are short: only when they say the same
        if agreed.plain_error is not None:
            report["error"] = agreed.plain_error
        return replace(plain, report=report)
    return Choice("rewritten", size, batch, xla, dict(paths.chosen), report)


@dataclass(frozen=True)
class _Trial:
    """What a program took.

    Attributes:
        seconds: per image; infinite where it took more memory than it may.
        memory: bytes at its peak, beyond those before the first program.
    """

    seconds: float
    memory: int


def _trials(
    problem: Problem, sizes: list[int], paths: FixedPaths, deadline: float
) -> dict[tuple[int, bool], _Trial]:
    """Programs with these rows per pass, and one with XLA, as far as the time allows.

    Args:
        deadline: by time.monotonic().
    """
    rewritten, batch, rows = problem.rewritten, problem.batch_size, problem.row_count
    passes = rewritten.passes or rows
    # TensorFlow keeps what it has freed, so memory is counted from here on, and not for each program anew.
    used = backend.used_bytes()
    images = np.resize(problem.images, (batch, *problem.images.shape[1:])).astype(problem.images.dtype)
    program = _forward(rewritten, problem, paths)
    backend.run_rows(program, images)
    forward = backend.rows_seconds(program, images, 0.1)
    made: dict[tuple[int, bool], _Trial] = {}
    again = 0.0
    for size, xla in [(size, False) for size in sizes] + [(sizes[-1], True)] * rewritten.fuses:
        if again > QUICK_SECONDS and time.monotonic() + again > deadline:
            break
        # A few passes, so that their time stands out from the forward pass's.
        trial = min(passes, size * max(1, TRIED_PASSES // size))
        try:
            program = _program(rewritten, problem, rows, size, paths, xla, only=trial)
            _, peak = backend.peak_of(partial(backend.run_rows, program, images))
            need = max(0, peak - used) + ROW_COPIES * (max(passes, rows) - trial) * images.nbytes
            seconds = math.inf
            if need <= problem.memory_bytes or (batch == 1 and not made):
                taken = backend.rows_seconds(program, images, 0.3)
                again = TRIAL_RUNS * taken  # the next program runs about as long as the last one
                seconds = (forward + max(taken - forward, 0) * passes / trial) / batch
            made[size, xla] = _Trial(seconds, need)
        except backend.Unsupported as error:
            log.debug("engine: %d rows per pass%s: %s", size, " with XLA" if xla else "", error)
    return made


def _error_report(error: float | None, against: str) -> dict[str, Any]:
    return {} if error is None else {"error": error, "error_against": against}


def _compared(problem: Problem) -> tuple[Agreement, float, bool]:
    """The two programs on a few rows of a few images.

    Returns:
        how they agree, about how long the plain one takes per image, whether it was
        faster.
    """
    few = problem.images[: min(problem.batch_size, CHECKED_IMAGES)]
    if problem.work * len(few) > SMALL_WORK:
        few = few[:2]
    small = replace(problem, images=few, batch_size=len(few))
    rows = min(problem.row_count, CHECKED_ROWS)
    plain = _program(problem.plain, small, rows, 1, FixedPaths(), False)
    truth = backend.run_rows(plain, few)
    own = _program(problem.rewritten, small, rows, rows, FixedPaths(), False)
    made = backend.run_rows(own, few)
    # One forward pass and `rows` backward passes were timed; the whole is one and R.
    scale = (1 + problem.row_count) / (1 + rows) / len(few)
    slow, fast = (backend.rows_seconds(program, few, 0.2) for program in (plain, own))
    return agreement(truth, made, small), slow * scale, slow < fast


def chunk_sizes(problem: Problem, passes: int) -> list[int]:
    """Rows per pass worth trying: one, all, and what keeps the widest tensor near the size of the caches."""
    per_row = problem.batch_size * problem.widest * problem.images.itemsize
    most = max(1, min(passes, int(problem.memory_bytes / 8 / (4 * per_row))))
    if not problem.rewritten.ruled:
        most = min(most, UNRULED_ROWS)
    fitting = max(1, min(most, backend.CACHE_BYTES // per_row))
    if problem.work * problem.batch_size * passes < SMALL_WORK:
        return [most]
    least = min(most, HEAVY_ROWS) if problem.rewritten.heavy else 1
    return list(dict.fromkeys((least, max(least, fitting), most)))


def _program(
    program: Any,
    problem: Problem,
    rows: int,
    size: int,
    paths: FixedPaths,
    xla: bool,
    only: int | None = None,
) -> Any:
    """Outputs and the first rows, as a compiled program of an image batch."""
    eye = np.eye(problem.output_count)[:rows, None, :]
    options = {} if only is None else {"only": only}

    def function(x: Any) -> Any:
        def cotangents(outputs: Any) -> Any:
            return backend.constant(np.broadcast_to(eye, (rows, *outputs.shape)), outputs.dtype)

        return program.rows(x, cotangents, size, paths, **options)

    shape = (problem.batch_size, *problem.images.shape[1:])
    return backend.compiled(function, [(shape, str(problem.images.dtype))], xla, light=True)


def _forward(program: Any, problem: Problem, paths: FixedPaths) -> Any:
    shape = (problem.batch_size, *problem.images.shape[1:])
    signature = [(shape, str(problem.images.dtype))]
    return backend.compiled(lambda x: program.forward(x, paths), signature, light=True)


@dataclass(frozen=True)
class Agreement:
    """How the rewritten program agrees with the plain one.

    Attributes:
        words: for people; "" when they do not agree.
        error: normwise relative difference between its rows and those of the plain program.
        against: the arithmetic of that plain program: "float64" where it was made, else the engine's own.
        plain_error: of the plain program in the engine's arithmetic, against itself in float64; None where
            that was not made.
    """

    words: str
    error: float | None = None
    against: str = ""
    plain_error: float | None = None


def agreement(truth: Any, made: Any, problem: Problem) -> Agreement:
    """How the two programs agree.

    In a coarse arithmetic a fault and rounding look alike. So the programs are compared in float64, and the
    rewritten one must come about as close to that as the plain one.

    Args:
        truth, made: outputs (batch, K) and rows (batch, row, inputs) of the plain and the rewritten program.
    """
    error = difference(truth[1], made[1])
    apart = difference(truth[0][:, None], made[0][:, None]).max()
    if not np.isfinite(error).all() or apart > max(1e-3, 16 * problem.rounding):
        return Agreement("")
    same = error <= KINK
    if not problem.rounding and (same.all() or (same.sum() * 2 >= len(same) > 1 and error.max() < 0.1)):
        # A fault is in every image; a kink that rounding moved is in some.
        found, dtype = float(error[same].max()), str(truth[1].dtype)
        return Agreement(f"{found:.1e} in {dtype}" + ("" if same.all() else ", kinks left out"), found, dtype)
    if problem.oracle is None:
        return Agreement("")
    images = problem.images[:1].astype(np.float64)
    wide, rows = replace(problem, images=images, batch_size=1), truth[1].shape[1]
    exact, rewritten = (
        backend.run_rows(_program(program, wide, rows, 1, FixedPaths(), False), images)[1]
        for program in problem.oracle()
    )
    fault = difference(exact, rewritten).max()
    plain, own = (float(difference(exact, result[1][:1]).max()) for result in (truth, made))
    worse = problem.rounding and own > COARSE_FACTOR * plain + 8 * problem.rounding
    words = "" if fault > FLOAT64_FAULT or worse else f"{fault:.1e} in float64"
    return Agreement(words, own, "float64", plain)


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Normwise relative difference, image by image."""
    axes = tuple(range(1, first.ndim))
    norm = np.sqrt(np.square(first.astype(np.float64)).sum(axis=axes))
    return np.sqrt(np.square(first.astype(np.float64) - second).sum(axis=axes)) / np.maximum(norm, 1e-30)
