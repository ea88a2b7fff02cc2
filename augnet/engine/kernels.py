"""Which of several kernels for the same thing is used: the likeliest, or the fastest of those timed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from augnet.engine.backends import backend
from augnet.engine.types import Tensor

log = logging.getLogger(__name__)

TIMED_ELEMENTS = 2**21
"""Elements that a kernel is timed on: enough to fill the device, few enough to be done in milliseconds."""
KERNEL_SECONDS = 0.1
"""One kernel is not timed longer than this."""
HOPELESS = 4.0
"""How many times slower a kernel's first run may be than another's best, to be run again."""

Kernel = Callable[[Tensor], Tensor]
"""One way to compute something."""

Place = tuple[dict[str, Kernel], tuple[int, ...], str]
"""Where a program has several kernels: these by name, and the shape and dtype of their argument."""


@dataclass(frozen=True)
class Kernels:
    """Chooses among kernels that compute the same thing.

    Attributes:
        chosen: the name of a kernel by key; where none is known it is the likeliest.
        places: by key, where there were several, to be timed after the trace; None: not remembered.
    """

    chosen: dict[str, str] = field(default_factory=dict)
    places: dict[str, Place] | None = None

    def choose(self, key: str, candidates: dict[str, Kernel], shape: tuple[int, ...], dtype: str) -> Kernel:
        """The kernel to use for an argument of this shape and dtype.

        Args:
            key: what the computation is, the batch aside. It is stored with what was chosen.
            candidates: functions of one tensor by name, the likeliest first. They hold arrays, shapes and
                dtypes and never a tensor of the program that is being traced, so they may be kept, and be
                timed in a program of their own, after that trace has ended.
        """
        if self.places is not None and len(candidates) > 1:
            self.places.setdefault(key, (candidates, shape, dtype))
        name = self.chosen.get(key)
        return candidates[name] if name in candidates else next(iter(candidates.values()))


def fastest(places: dict[str, Place], deadline: float) -> dict[str, str]:
    """The name of the fastest kernel by key, for as many as can be timed before time.monotonic() is that."""
    chosen: dict[str, str] = {}
    for key, place in places.items():
        if time.monotonic() >= deadline:
            break
        times = _times(key, *place)
        if times:
            chosen[key] = min(times, key=times.__getitem__)
            log.debug("engine: %s: %s", key, {name: f"{t * 1e3:.2f} ms" for name, t in times.items()})
    return chosen


def _times(key: str, candidates: dict[str, Kernel], shape: tuple[int, ...], dtype: str) -> dict[str, float]:
    """Seconds by candidate; those that cannot do it here are left out."""
    few = max(1, min(shape[0], TIMED_ELEMENTS // math.prod(shape[1:])))
    shape, dtype = (few, *shape[1:]), str(getattr(dtype, "name", dtype))
    x = backend.to_device(np.random.default_rng(0).standard_normal(shape, np.float32), dtype)
    times: dict[str, float] = {}
    for name, kernel in candidates.items():
        try:
            program = backend.compiled(kernel, [(shape, dtype)])
            start = time.perf_counter()
            backend.wait(program(x))  # the first run prepares what the others use
            first = time.perf_counter() - start
            if first > max(HOPELESS * min(times.values(), default=math.inf), KERNEL_SECONDS):
                times[name] = first
            else:
                times[name] = backend.seconds(program, [x], KERNEL_SECONDS)
        except backend.Unsupported as error:
            log.debug("engine: %s cannot be done as %s here (%s)", key, name, error)
    return times
