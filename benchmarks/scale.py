"""What faster hardware does not shrink: planning, Beam's own cost per unit, what every unit leaves behind.

Each part runs in a process of its own, so that its peak memory is its own:

    plan      10 million images from a synthetic listing, through the real planning
    units     100,000 units through the real pipeline, with a stub in place of the auditor
    unit      reading one unit of that plan; writing, reading and folding the aggregate of one ImageNet unit
    engine    ResNet50 at 224x224x3 with 1000 outputs, on this machine, by what is asked for

docs/SCALING.md works with these figures.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.results import write_section

PLANNED_IMAGES = 10_000_000
STUB_UNITS = 100_000
IMAGENET = {"outputs": 1000, "labels": 1000, "height": 224, "width": 224, "channels": 3}


def main() -> None:
    """Write the section `Scale` of RESULTS.md."""
    with tempfile.TemporaryDirectory(prefix="augnet-scale-") as scratch:
        found = {name: _in_process(name, scratch) for name in PARTS}
    plan, units, unit = found["plan"], found["units"], found["unit"]
    lines = [
        "`python -m benchmarks scale`; every part in its own process, the memory is that process's peak.",
        "",
        "| what | figure |",
        "|---|---|",
        f"| planning {plan['images']:,} images: time | {plan['seconds']:.0f} s |",
        f"| planning {plan['images']:,} images: memory | {plan['peak_bytes'] / 2**30:.2f} GiB, "
        f"of which {plan['start_bytes'] / 2**30:.2f} GiB are TensorFlow, Keras and Arrow |",
        f"| plan.parquet: size | {plan['plan_bytes'] / 1e6:.0f} MB, {plan['units']:,} units |",
        f"| Beam's own cost per unit ({units['units']:,} units, stub) | {units['milliseconds']:.2f} ms |",
        f"| that run's memory | {units['peak_bytes'] / 2**30:.2f} GiB |",
        f"| the job as sent to a runner | {units['job_bytes'] / 1e6:.2f} MB |",
        f"| opening the plan and reading one unit's rows | {unit['read_milliseconds']:.0f} ms |",
        f"| of which reading the footer, {unit['footer_bytes'] / 1e6:.1f} MB in memory | "
        f"{unit['footer_milliseconds']:.0f} ms |",
    ]
    lines.append(f"| reading in a 500x375 JPEG: core time | {unit['decode_milliseconds']:.1f} ms |")
    for name, part in unit["aggregates"].items():
        lines.append(
            f"| aggregate of a unit, 1000 outputs and labels, 224x224x3, {name} | "
            f"{part['bytes'] / 1e6:.1f} MB; {part['save_milliseconds']:.0f} ms to write, "
            f"{part['fold_milliseconds']:.0f} ms to read and fold |"
        )
    for name, part in found["engine"]["rows"].items():
        lines.append(
            f"| ResNet50, jacobian.outputs={name}, batches of {part['batch']} | "
            f"{part['images_per_second']:.3g} images/s, {part['core_seconds']:.3g} core seconds per image |"
        )
    write_section("Scale", lines)


def _in_process(part: str, scratch: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.scale", part, scratch]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def plan_synthetic(scratch: str, images: int = PLANNED_IMAGES) -> dict[str, Any]:
    """Plan an audit of images that are only names, laid out like ImageNet, in object storage."""
    import keras

    from augnet.audits import plan as planning
    from augnet.config import load_config
    from augnet.sources import ImageRef, Source
    from augnet.storage import names

    class Listing(Source):
        def list(self) -> Iterator[ImageRef]:
            per_class = -(-images // 1000)
            for number in range(images):
                label = f"n{number // per_class:08d}"
                name = f"{label}/{label}_{number % per_class:08d}.JPEG"
                yield ImageRef(name, f"/mnt/datasets/imagenet/train/{name}", label)

        def read(self, ref: ImageRef) -> bytes:
            raise AssertionError("planning reads no image")

    flat = keras.layers.GlobalAveragePooling2D()
    model = keras.Sequential(
        [keras.Input((224, 224, 3)), flat, keras.layers.Dense(1000, activation="softmax")]
    )
    model.save(f"{scratch}/model.keras")
    flags = {
        "model.path": f"{scratch}/model.keras",
        "images.path": "unused",
        "output": f"{scratch}/planned",
        "jacobian.outputs": "predicted",
        "store.jacobians": "none",
    }
    start_bytes, began = peak_bytes(), time.perf_counter()
    with replaced(planning, open_source=lambda config: Listing()):
        run = planning.plan(load_config(flags=flags)).run
    return {
        "images": run.images,
        "units": run.units,
        "seconds": time.perf_counter() - began,
        "start_bytes": start_bytes,
        "peak_bytes": peak_bytes(),
        "plan_bytes": Path(scratch, "planned", names.PLAN).stat().st_size,
    }


def run_stub_units(scratch: str, units: int = STUB_UNITS) -> dict[str, Any]:
    """The audit's own Beam graph, in process with two threads; a stub audits, and nothing is folded."""
    import apache_beam as beam

    from augnet.storage.files import FileEntry, UnitRecord
    from pipeline import audit
    from pipeline.runners import make_options, make_runner
    from transforms import audit as transforms

    seen: list[int] = []

    class Stub:
        def audit(self, unit: Any, count: Callable[[str, int], None]) -> UnitRecord:
            seen.append(unit.unit_id)
            for name in transforms.COUNTED:  # metrics are part of Beam's cost
                count(name, 1)
            names = (f"{kind}/part-{unit.unit_id:05d}" for kind in ("statistics", "failures", "aggregates"))
            files = tuple(FileEntry(name, 1, "0" * 64) for name in names)
            return UnitRecord(unit.unit_id, "0" * 64, planned=512, audited=512, failed=0, files=files)

    opened = SimpleNamespace(open=lambda output: Stub())
    folded: list[int] = []
    options = make_options([], {})
    run = SimpleNamespace(units=units, config=SimpleNamespace(output=scratch))
    with replaced(
        transforms,
        Auditor=opened,
        prepare_interventions=lambda _: [],
        conclude=lambda _: folded.append(1) or {},
    ):
        pipeline = beam.Pipeline(runner=make_runner(options), options=options)
        audit.build(pipeline, run, range(run.units))
        job_bytes = len(pipeline.to_runner_api().SerializeToString())
        began = time.perf_counter()
        result = pipeline.run()
        result.wait_until_finish()
        seconds = time.perf_counter() - began
    assert sorted(seen) == list(range(units)) and folded == [1], (len(seen), folded)
    counted = {metric.key.metric.name: metric.result for metric in result.metrics().query()["counters"]}
    return {
        "counted": counted["images_audited"],
        "units": units,
        "seconds": seconds,
        "milliseconds": 1000 * seconds / units,
        "peak_bytes": peak_bytes(),
        "job_bytes": job_bytes,
    }


