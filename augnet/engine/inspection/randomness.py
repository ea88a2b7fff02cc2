"""Whether a model draws random numbers at inference: then its outputs have no derivative to speak of."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from augnet.engine.graph.graph import Graph
from augnet.engine.inspection.probes import outputs_of
from augnet.engine.types import Tensor

CALLS = 3
"""Of the same images. Two may agree by chance where a coin is tossed."""
RANDOM = 1e-4
"""Above this change, relative to the outputs, it is no rounding."""


def may_be_random(graph: Graph | None) -> bool:
    """Whether a model may draw random numbers at all: Keras' own layers draw none at inference."""
    return graph is None or any(
        isinstance(layer, keras.layers.Lambda) or type(layer).__module__.split(".")[0] != "keras"
        for layer in graph.layers()
    )


def is_random(function: Callable[[Tensor], Tensor], images: np.ndarray) -> bool:
    """Whether the function gives other outputs for the same images when it is called again.

    To be asked before `mixes_samples`, which cannot tell a change by chance from one by other images.

    Args:
        function: of one batch (n, ...); gives outputs (n, ...), one tensor or a structure of several.
        images: (n, ...).
    """
    first = outputs_of(function, images)
    sizes = [float(np.abs(part).max(initial=0) + np.ptp(part)) if part.size else 0.0 for part in first]
    return any(
        bool(np.nanmax(np.abs(again - part), initial=0) > RANDOM * size)
        for _ in range(CALLS - 1)
        for part, again, size in zip(first, outputs_of(function, images), sizes, strict=True)
    )
