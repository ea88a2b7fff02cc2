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

import keras
import pyarrow as pa
import pyarrow.parquet as pq

import augnet
from augnet.audits.engine_setup import engine_errors_by_key, open_model, open_preprocess
from augnet.audits.identity import config_identity, refuse_changes, refuse_other_files, refuse_parts
from augnet.audits.labels import class_names, name_labels, name_outputs, read_classes
from augnet.audits.records import REF_COLUMNS
from augnet.audits.run import MAPPED_LABELS, Run
from augnet.audits.sample import take_sample
from augnet.audits.sizing import refuse_oversize, unit_images
from augnet.config import Config
from augnet.engine import InspectedModel
from augnet.models.control import with_random_weights
from augnet.models.loading import fingerprint, load_model
from augnet.sources import ImageRef, Source, open_source
from augnet.statistics.moments import choose_map_pool
from augnet.storage import names, schema
from augnet.storage.files import OutputFolder, json_bytes, json_digest, private_file

log = logging.getLogger(__name__)

DECIDING = ("tensorflow", "keras", "numpy", "pillow", "pyarrow")
"""Libraries whose version may change a result's bytes."""


@dataclass(frozen=True)
class PlannedAudit:
    """What is known of an audit before it begins; model and source are for whoever goes on here."""

    run: Run
    model: InspectedModel
    source: Source


def plan(
    config: Config, fresh: bool = False, model: keras.Model | None = None, source: Source | None = None
) -> PlannedAudit:
    """Prepare an audit and write its plan.parquet and run.json.

    A folder that holds the same audit, begun or finished, is taken up as it is.

    Args:
        config: of the audit.
        fresh: delete what the folder holds of an earlier audit first.
        model, source: handed over instead of what the configuration names.

    Raises:
        ConfigError: config, model and images do not fit together, the result would not fit the disk, or the
            output folder holds something else.
    """
    folder = OutputFolder(config.output)
    with private_file(tempfile.gettempdir()) as table:
        planned = prepare(config, table, model, source)
        run = planned.run
        refuse_oversize(
            config,
            run.model,
            run.images,
            lambda: take_sample(run, planned.model, planned.source, table).disk_bytes,
        )
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
        run = replace(earlier, config=config)
    run.write(folder)
    return replace(planned, run=run)


def prepare(
    config: Config, table: Path, model: keras.Model | None = None, source: Source | None = None
) -> PlannedAudit:
    """Decide everything about an audit and write nothing but its plan, to `table`; see `plan`.

    Raises:
        ConfigError: config, model and images do not fit together.
    """
    config = read_classes(config)
    trained = _trained_fingerprint(config, model)
    if config.model.control and model is not None:
        model = with_random_weights(model, config.model.control_seed)
    inspected = open_model(config, model)
    spec = inspected.spec
    config.jacobian.outputs.refuse_unknown("jacobian.outputs", spec.output_count)
    if config.store.jacobians is not None:
        config.store.jacobians.refuse_unknown("store.jacobians", spec.output_count)
    preprocess = open_preprocess(config, spec)
    source = source or open_source(config.images)
    settled = preprocess.describe()
    if source.holds_inputs:
        settled |= {
            "reason": "The images are the model's input as they are: nothing is scaled.",
            "warnings": [],
        }
    for warning in settled["warnings"]:
        log.warning("%s", warning)
    classes = class_names(config.images, source)
    refs = name_labels(source.list(), classes and classes[0])
    with engine_errors_by_key():
        unit_size = unit_images(config, spec)
    listing = _write_plan(refs, table, unit_size)
    label_outputs, label_rule = name_outputs(classes, listing.label_images, spec.output_count)
    groups = spec.output_count + (len(listing.labels) if len(listing.labels) <= MAPPED_LABELS else 0)
    versions = {"python": platform.python_version(), "augnet": augnet.__version__}
    versions |= {name: importlib.metadata.version(name) for name in (*DECIDING, "apache-beam")}
    identity = {
        "model": fingerprint(inspected.model),
        "config": config_identity(config),
        "images": listing.sha256,
        "versions": {name: versions[name] for name in ("augnet", *DECIDING)},
    }
    run = Run(
        config=config,
        fingerprint=json_digest(identity),
        identity=identity,
        model=spec,
        preprocess=settled,
        images=listing.images,
        units=listing.units,
        labels=listing.labels,
        label_images=tuple(listing.label_images.values()),
        label_outputs=label_outputs,
        label_rule=label_rule,
        map_pool=choose_map_pool(groups, *spec.input_shape, config.statistics.map_bytes),
        versions=versions,
        times={"started": time.time()},
        control_of=trained,
    )
    return PlannedAudit(run, inspected, source)


def _trained_fingerprint(config: Config, model: keras.Model | None) -> str | None:
    """Of the model that a control takes its architecture from; None where the audit is no control."""
    if config.model.control is None:
        return None
    return fingerprint(model or load_model(config.model.model_copy(update={"control": None})))


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
            columns = {key: [getattr(ref, key) for ref in unit] for key in REF_COLUMNS}
            writer.write_table(pa.table({"unit_id": [units] * len(unit), **columns}, schema.PLAN))
            for ref in unit:  # one by one, so that how they are cut into units does not count
                digest.update(json_bytes([getattr(ref, key) for key in REF_COLUMNS]))
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
        ConfigError: the folder holds another audit, or files that are no audit's.
    """
    refuse_other_files(folder)
    refuse_parts(folder)
    if not folder.exists(names.RUN):
        return None
    earlier = Run.read(folder)
    refuse_changes(folder, earlier.identity, run.identity)
    return earlier
