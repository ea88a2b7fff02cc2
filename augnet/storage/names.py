"""Every file name of an audit, in one place."""

from __future__ import annotations

RUN = "run.json"
PLAN = "plan.parquet"
SUMMARY = "summary.json"
OUTPUTS = "outputs.parquet"
SLICES = "slices.parquet"
OUTPUT_PAIRS = "output_pairs.parquet"
MAPS = "maps.npz"
GALLERY = "gallery.npz"
REPORT_FOLDER = "report"
REPORT = f"{REPORT_FOLDER}/index.html"
MANIFEST = "manifest.json"

TEMPORARY_PREFIX = ".writing-"
"""Files that are being written have this prefix; what is left of them after a crash may be deleted."""

SHARD_SUFFIXES = {
    "statistics": "parquet",
    "jacobians": "parquet",  # or npz, as store.format says
    "failures": "parquet",
    "aggregates": "npz",
    "records": "json",
}


def shard(kind: str, unit_id: int, unit_count: int, suffix: str | None = None) -> str:
    """`statistics/part-00003-of-00032.parquet`: the same unit always writes the same name."""
    return f"{kind}/part-{unit_id:05d}-of-{unit_count:05d}.{suffix or SHARD_SUFFIXES[kind]}"


def engine(device: str) -> str:
    """`engine-cpu.json`: what the engine chose on this kind of device."""
    return f"engine-{device}.json"


def belongs_to_audit(name: str) -> bool:
    """Whether an audit writes a file or folder of this name at the top of its output folder."""
    files = (RUN, PLAN, SUMMARY, OUTPUTS, SLICES, OUTPUT_PAIRS, MAPS, GALLERY, MANIFEST)
    folders = (*SHARD_SUFFIXES, REPORT_FOLDER)
    return (
        name in files
        or name in folders
        or name.startswith(TEMPORARY_PREFIX)
        or (name.startswith("engine-") and name.endswith(".json"))
    )
