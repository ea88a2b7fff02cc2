"""Every file name of an audit, in one place."""

from __future__ import annotations

import re

RUN = "run.json"
PLAN = "plan.parquet"
SUMMARY = "summary.json"
TRIAGE = "triage.json"
OUTPUTS = "outputs.parquet"
SLICES = "slices.parquet"
OUTPUT_PAIRS = "output_pairs.parquet"
MAPS = "maps.npz"
GALLERY = "gallery.npz"
CANDIDATES = "candidates.json"
FINDINGS = "findings.json"
CONTROL = "control.json"
"""What an audit saw, by a control with random weights beside it: there where such a control is."""
RESULTS = (PLAN, SUMMARY, TRIAGE, OUTPUTS, SLICES, OUTPUT_PAIRS, MAPS, GALLERY, CANDIDATES, FINDINGS)
MANIFEST = "manifest.json"
REPORT_FOLDER = "report"
REPORT = f"{REPORT_FOLDER}/index.html"

IN_MEMORY = "(in memory)"
"""Ends what stands for the path of a model, or of images, that were handed over as objects."""

TEMPORARY_PREFIX = ".writing-"
"""Files that are being written have this prefix; what is left of them after a crash may be deleted."""

SHARD_SUFFIXES = {
    "statistics": "parquet",
    "jacobians": "parquet",  # or npz, as store.format says
    "failures": "parquet",
    "aggregates": "npz",
    "records": "json",
    "interventions": "parquet",  # and the record of each, json
}
FOLDERS = (*SHARD_SUFFIXES, REPORT_FOLDER)

_FINISHED = re.compile(
    "|".join(
        [
            *map(re.escape, (RUN, *RESULTS, CONTROL, MANIFEST)),
            r"engine-[a-z]+\.json",
            *(
                rf"{kind}/part-\d{{5,}}-of-\d{{5,}}\.{suffix}"
                for kind, suffix in (
                    SHARD_SUFFIXES | {"jacobians": "(parquet|npz)", "interventions": "(parquet|json)"}
                ).items()
            ),
            rf"{REPORT_FOLDER}/[\w-]+\.(html|css|js|png)",
        ]
    )
)
_TEMPORARY = re.compile(rf"(({'|'.join(FOLDERS)})/)?{re.escape(TEMPORARY_PREFIX)}\w+")


def shard(kind: str, unit_id: int, unit_count: int, suffix: str | None = None) -> str:
    """`statistics/part-00003-of-00032.parquet`: the same unit always writes the same name."""
    return f"{kind}/part-{unit_id:05d}-of-{unit_count:05d}.{suffix or SHARD_SUFFIXES[kind]}"


def engine(device: str) -> str:
    """`engine-cpu.json`: what the engine chose on this kind of device."""
    return f"engine-{device}.json"


def is_finished(name: str) -> bool:
    """Whether the name is that of an audit's file, and not of one that is being written."""
    return bool(_FINISHED.fullmatch(name))


def belongs_to_audit(name: str) -> bool:
    """Whether an audit writes a file of this name in its output folder. No other is read or deleted there."""
    return is_finished(name) or bool(_TEMPORARY.fullmatch(name))
