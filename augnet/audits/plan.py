"""From a config to a plan: what will be audited, in which units, and whether it may start at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import augnet
from augnet.audits.engine_setup import open_model, open_preprocess
from augnet.audits.labels import class_names, name_labels, name_outputs, read_classes
from augnet.audits.run import MAPPED_LABELS, Run
from augnet.audits.sizing import refuse_oversize, unit_images
from augnet.config import Config, config_json
from augnet.engine import InspectedModel
from augnet.errors import AuditError
from augnet.models.loading import fingerprint, load_model
from augnet.sources import ImageRef, open_source
from augnet.statistics.moments import choose_map_pool
from augnet.storage import names, schema
from augnet.storage.files import OutputFolder, json_bytes, json_digest, private_file

log = logging.getLogger(__name__)

NOT_IDENTITY = ("output", "beam", "failures")
"""Sections of the config that have no say in the result: where it goes, how it runs, how it is judged."""

DECIDING = ("tensorflow", "keras", "numpy", "pillow", "pyarrow")
"""Libraries whose version may change a result's bytes."""


@dataclass(frozen=True)
class PlannedAudit:
    """What is known of an audit before it begins; the model is for whoever goes on in this process."""

    run: Run
    model: InspectedModel


def plan(config: Config, fresh: bool = False) -> PlannedAudit:
    """Prepare an audit and write its plan.parquet and run.json.

    A folder that holds the same audit, begun or finished, is taken up as it is; with `fresh`, what it holds
    of an earlier audit is deleted first.

    Raises:
        ConfigError: config, model and images do not fit together, or the result would not fit the disk.
        AuditError: the output folder holds something else.
    """
    folder = OutputFolder(config.output)
    with private_file(tempfile.gettempdir()) as table:
        planned = prepare(config, table)
        run = planned.run
        refuse_oversize(config, run.model, run.images)
        if fresh:
            folder.remove_audit()
        earlier = earlier_run(folder, run)
        folder.sweep()
        folder.remove(names.MANIFEST)  # not complete any more until every unit was looked at again
        with folder.writing(names.PLAN) as target:
            shutil.copyfile(table, target)  # in a resumed run too: whatever became of it, this mends it
    log.info("%d images in %d units", run.images, run.units)
    log.info("scale: %s. %s", run.preprocess["scale"], run.preprocess["reason"])
    log.info("labels: %s", run.label_rule)
    if earlier:  # what of the config is no part of its identity may be new
        return replace(planned, run=replace(earlier, config=config))
    run.write(folder)
    return planned


def prepare(config: Config, table: Path) -> PlannedAudit:
    """Decide everything about an audit and write nothing but its plan, to `table`.

    Raises:
        ConfigError: config, model and images do not fit together.
    """
    config = read_classes(config)
    model = open_model(config)
    spec = model.spec
    config.jacobian.outputs.refuse_unknown("jacobian.outputs", spec.output_count)
    if config.store.jacobians is not None:
        config.store.jacobians.refuse_unknown("store.jacobians", spec.output_count)
    preprocess = open_preprocess(config, spec)
    for warning in preprocess.warnings:
        log.warning("%s", warning)
    source = open_source(config.images)
    classes = class_names(config.images, source)
    refs = name_labels(source.list(), classes and classes[0])
    listing = _write_plan(refs, table, unit_images(config, spec))
    label_outputs, label_rule = name_outputs(classes, listing.label_images, spec.output_count)
    groups = spec.output_count + (len(listing.labels) if len(listing.labels) <= MAPPED_LABELS else 0)
    versions = {"python": platform.python_version(), "augnet": augnet.__version__}
    versions |= {name: importlib.metadata.version(name) for name in (*DECIDING, "apache-beam")}
    identity = {
        "model": fingerprint(model.model),
        "config": {key: part for key, part in config_json(config).items() if key not in NOT_IDENTITY},
        "images": listing.sha256,
        "versions": {name: versions[name] for name in ("augnet", *DECIDING)},
    }
    run = Run(
        config=config,
        fingerprint=json_digest(identity),
        identity=identity,
        model=spec,
        preprocess=preprocess.describe(),
        images=listing.images,
        units=listing.units,
        labels=listing.labels,
        label_outputs=label_outputs,
        label_rule=label_rule,
        map_pool=choose_map_pool(groups, *spec.input_shape, config.statistics.map_bytes),
        versions=versions,
        times={"started": time.time()},
        control_of=_trained_fingerprint(config),
    )
    return PlannedAudit(run, model)


def _trained_fingerprint(config: Config) -> str | None:
    """Of the model that a control takes its architecture from; None where the audit is no control."""
    if config.model.control is None:
        return None
    return fingerprint(load_model(config.model.model_copy(update={"control": None})))


@dataclass(frozen=True)
class _Listing:
    images: int
    units: int
    label_images: dict[str, int]
    sha256: str

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.label_images)


def _write_plan(refs: Iterator[ImageRef], path: Path, unit_size: int) -> _Listing:
    """Write one row group per unit, and digest the list on the way."""
    digest, images, units = hashlib.sha256(), 0, 0
    labels: Counter[str | None] = Counter()
    with pq.ParquetWriter(path, schema.PLAN, compression="zstd") as writer:
        for unit in _cut(refs, unit_size):
            columns = {key: [getattr(ref, key) for ref in unit] for key in ("image_id", "uri", "label")}
            writer.write_table(pa.table({"unit_id": [units] * len(unit), **columns}, schema.PLAN))
            for ref in unit:  # one by one, so that how they are cut into units does not count
                digest.update(json_bytes([ref.image_id, ref.uri, ref.label]))
            labels.update(columns["label"])
            images, units = images + len(unit), units + 1
    label_images = sorted((label, count) for label, count in labels.items() if label is not None)
    return _Listing(images, units, dict(label_images), digest.hexdigest())


def _cut(refs: Iterable[ImageRef], size: int) -> Iterator[list[ImageRef]]:
    rest = iter(refs)
    while unit := list(islice(rest, size)):
        yield unit


def earlier_run(folder: OutputFolder, run: Run) -> Run | None:
    """The run that the folder holds, when it is this one; None when it holds none.

    Raises:
        AuditError: the folder holds another audit, or files that are no audit's.
    """
    if not folder.exists(names.RUN):
        if strange := next(folder.foreign_names(), None):
            raise AuditError(
                f"output: {folder} holds other files ({strange!r}, ...); give a new or empty folder"
            )
        if any("/part-" in name for name in folder.audit_names()):
            raise AuditError(
                f"output: {folder} holds parts of an audit without its {names.RUN}; give another folder, or "
                "--fresh to replace it"
            )
        return None
    earlier = Run.read(folder)
    if earlier.fingerprint == run.fingerprint:
        return earlier
    changes = "; ".join(_differences(earlier.identity, run.identity))
    raise AuditError(
        f"output: {folder} holds another audit ({changes}); give another folder, or --fresh to replace it"
    )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """What changed between two identities, in words."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            digest = isinstance(before, str) and len(before) == 64
            name = f"{prefix}{key}".removeprefix("config.")
            yield f"{name} changed" if digest else f"{name}: {before!r} -> {after!r}"
