"""This machine: its memory, how much of it a process takes, and who else uses its processors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def used_bytes() -> int:
    """Memory that this process holds; 0 where the system does not tell (only Linux does)."""
    return _proc("self/status", "VmRSS") or 0


def peak_of(function: Callable[[], Any]) -> tuple[Any, int]:
    """What the function returns, and the memory that this process held at its peak meanwhile.

    0 where the system does not tell, or does not let a process begin a new peak.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return function(), 0
    made = function()
    return made, _proc("self/status", "VmHWM") or 0


def _proc(file: str, key: str) -> int | None:
    """Bytes that the kernel says in a file of /proc; None where it says nothing."""
    path = Path("/proc", file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def free_bytes() -> int:
    """Free memory of this machine or container, in bytes."""
    free = _proc("meminfo", "MemAvailable")
    if free is None:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 256 * 1024**2)


class OtherProcesses:
    """How much of this machine's processors others use, from now on."""

    def __init__(self) -> None:
        self._before = self._read()

    def share(self) -> float:
        """In [0, 1], since this object was made; 0.0 where the system does not tell (only Linux does)."""
        before, now = self._before, self._read()
        if before is None or now is None or now[0] <= before[0]:
            return 0.0
        total, busy, own = (b - a for a, b in zip(before, now, strict=True))
        return min(1.0, max(0.0, (busy - own) / total))

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Seconds of all processors, those not idle, and those of this process."""
        path = Path("/proc/stat")
        if not path.exists():
            return None
        ticks = [int(part) for part in path.read_text().splitlines()[0].split()[1:9]]
        per_second = os.sysconf("SC_CLK_TCK")
        idle = ticks[3] + ticks[4]
        own = os.times()
        return sum(ticks) / per_second, (sum(ticks) - idle) / per_second, own.user + own.system
