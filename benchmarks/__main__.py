"""`python -m benchmarks [NAME ...]`: those named of BENCHMARKS, or all.

`python -m benchmarks.findings` takes hours, and arguments of its own.
"""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = (
    "engine",
    "calls",
    "pipeline",
    "formats",
    "memory",
    "scale",
    "report",
    "compare",
    "sketch",
    "survival",
)

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        if name not in BENCHMARKS:
            raise SystemExit(f"{name}: no such benchmark; known: {', '.join(BENCHMARKS)}")
        importlib.import_module(f"benchmarks.{name}").main()
