"""One unit of interventions: the candidates of one target, tried and written down. Works without Beam."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from augnet.audits.records import WorkUnit, read_record
from augnet.audits.unit import Auditor
from augnet.findings.design import Design, design_of
from augnet.findings.interventions import Range
from augnet.findings.trials import SCREENED, Arm, Trial
from augnet.statistics.aggregate import Aggregate
from augnet.storage import names, schema
from augnet.storage.files import UnitRecord, json_digest
from augnet.storage.shards import write_table

log = logging.getLogger(__name__)

CACHED_BYTES = 256 * 1024**2
"""Images that are kept for the next target, which is tried on many of the same."""
ARMS = 12
"""Arms of a target that are run on all images, about; the others end after the first few."""
TIMED_RUNS = 3


def design_interventions(aggregate: Aggregate, auditor: Auditor) -> list[WorkUnit]:
    """Write candidates.json, unless an earlier attempt has, and return the units of work in it."""
    folder, run = auditor.folder, auditor.run
    design = design_of(aggregate.sample, run)
    fingerprint = json_digest([run.fingerprint, design.to_json()])
    written = folder.read_json(names.CANDIDATES) if folder.exists(names.CANDIDATES) else {}
    if written.get("fingerprint") != fingerprint:
        if design.targets:
            design = within(design, run.config.findings.seconds, forward_seconds(auditor, design))
        written = design.to_json() | {"fingerprint": fingerprint}
        folder.write_json(names.CANDIDATES, written)
    count = len(written["units"])
    for name in folder.names("interventions"):
        if f"-of-{count:05d}." not in name:  # of another number of targets, before images were tried again
            folder.remove(name)
    return [WorkUnit(unit, count) for unit in range(count)]


def forward_seconds(auditor: Auditor, design: Design) -> float:
    """Of one forward pass of one image, compiled and in full batches: the fastest of a few runs."""
    count = min(auditor.engine.batch_size, len(design.images))
    images = auditor.read(design.images[:count])
    auditor.engine.outputs(images)  # compiles
    times = []
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        auditor.engine.outputs(images)
        times.append(time.perf_counter() - began)
    return min(times) / count


def passes(design: Design, images: int) -> int:
    """Forward passes that the trials of a design take, about, with so many images for each arm."""
    first = sum(2 * len(candidates) for candidates in design.candidates)
    return SCREENED * first + ARMS * images * len(design.targets)


def within(design: Design, seconds: float, seconds_per_pass: float) -> Design:
    """The design on fewer images, and then of fewer targets, where it would take longer than allowed.

    Images are halved and halved again, so that a speed measured a little differently changes nothing.
    """
    images = most = max((len(groups.receivers) for groups in design.groups), default=0)
    while images > SCREENED and passes(design, images) * seconds_per_pass > seconds:
        images = max(SCREENED, images // 2)
    kept = list(range(len(design.targets)))
    each = passes(design, images) * seconds_per_pass / max(1, len(kept))
    if each * len(kept) > seconds:
        likeliest = sorted(kept, key=lambda unit: -max((c.score for c in design.candidates[unit]), default=0))
        kept = sorted(likeliest[: max(1, math.floor(seconds / each))])
        log.warning(
            "findings: %d of %d outputs are tried in findings.seconds", len(kept), len(design.targets)
        )
    if images == most and len(kept) == len(design.targets):
        return design
    return replace(
        design,
        targets=tuple(design.targets[unit] for unit in kept),
        groups=tuple(design.groups[unit].first(images) for unit in kept),
        candidates=tuple(design.candidates[unit] for unit in kept),
    )


class Investigator:
    """Tries the targets of a design with an auditor's engine and images; safe to use from several threads."""

    def __init__(self, auditor: Auditor):
        self.auditor = auditor
        tree = auditor.folder.read_json(names.CANDIDATES)
        self._fingerprint = json_digest(tree)
        self.design = Design.from_json(tree)
        self._images: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def investigate(self, unit: WorkUnit) -> UnitRecord:
        """Try the candidates of one target, or return the record where an earlier attempt has.

        Raises:
            AuditError: an image cannot be read again, or a file cannot be written.
        """
        folder = self.auditor.folder
        place = ("interventions", unit.unit_id, unit.unit_count)
        record = read_record(folder, names.shard(*place, suffix="json"), unit.unit_id, self._fingerprint)
        if record and all(folder.intact(entry) for entry in record.files):
            return record
        table = self._table(unit.unit_id)
        with folder.writing(names.shard(*place)) as path:
            write_table(path, table)
        record = UnitRecord(
            unit_id=unit.unit_id,
            fingerprint=self._fingerprint,
            planned=len(table),
            audited=len(table),
            failed=0,
            files=(folder.entry(names.shard(*place)),),
        )
        folder.write_bytes(names.shard(*place, suffix="json"), record.to_json())
        target = self.design.targets[unit.unit_id]
        log.info("output %d: %d images changed", target.output, len(table))
        return record

    def _table(self, unit: int) -> pa.Table:
        """`schema.INTERVENTIONS` of one target."""
        design = self.design
        target, groups = design.targets[unit], design.groups[unit]
        seen = np.concatenate([groups.donors[:SCREENED], groups.receivers[:SCREENED]])
        trial = Trial(
            target,
            groups,
            design.outputs,
            self._load,
            self.auditor.engine.outputs,
            Range.of(self._load(seen)),
            self.auditor.run.model.input_shape[:2],
            self.auditor.run.config.findings.min_effect,
        )
        ids = np.array([image.image_id for image in design.images], object)

        def rows(arm: Arm) -> pa.Table:
            values = design.outputs[arm.images][:, target.output]
            columns: dict[str, Any] = {
                "candidate": np.full(len(arm.images), arm.candidate, np.int32),
                "arm": [arm.name] * len(arm.images),
                "image_id": ids[arm.images],
                "source_id": ids[arm.sources],
                "before": arm.before,
                "after": arm.after,
                "output_before": values.astype(np.float64),
                "output_after": arm.output.astype(np.float64),
            }
            return pa.table(columns, schema.INTERVENTIONS)

        tables = [rows(arm) for arm in trial.run(design.candidates[unit])]
        return pa.concat_tables([schema.INTERVENTIONS.empty_table(), *tables])

    def _load(self, numbers: np.ndarray) -> np.ndarray:
        wanted: list[int] = numbers.tolist()
        with self._lock:
            held = {number: self._images[number] for number in wanted if number in self._images}
        missing = list(dict.fromkeys(number for number in wanted if number not in held))
        if missing:
            read = self.auditor.read([self.design.images[number] for number in missing])
            held |= dict(zip(missing, read, strict=True))
            with self._lock:
                self._images |= {number: held[number] for number in missing}
                while len(self._images) * read[0].nbytes > CACHED_BYTES:
                    self._images.popitem(last=False)
        return np.stack([held[number] for number in wanted])
