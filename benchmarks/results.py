"""RESULTS.md: one section per benchmark, each replaced when its benchmark runs again."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "RESULTS.md"


def write_section(title: str, lines: Sequence[str]) -> None:
    """Put the section `title` into RESULTS.md, in place of an earlier one of that title."""
    body = "\n".join([f"## {title}", "", *lines, "", f"{date.today()}, {machine()}.", ""])
    text = RESULTS.read_text() if RESULTS.exists() else "# Benchmark results\n"
    earlier = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    replaced, found = earlier.subn(lambda _: f"{body}\n", text)
    text = replaced if found else f"{text.rstrip()}\n\n{body}"
    RESULTS.write_text(text.rstrip() + "\n")
    print("\n".join(lines))


def machine() -> str:
    """The machine in words: processor kind, cores, libraries."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    libraries = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "apache-beam"))
    cores = f"{os.cpu_count()} {platform.machine()} cores with {vectors}"
    return f"{cores}, Python {platform.python_version()}, {libraries}"
