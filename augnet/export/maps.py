"""Small maps of where the model looks: the magnitude of the predicted output's row, over blocks of pixels."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.engine.batch import VIEWS, view_pool
from augnet.statistics.gallery import view_of
from augnet.statistics.moments import block_mean
from augnet.storage.reader import Audit

VIEW = VIEWS.index("predicted_magnitude")


class SmallMaps:
    """The small maps of images: of those that gallery.npz holds and, if asked for, of stored Jacobians.

    A stored Jacobian gives the same map to within rounding, unless it was stored pooled or with its channels
    summed: then magnitudes are lost, and it gives none.

    Args:
        stored: whether to read stored Jacobians for the images that gallery.npz does not hold.
    """

    COLUMNS = ("image_id", "predicted", "jacobian_file", "jacobian_row")
    """What `of` has to know of an image."""

    def __init__(self, audit: Audit, stored: bool):
        self._audit = audit
        height, width, _ = audit.run["model"]["input_shape"]
        self._pool = view_pool(height, width)
        self.shape = (-(-height // self._pool), -(-width // self._pool))
        store = audit.run["config"]["store"]
        self._reads = stored and store["pool"] == 1 and store["channels"] != "sum"

    def of(self, images: pa.Table) -> np.ndarray:
        """(n, *shape) float32; NaN for an image without a map.

        Args:
            images: n rows of `statistics`, with COLUMNS; those with a Jacobian, all in one shard.
        """
        maps = np.full((len(images), *self.shape), np.nan, np.float32)
        places = self._audit.held
        held = np.array([places.get(image_id, -1) for image_id in images["image_id"].to_pylist()], int)
        if (held >= 0).any():
            maps[held >= 0] = view_of(self._audit.gallery, held[held >= 0], VIEW)
        if self._reads:
            self._read(images, maps, held < 0)
        maps[~np.isfinite(maps).all(axis=(1, 2))] = np.nan
        return maps

    def _read(self, images: pa.Table, maps: np.ndarray, wanted: np.ndarray) -> None:
        """Fill in the maps of the images wanted (n,) whose predicted row is stored."""
        own = pc.fill_null(images["predicted"], -1).to_numpy()
        if self._audit.has_one_output:
            own = np.zeros_like(own)  # a yes-or-no output has two classes, and one row
        chosen = np.flatnonzero(wanted & pc.is_valid(images["jacobian_file"]).to_numpy() & (own >= 0))
        if not len(chosen):
            return
        name = images["jacobian_file"][int(chosen[0])].as_py()
        outputs, rows = self._audit.stored_rows(name, images["jacobian_row"].to_numpy()[chosen].astype(int))
        found = outputs == own[chosen, None]
        has = found.any(axis=1)
        squared = np.square(rows[has, found[has].argmax(axis=1)], dtype=np.float64)
        magnitude = np.sqrt(squared.sum(axis=-1, keepdims=True))
        maps[chosen[has]] = block_mean(magnitude, self._pool)[..., 0]