def measure_unit(scratch: str) -> dict[str, Any]:
    """What a unit costs besides its images, in the plan of `plan` and with aggregates of ImageNet's size."""
    import pyarrow.parquet as pq

    from augnet.storage import names

    path = Path(scratch, "planned", names.PLAN)
    began = time.perf_counter()
    with pq.ParquetFile(path) as plan:
        footer = time.perf_counter() - began
        plan.read_row_group(plan.num_row_groups // 2, columns=["image_id", "uri", "label"])
        read = time.perf_counter() - began
        footer_bytes = plan.metadata.serialized_size
    aggregates = {"every output": range(1000), "a third of the outputs": range(0, 1000, 3)}
    return {
        "decode_milliseconds": _decode_milliseconds(),
        "read_milliseconds": 1000 * read,
        "footer_milliseconds": 1000 * footer,
        "footer_bytes": footer_bytes,
        "aggregates": {name: _aggregate_costs(Path(scratch), groups) for name, groups in aggregates.items()},
    }


def _decode_milliseconds(repeats: int = 200) -> float:
    """Core time to make a 224x224 input of a smooth 500x375 JPEG of 90 kB, as large as ImageNet's."""
    import io

    import numpy as np
    from PIL import Image

    from augnet.config import PreprocessConfig
    from augnet.sources import Preprocess

    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    data = io.BytesIO()
    coarse.resize((500, 375), Image.Resampling.BICUBIC).save(data, "JPEG", quality=95)
    prepare = Preprocess(PreprocessConfig(), 224, 224, 3, model_rescales=False, max_pixels=10**8)
    began = time.process_time()
    for _ in range(repeats):
        prepare(data.getvalue())
    return 1000 * (time.process_time() - began) / repeats


def _aggregate_costs(scratch: Path, outputs: range) -> dict[str, float]:
    """Size, and times to write and to fold, of an aggregate with rows of some of the 1000 outputs."""
    import numpy as np

    from augnet.statistics.aggregate import Aggregate, Shape
    from augnet.statistics.moments import choose_map_pool

    pool = choose_map_pool(2000, 224, 224, 3, 64 * 1024**2)
    aggregate = Aggregate.empty(Shape(**IMAGENET, map_pool=pool))
    rng, moments = np.random.default_rng(0), aggregate.moments
    for group in (*outputs, 1000):  # a unit's images are in plan order, and so of one class or two
        moments.count[group] = 8
        for maps in (moments.mean, moments.m2, moments.mean_abs, moments.max_abs):
            maps[group] = rng.standard_normal(maps[group].shape)
    if len(outputs) == 1000:
        aggregate.pairs.count[:] = 8
        aggregate.pairs.cosine[:] = rng.standard_normal((1000, 1000))
    path = scratch / "aggregate.npz"
    total = Aggregate.empty(Shape(**IMAGENET, map_pool=pool))
    times = [time.perf_counter()]
    aggregate.save(path)
    times.append(time.perf_counter())
    for _ in range(3):
        total.merge(Aggregate.load(path))
    times.append(time.perf_counter())
    return {
        "bytes": path.stat().st_size,
        "save_milliseconds": 1000 * (times[1] - times[0]),
        "fold_milliseconds": 1000 * (times[2] - times[1]) / 3,
    }


def measure_engine(scratch: str) -> dict[str, Any]:
    """ResNet50 with 1000 outputs through the engine, as an audit of ImageNet would use it."""
    import keras
    import numpy as np

    from augnet.engine import Engine, EngineOptions, RowSelection, inspect_model

    keras.utils.set_random_seed(0)
    model = keras.applications.ResNet50(weights=None)
    rng = np.random.default_rng(0)
    inspected, rows = inspect_model(model), {}
    for outputs in ("predicted", "top:5", "all"):
        options = EngineOptions(outputs=RowSelection.parse(outputs), stored=None)
        engine = Engine(inspected, options)
        images = rng.uniform(0, 1, (engine.batch_size, 224, 224, 3)).astype(np.float32)
        engine.measure(images)  # chooses by timing, and compiles
        began, used, batches = time.perf_counter(), time.process_time(), 0
        while batches < 3 and time.perf_counter() - began < 60:
            engine.measure(images)
            batches += 1
        count = batches * len(images)
        rows[outputs] = {
            "images_per_second": count / (time.perf_counter() - began),
            "core_seconds": (time.process_time() - used)
            / count,  # what other work on the machine leaves alone
            "batch": len(images),
        }
        print(outputs, rows[outputs], file=sys.stderr)
    return {"rows": rows}


@contextlib.contextmanager
def replaced(module: Any, **values: Any) -> Iterator[None]:
    """Names of a module, bound to something else for a while."""
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "plan": plan_synthetic,
    "units": run_stub_units,
    "unit": measure_unit,
    "engine": measure_engine,
}

if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(PARTS[sys.argv[1]](sys.argv[2])))
    else:
        main()
