"""Whether an image's outputs depend on the other images of its batch: then it has no Jacobian of its own."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from augnet.engine.inspection.probes import outputs_of
from augnet.engine.types import Tensors

MIXED = 1e-4
"""Above this change, relative to the outputs, it is no rounding."""
KEPT = 1
"""Place of the image that stays: with others before and after it, as a layer may look to one side only."""


def mixes_samples(
    function: Callable[[Tensors], Tensors],
    images: np.ndarray | list[np.ndarray],
    outputs: np.ndarray | None = None,
) -> bool:
    """Whether an image's outputs change when the other images of its batch do.

    Args:
        function: of one batch (n, ...) or a list of batches, as `images` is; gives outputs (n, ...), one
            tensor or several in any structure of lists and dictionaries.
        images: finite images (n, ...), or a list of them, one for each input. Of only two, the second is not
            seen to change the first.
        outputs: of the images, where they are known already and one tensor.

    Raises:
        ValueError: fewer than two images.
    """
    if any(len(batch) < 2 for batch in keras.tree.flatten(images)):
        raise ValueError("mixes_samples: one image; whether images mix shows with two or more")
    before = outputs_of(function, images) if outputs is None else [outputs]
    after = outputs_of(function, keras.tree.map_structure(_with_others_changed, images))
    return any(_differ(*pair) for pair in zip(before, after, strict=True))


def _with_others_changed(batch: np.ndarray) -> np.ndarray:
    """The batch with all images but one changed, within their range, and not zero where they are."""
    size = float(np.abs(batch).max()) or 1.0
    changed = (0.5 * batch[::-1] + 0.25 * size).astype(batch.dtype)
    changed[KEPT] = batch[KEPT]
    return changed


def _differ(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the outputs of the image that stayed changed by more than rounding; a NaN is no change."""
    size = np.abs(before).max() + np.ptp(before)
    return bool(np.abs(before[KEPT] - after[KEPT]).max() > MIXED * size)
