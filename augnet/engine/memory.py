"""How much memory there is for an engine."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 0.5
"""Of what is free: decoding, writing and Beam need room beside the engine."""


def default_budget() -> int:
    """Bytes that the engine may use when the user names no budget."""
    return int(free_bytes() * SHARE)


def free_bytes() -> int:
    """Free memory of this machine or container, in bytes."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return max(free, 256 * 1024**2)
