"""What is recorded of each image of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from augnet.audits.engine_setup import engine_errors_by_key
from augnet.audits.noise import noisy_outputs
from augnet.engine import Engine, JacobianBatch
from augnet.statistics.image import Task, image_statistics


def measure_images(
    engine: Engine,
    images: np.ndarray,
    *,
    task: Task,
    border: float,
    noise: Sequence[float] = (),
    noise_copies: int = 0,
    label_ids: np.ndarray | None = None,
    targets: np.ndarray | None = None,
) -> tuple[JacobianBatch, dict[str, pa.Array]]:
    """Differentiate images and measure their Jacobians.

    Args:
        engine: of the model.
        images: (n, height, width, channel), in the model's own input space.
        task, border, noise: see `image_statistics`.
        noise_copies: of each image, predicted under each noise; an even number.
        label_ids: (n,) int, the label whose maps an image counts for; -1 for none. Default: none.
        targets: (n,) int, the right output of each image; -1 where it is not known. Default: not known.

    Returns:
        What the engine measured, and the statistics by column of `schema.statistics`, n values in each.

    Raises:
        AuditError: not even one image fits in memory.
    """
    if targets is None:
        targets = np.full(len(images), -1, np.int32)
    with engine_errors_by_key():
        batch = engine.measure(images, label_ids, targets)
    spec, copies = engine.spec, None
    if noise and noise_copies and task != "regression" and engine.layout.row_count == spec.output_count:
        copies = noisy_outputs(engine, images, noise, noise_copies)
    columns = image_statistics(
        batch,
        task=task,
        label_outputs=targets,
        border=border,
        logits=spec.gives_logits,
        unconnected=spec.unconnected,
        no_gradient=spec.no_gradient,
        noise=noise,
        noisy_copies=copies,
    )
    return batch, columns
