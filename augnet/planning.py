"""From a config to a plan: what will be audited, in which units, and whether it may start at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import augnet
from augnet.config import Config, config_json
from augnet.engine import inspect_model
from augnet.engine.selection import check_outputs
from augnet.errors import AuditError
from augnet.labels import name_outputs
from augnet.loading import fingerprint, load_model
from augnet.run import MAPPED_LABELS, Run
from augnet.sizing import refuse_oversize, unit_images
from augnet.sources import ImageRef, Preprocess, open_source
from augnet.statistics.moments import choose_map_pool
from augnet.storage import names, schema
from augnet.storage.files import OutputFolder, json_bytes

VERSIONED = ("tensorflow", "keras", "apache-beam", "numpy", "pillow", "pyarrow")


def plan(config: Config, fresh: bool = False) -> Run:
    """Prepare an audit and write its plan.parquet and run.json.

    A folder that holds the same audit, begun or finished, is taken up as it is.

    Args:
        config: of the audit.
        fresh: delete what the output folder holds of an earlier audit.

    Raises:
        ConfigError: config, model and images do not fit together, or the result would not fit the disk.
        AuditError: the output folder holds something else.
    """
    folder = OutputFolder(config.output)
    with tempfile.TemporaryDirectory(prefix="augnet-plan-") as scratch:
        table = Path(scratch) / names.PLAN
        run = prepare(config, table)
        if fresh:
            folder.remove_audit()
        if earlier := _earlier_run(folder, run):
            return earlier
        with folder.writing(names.PLAN) as target:
            shutil.copyfile(table, target)
    run.write(folder)
    return run


def prepare(config: Config, table: Path) -> Run:
    """Decide everything about an audit and write nothing but its plan, to `table`.

    Raises:
        ConfigError: config, model and images do not fit together, or the result would not fit the disk.
    """
    model = load_model(config.model)
    spec = inspect_model(
        model, output=config.model.output, space=config.model.space, input_size=config.preprocess.size
    )
    check_outputs("jacobian.outputs", config.jacobian.outputs, spec.output_count)
    check_outputs("store.jacobians", config.store.jacobians, spec.output_count)
    preprocess = Preprocess(
        config.preprocess,
        *spec.input_shape,
        model_rescales=spec.rescale_reason,
        max_pixels=config.images.max_pixels,
    )
    listing = _write_plan(open_source(config.images).list(), table, unit_images(config, spec))
    refuse_oversize(config, spec, listing.images)
    label_outputs, label_rule = name_outputs(config.images.classes, listing.labels, spec.output_count)
    groups = spec.output_count + (len(listing.labels) if len(listing.labels) <= MAPPED_LABELS else 0)
    identity = {
        "model": fingerprint(model),
        "config": {key: value for key, value in config_json(config).items() if key not in ("output", "beam")},
        "images": listing.sha256,
        "augnet": augnet.__version__,
    }
    return Run(
        config=config,
        fingerprint=hashlib.sha256(json_bytes(identity)).hexdigest(),
        identity=identity,
        model=asdict(spec),
        preprocess=preprocess.describe(),
        images=listing.images,
        units=listing.units,
        labels=listing.labels,
        label_outputs=label_outputs,
        label_rule=label_rule,
        map_pool=choose_map_pool(groups, *spec.input_shape, config.statistics.map_bytes),
        versions={"python": platform.python_version(), "augnet": augnet.__version__}
        | {name: importlib.metadata.version(name) for name in VERSIONED},
        times={"started": time.time()},
    )


@dataclass(frozen=True)
class _Listing:
    images: int
    units: int
    labels: tuple[str, ...]
    sha256: str


def _write_plan(refs: Iterator[ImageRef], path: Path, unit_size: int) -> _Listing:
    """Write one row group per unit, and digest the list on the way."""
    digest, labels, images, units = hashlib.sha256(), set(), 0, 0
    with pq.ParquetWriter(path, schema.PLAN, compression="zstd") as writer:
        for unit in _cut(refs, unit_size):
            columns = {key: [getattr(ref, key) for ref in unit] for key in ("image_id", "uri", "label")}
            writer.write_table(pa.table({"unit_id": [units] * len(unit), **columns}, schema.PLAN))
            digest.update(json_bytes(columns))
            labels.update(columns["label"])
            images, units = images + len(unit), units + 1
    return _Listing(images, units, tuple(sorted(labels - {None})), digest.hexdigest())


def _cut(refs: Iterable[ImageRef], size: int) -> Iterator[list[ImageRef]]:
    rest = iter(refs)
    while unit := list(islice(rest, size)):
        yield unit


def _earlier_run(folder: OutputFolder, run: Run) -> Run | None:
    """The run that the folder holds, when it is this one; None when it holds none.

    Raises:
        AuditError: the folder holds another audit, or files that are no audit's.
    """
    if not folder.exists(names.RUN):
        if strange := folder.foreign_names():
            raise AuditError(
                f"output: {folder} holds other files ({strange[0]!r}, ...); give a new or empty folder"
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
