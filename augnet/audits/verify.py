"""The engine that an audit would use, checked on a sample of the audit's own images."""

from __future__ import annotations

import tempfile
from contextlib import suppress

import numpy as np
import pyarrow.parquet as pq

from augnet.audits.plan import prepare
from augnet.audits.worker import open_engine
from augnet.config import Config
from augnet.engine.verify import Check, verify
from augnet.errors import AuditError, ImageError
from augnet.sources import ImageRef, open_source
from augnet.storage.files import OutputFolder, private_file


def verify_sample(config: Config, count: int) -> list[Check]:
    """Compare the engine with float64, finite differences and forward mode; writes nothing that stays.

    Args:
        config: of the audit.
        count: images to draw at random; those that cannot be read are left out.

    Raises:
        ConfigError: config, model and images do not fit together.
        AuditError: none of the drawn images can be read.
    """
    sampled = config.model_copy(update={"images": config.images.model_copy(update={"limit": count})})
    with private_file(tempfile.gettempdir()) as table, tempfile.TemporaryDirectory() as scratch:
        planned = prepare(sampled, table)
        engine, preprocess = open_engine(planned.run, planned.model, OutputFolder(scratch))
        plan = pq.read_table(table, columns=["image_id", "uri", "label"]).to_pylist()
    source, images = open_source(config.images), []
    for row in plan:
        with suppress(ImageError):
            images.append(preprocess(source.read(ImageRef(**row))).image)
    if not images:
        raise AuditError(f"none of {len(plan)} images drawn from {config.images.path!r} can be read")
    return verify(engine, np.stack(images))
