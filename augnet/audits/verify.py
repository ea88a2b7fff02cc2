"""The engine that an audit would use, checked on a sample of the audit's own images."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np
import pyarrow.parquet as pq

from augnet.audits.plan import prepare
from augnet.audits.records import REF_COLUMNS, refs_of
from augnet.audits.worker import open_engine
from augnet.config import Config
from augnet.engine.verification.checks import Check, joined
from augnet.engine.verify import Progress, verify
from augnet.errors import AuditError, ImageError
from augnet.selection import RowSelection
from augnet.sources import ImageRef, Preprocess, open_source
from augnet.storage.files import OutputFolder, private_file

MOST_LOTS = 8
"""As many times the images asked for are drawn, at most, until every judge has something to judge."""


def verify_sample(config: Config, count: int, progress: Progress | None = None) -> list[Check]:
    """Compare the engine with float64, finite differences and forward mode; writes nothing that stays.

    While a judge finds a kink at every image, as many images again are drawn, up to MOST_LOTS times.

    Args:
        config: of the audit. Rows of the label's output are checked as rows of the predicted one.
        count: images to draw at random, at least 1; those that cannot be read are left out.
        progress: called with what is being done, the images done, and of how many.

    Raises:
        ConfigError: config, model and images do not fit together.
        AuditError: none of the drawn images can be read.
    """
    tell = progress or (lambda *_: None)
    tell("loading the model", 0, count)
    config = _drawing(config, MOST_LOTS * count)
    with private_file(tempfile.gettempdir()) as table, tempfile.TemporaryDirectory() as scratch:
        planned = prepare(config, table)
        tell("choosing how to compute", 0, count)
        engine, preprocess = open_engine(planned.run, planned.model, OutputFolder(scratch))
        drawn = refs_of(pq.read_table(table, columns=[*REF_COLUMNS]))
    np.random.default_rng(config.images.sample_seed).shuffle(drawn)  # so that a part of them is a sample too
    checks: list[Check] = []
    for lot in _lots(config, drawn, preprocess, count):
        found = verify(
            engine,
            planned.model.model,
            lot,
            output=config.model.output,
            space=config.model.space,
            reduce=config.jacobian.reduce,
            progress=progress,
        )
        checks = joined(checks, found) if checks else found
        if not any(check.can_gain for check in checks):
            break
    if not checks:
        raise AuditError(f"none of {len(drawn)} images drawn from {config.images.path!r} can be read")
    return checks


def _drawing(config: Config, count: int) -> Config:
    """The configuration for a sample of at most this many images, whose rows need no label."""
    limit = min(count, config.images.limit or count)
    update: dict[str, object] = {"images": config.images.model_copy(update={"limit": limit})}
    if config.jacobian.outputs.kind == "label":
        update["jacobian"] = config.jacobian.model_copy(update={"outputs": RowSelection("predicted")})
        update["store"] = config.store.model_copy(update={"jacobians": RowSelection("predicted")})
    return config.model_copy(update=update)


def _lots(
    config: Config, refs: Iterable[ImageRef], preprocess: Preprocess, count: int
) -> Iterator[np.ndarray]:
    """The images that can be read, in batches (n, height, width, channel) of at most `count`."""
    source, lot = open_source(config.images), []
    for ref in refs:
        with suppress(ImageError):
            lot.append(preprocess(source.read(ref)).image)
        if len(lot) == count:
            yield np.stack(lot)
            lot = []
    if lot:
        yield np.stack(lot)
