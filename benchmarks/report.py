"""The report of 100,000 images, with 10 and with 1000 outputs: size, and time to render and to open it.

The audit is made up, but written by the audit's own writers: statistics of every image, and in each unit's
aggregate pictures and rows of 224x224x3 images. Rendering runs in a process of its own, so that its peak
memory is its own; the page is opened in Chromium, from disk, where that is installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write_section

IMAGES, UNIT, SIDE, THUMBNAIL = 100_000, 512, 224, 112
OUTPUTS = (10, 1000)
OPENINGS = 3


def main() -> None:
    """Write the section `Report` of RESULTS.md."""
    rows = []
    for outputs in OUTPUTS:
        with tempfile.TemporaryDirectory(prefix="augnet-report-") as scratch:
            folder = Path(scratch, "audit")
            make_audit(folder, outputs)
            found = _in_process("render", folder) | {"outputs": outputs} | sizes(folder)
            rows.append(found | {"open": opening_seconds(folder)})
    lines = [
        f"`python -m benchmarks report`: a made-up audit of {IMAGES:,} images of {SIDE}x{SIDE}x3, "
        "`report.images` at its default. The page is index.html with its style, scripts and data; it is open "
        "when the first rows of the table are there, in headless Chromium, from disk.",
        "",
        "| outputs | images held | page | beside it | files | opening | rendering | processor | memory |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['outputs']} | {row['held']:,} | {row['page'] / 1e6:.2f} MB | "
            f"{row['beside'] / 1e6:.1f} MB | {row['files']} | {row['open']} | {row['seconds']:.1f} s | "
            f"{row['processor']:.1f} s | {row['peak_bytes'] / 2**20:.0f} MiB |"
            for row in rows
        ),
    ]
    write_section("Report", lines)


def make_audit(folder: Path, outputs: int, images: int = IMAGES) -> None:
    """A finished audit of images that are only numbers."""
    import pyarrow as pa

    from augnet.audits.run import Run
    from augnet.config import load_config
    from augnet.engine import ModelSpec
    from augnet.jobs.finish import finish
    from augnet.statistics.aggregate import Aggregate, Shape
    from augnet.statistics.gallery import sample_bounds
    from augnet.statistics.moments import choose_map_pool
    from augnet.storage import names, schema
    from augnet.storage.files import OutputFolder, UnitRecord
    from augnet.storage.shards import write_table
    from augnet.storage.unit import UnitFiles

    labels = [f"n{k:05d}" for k in range(outputs)]
    units = -(-images // UNIT)
    flags = {"model.path": "model.keras", "images.path": "/data/images", "output": str(folder)}
    config = load_config(flags=flags | {"store.jacobians": "none"})
    pool = choose_map_pool(2 * outputs, SIDE, SIDE, 3, config.statistics.map_bytes)
    label_images = tuple(len(range(k, images, outputs)) for k in range(outputs))
    run = Run(
        config=config,
        fingerprint="0" * 64,
        identity={"config": json.loads(config.model_dump_json())},
        model=ModelSpec((SIDE, SIDE, 3), outputs, "softmax", "logits", False),
        preprocess={"scale": "unit", "reason": "It is made up.", "warnings": []},
        images=images,
        units=units,
        labels=tuple(labels),
        label_images=label_images,
        label_outputs={label: k for k, label in enumerate(labels)},
        label_rule="made up",
        map_pool=pool,
        versions={"augnet": "0"},
    )
    out = OutputFolder(str(folder))
    run.write(out)
    with out.writing(names.PLAN) as path:
        write_table(path, schema.PLAN.empty_table())
    bounds = sample_bounds(config.report.images, images, label_images)
    shape = Shape(outputs, outputs, SIDE, SIDE, 3, map_pool=pool, gallery=config.report.images)
    for unit in range(units):
        numbers = np.arange(unit * UNIT, min(images, (unit + 1) * UNIT))
        rng = np.random.default_rng(unit)
        columns = _columns(numbers, outputs, labels, rng)
        aggregate = Aggregate.empty(shape)
        _fill(aggregate, numbers, columns, outputs, rng, bounds)
        files = UnitFiles(out, unit, units)
        columns = {name: pa.array(columns[name], schema.STATISTICS.field(name).type) for name in columns}
        files.add(columns, np.zeros((len(numbers), 0), np.int32), None)
        entries = files.close([], aggregate.save)
        record = UnitRecord(unit, run.fingerprint, len(numbers), len(numbers), 0, entries)
        out.write_bytes(names.shard("records", unit, units), record.to_json())
    finish(str(folder))


def _columns(
    numbers: np.ndarray, outputs: int, labels: list[str], rng: np.random.Generator
) -> dict[str, Any]:
    """Made-up values for every column of statistics/."""
    from augnet.storage.catalog import catalog

    label = numbers % outputs
    predicted = np.where(rng.random(len(numbers)) < 0.8, label, rng.integers(0, outputs, len(numbers)))
    columns: dict[str, Any] = {kind.name: [None] * len(numbers) for kind in catalog()}
    columns |= {kind.name: rng.gamma(2.0, size=len(numbers)) for kind in catalog() if kind.is_scalar}
    names = [f"{labels[k]}/{labels[k]}_{number:08d}.JPEG" for k, number in zip(label, numbers, strict=True)]
    return columns | {
        "image_id": names,
        "uri": [f"/data/images/{name}" for name in names],
        "label": [labels[k] for k in label],
        "predicted": predicted,
        "correct": predicted == label,
        "rival": (predicted + rng.integers(1, outputs, len(numbers))) % outputs,
        "flags": [["zero_gradient"] if flagged else [] for flagged in rng.random(len(numbers)) < 0.001],
    }


def _fill(
    aggregate: Any,
    numbers: np.ndarray,
    columns: dict[str, Any],
    outputs: int,
    rng: np.random.Generator,
    bounds: np.ndarray,
) -> None:
    """Pictures, rows, maps and pairs of a unit."""
    from augnet.engine.batch import VIEWS, view_pool
    from augnet.storage.catalog import SCALARS

    count, side = len(numbers), -(-SIDE // view_pool(SIDE, SIDE))
    aggregate.images, aggregate.labels[:] = count, np.bincount(numbers % outputs, minlength=outputs)
    coarse = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    pictures = coarse.repeat(THUMBNAIL // 16, axis=1).repeat(THUMBNAIL // 16, axis=2)
    views = rng.normal(size=(16, len(VIEWS), side, side)).astype(np.float32)
    aggregate.gallery.add(
        {name: columns[name] for name in SCALARS},
        columns["image_id"],
        flagged=np.array([bool(flags) for flags in columns["flags"]]),
        label_ids=numbers % outputs,
        rivals=columns["rival"],
        views=views[numbers % len(views)],
        picture=lambda k: pictures[k % len(pictures)],
        bounds=bounds,
    )
    np.add.at(aggregate.pairs.rivals, (columns["predicted"], columns["rival"]), 1)
    if numbers[0] == 0:  # one unit has rows of all outputs, and of all labels
        moments = aggregate.moments
        moments.count[:] = 10
        for maps in (moments.mean, moments.m2, moments.mean_abs, moments.max_abs):
            maps[:] = np.abs(rng.standard_normal(maps.shape))
        aggregate.pairs.count[:] = 10
        aggregate.pairs.cosine[:] = rng.uniform(-10, 10, aggregate.pairs.cosine.shape)


def render_again(folder: str) -> dict[str, Any]:
    """Time and peak memory of `augnet report`."""
    from augnet.report.page import render
    from augnet.storage.reader import Audit

    began, used = time.perf_counter(), time.process_time()
    audit = Audit.open(folder)
    render(audit)
    return {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - used,
        "held": len(audit.gallery["image_id"]),
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """Peak resident memory of this program; that of getrusage counts what its parent had, too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) * 1024


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of what the page loads when it opens, and of what lies beside it; and the number of files."""
    files = list((folder / "report").iterdir())
    text = (folder / "report" / "index.html").read_text()
    opened = [path for path in files if path.name == "index.html" or f'"{path.name}"' in text]
    page = sum(path.stat().st_size for path in opened)
    return {"page": page, "beside": sum(path.stat().st_size for path in files) - page, "files": len(files)}


def opening_seconds(folder: Path) -> str:
    """The median of some openings, or that no browser is there."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        return "no browser"
    from tests.browser import chromium

    seconds = []
    for _ in range(OPENINGS):
        with chromium() as browser:
            began = time.perf_counter()
            browser.open(folder / "report" / "index.html")
            browser.wait("document.querySelectorAll('#image-list tbody tr').length > 0")
            seconds.append(time.perf_counter() - began)
    return f"{sorted(seconds)[OPENINGS // 2]:.2f} s"


def _in_process(part: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.report", part, str(folder)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ).stdout
    return json.loads(printed.splitlines()[-1])


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(render_again(sys.argv[2])))
    else:
        main()
