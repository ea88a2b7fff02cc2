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


@dataclass(frozen=True)
class ChosenKernels:
    """The kernels that were chosen earlier; the likeliest, which is the first, where nothing was.

    Attributes:
        chosen: name of a candidate by key.
    """

    chosen: dict[str, str] = field(default_factory=dict)

    def choose(self, key: str, candidates: dict[str, Kernel], shape: tuple[int, ...], dtype: str) -> Kernel:
        """See rules.base.Kernels."""
        name = self.chosen.get(key)
        return candidates[name] if name in candidates else next(iter(candidates.values()))


@dataclass(frozen=True)
class KernelChoice:
    """One place of a program where there are several kernels.

    Attributes:
        candidates: by name, the likeliest first.
        shape, dtype: of the argument.
    """

    candidates: dict[str, Kernel]
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class CollectedKernels:
    """Takes the likeliest kernels, and remembers what else there was, to be timed after the trace."""

    choices: dict[str, KernelChoice] = field(default_factory=dict)

    def choose(self, key: str, candidates: dict[str, Kernel], shape: tuple[int, ...], dtype: str) -> Kernel:
        """See rules.base.Kernels."""
        if len(candidates) > 1:
            self.choices.setdefault(key, KernelChoice(candidates, shape, dtype))
        return next(iter(candidates.values()))

    def fastest(self, deadline: float) -> dict[str, str]:
        """The name of the fastest candidate by key, for as many as can be timed before the deadline.

        Args:
            deadline: by time.monotonic().
        """
        chosen: dict[str, str] = {}
        for key, choice in self.choices.items():
            if time.monotonic() >= deadline:
                break
            times = _times(key, choice)
            if times:
                chosen[key] = min(times, key=times.__getitem__)
                log.debug("engine: %s: %s", key, {name: f"{t * 1e3:.2f} ms" for name, t in times.items()})
        return chosen


def _times(key: str, choice: KernelChoice) -> dict[str, float]:
    """Seconds by candidate; those that cannot do it here are left out."""
    few = max(1, min(choice.shape[0], TIMED_ELEMENTS // math.prod(choice.shape[1:])))
    shape = (few, *choice.shape[1:])
    dtype = str(getattr(choice.dtype, "name", choice.dtype))
    x = backend.to_device(np.random.default_rng(0).standard_normal(shape, np.float32), dtype)
    times: dict[str, float] = {}
    for name, kernel in choice.candidates.items():
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
