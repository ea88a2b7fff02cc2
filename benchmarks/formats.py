"""Whether reading and decoding keep up with the device: one dataset in every format, and from memory."""

from __future__ import annotations

import csv
import io
import statistics
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from PIL import Image

from augnet.audits.plan import plan
from augnet.audits.records import WorkUnit
from augnet.audits.unit import Auditor
from augnet.config import load_config
from augnet.sources import ImageRef, Source
from benchmarks.models import small_cnn
from benchmarks.results import write_section

SIZE = 64
COUNT = 2048
ROUNDS = 3
MEMORY = "arrays in memory"


def main() -> None:
    """Write the section `Formats` of RESULTS.md."""
    with tempfile.TemporaryDirectory(prefix="augnet-formats-") as scratch:
        folder = Path(scratch)
        small_cnn(SIZE, 10).save(folder / "model.keras")
        paths = _datasets(folder)
        rounds = [_round(folder, paths) for _ in range(ROUNDS)]
    rates = {
        name: [statistics.median(each[name][k] for each in rounds) for k in (0, 1)] for name in rounds[0]
    }
    images, core = rates[MEMORY]
    lines = [
        f"`python -m benchmarks formats`: audits of {COUNT} JPEG images of {SIZE}x{SIZE}x3 (in the arrays: "
        "their pixels), CNN with 10 outputs, no Jacobians stored, in one process without Beam; the first "
        f"unit, in which programs compile, is left out. Formats take turns, {ROUNDS} times; shown are the "
        "medians. The share is of the rate from memory, by the clock and by core time, which other work on "
        "the machine leaves alone.",
        "",
        "| format | images/s | share | core ms per image | share by core time |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {rate:.0f} | {rate / images:.0%} | {1000 * seconds:.2f} | {core / seconds:.0%} |"
            for name, (rate, seconds) in rates.items()
        ),
    ]
    write_section("Formats", lines)


class InMemory(Source):
    """The images of another source, decoded before."""

    def __init__(self, source: Source):
        self._images = {ref.image_id: _pixels(source.read(ref)) for ref in source.list()}

    def list(self) -> Iterator[ImageRef]:
        return (ImageRef(image_id, image_id, None) for image_id in self._images)

    def read(self, ref: ImageRef) -> np.ndarray:
        return self._images[ref.image_id]


def _round(folder: Path, paths: dict[str, Path]) -> dict[str, tuple[float, float]]:
    found = {MEMORY: _rate(folder, paths["folder"], in_memory=True)}
    return found | {name: _rate(folder, path) for name, path in paths.items()}


def _rate(folder: Path, path: Path, in_memory: bool = False) -> tuple[float, float]:
    """Images per second, and core seconds per image, of an audit after its first unit."""
    output = str(folder / "audit")
    flags = {"model.path": str(folder / "model.keras"), "images.path": str(path), "output": output}
    flags |= {"store.jacobians": "none", "preprocess.scale": "unit"}
    run = plan(load_config(flags=flags), fresh=True).run
    auditor = Auditor.open(output)
    if in_memory:
        auditor.source = InMemory(auditor.source)
    first, *rest = (WorkUnit(number, run.units) for number in range(run.units))
    auditor.audit(first)
    began, used = time.perf_counter(), time.process_time()
    audited = sum(auditor.audit(unit).audited for unit in rest)
    return audited / (time.perf_counter() - began), (time.process_time() - used) / audited


def _pixels(encoded: bytes | np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)) if isinstance(encoded, bytes) else encoded)


def _datasets(folder: Path) -> dict[str, Path]:
    """The same pictures in each format: its name -> its path."""
    images = {f"{index:06d}": _picture(index) for index in range(COUNT)}
    paths = {
        name: folder / name
        for name in ("folder", "manifest", "tfrecord", "webdataset", "zip", "parquet", "arrays")
    }
    for path in paths.values():
        path.mkdir()
    for name, data in images.items():
        (paths["folder"] / f"{name}.jpg").write_bytes(data)
    with open(paths["manifest"] / "images.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([["path"], *([f"../folder/{name}.jpg"] for name in images)])
    with tf.io.TFRecordWriter(str(paths["tfrecord"] / "images.tfrecord")) as records:
        for data in images.values():
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
            example = tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))
            records.write(example.SerializeToString())
    with tarfile.open(paths["webdataset"] / "images.tar", "w") as tar:
        for name, data in images.items():
            member = tarfile.TarInfo(f"{name}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    with zipfile.ZipFile(paths["zip"] / "images.zip", "w") as archive:
        for name, data in images.items():
            archive.writestr(f"{name}.jpg", data)
    pq.write_table(pa.table({"image": list(images.values())}), paths["parquet"] / "images.parquet")
    np.save(paths["arrays"] / "x.npy", np.stack([_pixels(data) for data in images.values()]))
    return paths | {"manifest": paths["manifest"] / "images.csv"}


def _picture(seed: int) -> bytes:
    """A smooth picture as JPEG: it decodes at the speed of photographs."""
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8))
    data = io.BytesIO()
    coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
    return data.getvalue()


if __name__ == "__main__":
    main()
