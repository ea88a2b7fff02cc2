"""What is recorded of each image of a batch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from augnet.audits.engine_setup import engine_errors_by_key
from augnet.engine import Engine, JacobianBatch
from augnet.statistics.image import Task, image_statistics


def measure_images(
    engine: Engine,
    images: np.ndarray,
    *,
    task: Task,
    border: float,
    label_ids: np.ndarray | None = None,
    targets: np.ndarray | None = None,
) -> tuple[JacobianBatch, dict[str, pa.Array]]:
    """Differentiate images and measure their Jacobians.

    Args:
        engine: of the model.
        images: (n, height, width, channel), in the model's own input space.
        task, border: see `image_statistics`.
        label_ids: (n,) int, the label whose maps an image counts for; -1 for none. Default: none.
        targets: (n,) int, the right output of each image; -1 where it is not known. Default: not known.

    Returns:
        What the engine measured, and the statistics by column of `schema.STATISTICS`, n values in each.

    Raises:
        AuditError: not even one image fits in memory.
    """
    if targets is None:
        targets = np.full(len(images), -1, np.int32)
    with engine_errors_by_key():
        batch = engine.measure(images, label_ids, targets)
    spec = engine.spec
    columns = image_statistics(
        batch,
        task=task,
        label_outputs=targets,
        border=border,
        logits=spec.space == "logits" or spec.activation is None,
        unconnected=spec.unconnected,
        no_gradient=spec.no_gradient,
    )
    return batch, columns
