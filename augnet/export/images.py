"""The images of an audit, a part in memory at a time, with all that a viewer shows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.audits.pictures import AuditedPictures
from augnet.export.maps import SmallMaps
from augnet.export.projection import MOST_IMAGES, Projection, features, project
from augnet.redact import without_secrets
from augnet.sources import ImageRef
from augnet.statistics.gallery import draw, thumbnail
from augnet.storage.reader import Audit

Progress = Callable[[str, int, int], None]
"""Told of a step, the images done, and of how many."""

LEFT_OUT = ("metadata", "jacobian_file", "jacobian_row")
"""Columns of `statistics` that are taken apart, or that say nothing outside of the audit's folder."""


@dataclass(frozen=True)
class Part:
    """Some images, in plan order.

    Attributes:
        rows: of n images, the columns of `ExportedImages.columns`.
        pictures: of each, uint8 (h, w, 1 or 3), or None.
        maps: (n, h, w) float32; NaN for an image that has none.
        points: (n, 2) float32, its place among all maps; NaN for an image that has none.
        clusters: of each, "cat #2", the second largest of those predicted as cat; None for an image in none.
    """

    rows: pa.Table
    pictures: list[np.ndarray | None]
    maps: np.ndarray
    points: np.ndarray
    clusters: list[str | None]

    @property
    def has_map(self) -> np.ndarray:
        """(n,) bool."""
        return ~np.isnan(self.maps).any(axis=(1, 2))

    @property
    def has_place(self) -> np.ndarray:
        """(n,) bool."""
        return ~np.isnan(self.points[:, 0])


@dataclass(frozen=True)
class _Survey:
    """Which of all images (n,) have a place, features and predictions of these, and all names of metadata."""

    has_place: np.ndarray
    points: np.ndarray
    predicted: np.ndarray
    metadata: list[str]


class ExportedImages:
    """Hands out the images of an audit.

    Args:
        everything: whether images that gallery.npz does not hold get a picture, read from where it is, and a
            map, of their stored Jacobian.
        progress: told how far it is.
    """

    def __init__(self, audit: Audit, everything: bool, progress: Progress):
        self._audit, self._everything, self._progress = audit, everything, progress
        self._maps = SmallMaps(audit, stored=everything)
        self._pictures = AuditedPictures(audit)
        gallery = audit.gallery
        self._held = dict(zip(gallery.get("image_id", ()), gallery.get("thumbnail", ()), strict=True))
        self._classes = {index: label for label, index in reversed(audit.run["label_outputs"].items())}

    @cached_property
    def columns(self) -> pa.Schema:
        """Those of `statistics`; names of the predicted class and the rival; the dataset's own metadata."""
        own = [field for field in self._audit.statistics_schema if field.name not in LEFT_OUT]
        texts = ["predicted_name", "rival_name", *(f"metadata_{name}" for name in self._survey.metadata)]
        return pa.schema([*own, *((name, pa.string()) for name in texts)])

    @cached_property
    def projection(self) -> Projection:
        """Of the images that have a place, in plan order."""
        self._progress("placing maps", 0, len(self._survey.points))
        return project(self._survey.points, self._survey.predicted)

    def parts(self) -> Iterator[Part]:
        """Every audited image."""
        total, done, placed = self._audit.counts["audited"], 0, 0
        has_place, projection = self._survey.has_place, self.projection
        for rows in self._audit.parts("statistics"):
            has = has_place[done : done + len(rows)]
            points = np.full((len(rows), 2), np.nan, np.float32)
            ranks = np.zeros(len(rows), np.int32)
            taken = slice(placed, placed + int(has.sum()))
            points[has], ranks[has] = projection.points[taken], projection.clusters[taken]
            told = self._told(rows)
            names = told["predicted_name"].to_pylist()
            clusters = [f"{name} #{k}" if name and k else None for name, k in zip(names, ranks, strict=True)]
            yield Part(told, self._pictures_of(rows), self._maps.of(rows), points, clusters)
            done, placed = done + len(rows), taken.stop
            self._progress("writing", done, total)

    @cached_property
    def _survey(self) -> _Survey:
        total = self._audit.counts["audited"]
        share = MOST_IMAGES / max(1, total if self._everything else len(self._held))
        has_place: list[np.ndarray] = []
        points: list[np.ndarray] = []
        predicted: list[np.ndarray] = []
        metadata: set[str] = set()
        for rows in self._audit.parts("statistics", [*SmallMaps.COLUMNS, "metadata"]):
            found = features(self._maps.of(rows))
            drawn = np.array([draw(image_id) < share for image_id in rows["image_id"].to_pylist()], bool)
            has_place.append(drawn & ~np.isnan(found).any(axis=1))
            points.append(found[has_place[-1]])
            predicted.append(pc.fill_null(rows["predicted"], -1).to_numpy()[has_place[-1]])
            metadata.update(name for pairs in rows["metadata"].to_pylist() for name, _ in pairs)
            self._progress("comparing maps", sum(map(len, has_place)), total)
        return _Survey(
            np.concatenate(has_place), np.concatenate(points), np.concatenate(predicted), sorted(metadata)
        )

    def _told(self, rows: pa.Table) -> pa.Table:
        """Rows of `statistics` as rows of `columns`."""
        found = {name: rows[name] for name in rows.schema.names}
        found["uri"] = [without_secrets(uri) for uri in rows["uri"].to_pylist()]
        for name in ("predicted", "rival"):
            numbers = rows[name].to_pylist()
            found[f"{name}_name"] = [None if k is None else self._classes.get(k, str(k)) for k in numbers]
        metadata = [dict(pairs) for pairs in rows["metadata"].to_pylist()]
        for name in self._survey.metadata:
            found[f"metadata_{name}"] = [pairs.get(name) for pairs in metadata]
        return pa.table({name: found[name] for name in self.columns.names}, self.columns)

    def _pictures_of(self, rows: pa.Table) -> list[np.ndarray | None]:
        pictures = [self._held.get(image_id) for image_id in rows["image_id"].to_pylist()]
        if self._everything:
            refs = [ImageRef(**row) for row in rows.select(["image_id", "uri", "label"]).to_pylist()]
            missing = [k for k, picture in enumerate(pictures) if picture is None]
            read = self._pictures.of_many([refs[k] for k in missing])
            for k, picture in zip(missing, read, strict=True):
                pictures[k] = None if picture is None else thumbnail(picture)
        return pictures
