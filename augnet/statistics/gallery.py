"""The images at both ends of a statistic, each with a small picture and a small heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import get_args

import numpy as np

from augnet.statistics.moments import block_mean
from augnet.storage.catalog import End

SHOWN = ("margin_l2", "frobenius")
"""The statistics with a gallery."""

THUMBNAIL_PIXELS = 128
"""Longest side of a thumbnail."""


@dataclass(frozen=True)
class Exhibit:
    """One image of a gallery, and its value of the statistic.

    Attributes:
        thumbnail: (h, w, 1 or 3) uint8, the picture averaged over blocks of pixels.
        heat: (h, w) float32, the predicted row's magnitude averaged over the same blocks; NaN where that row
            was not selected.
    """

    value: float
    image_id: str
    thumbnail: np.ndarray
    heat: np.ndarray


PARTS = tuple(part.name for part in fields(Exhibit))


@dataclass(frozen=True)
class Gallery:
    """Up to `size` images at each end of each of SHOWN, the most extreme first.

    Equal values are ordered by image_id, so that the order of additions and merges leaves no trace.
    """

    size: int
    exhibits: dict[tuple[str, End], list[Exhibit]] = field(
        default_factory=lambda: {(name, end): [] for name in SHOWN for end in get_args(End)}
    )

    def add(
        self,
        values: Mapping[str, np.ndarray],
        image_ids: list[str],
        magnitude: np.ndarray,
        picture: Callable[[int], np.ndarray],
    ) -> None:
        """Takes in a batch of n images.

        Args:
            values: statistic -> (n,) float64, NaN where null.
            magnitude: (n, height, width), of the predicted row.
            picture: k -> (height, width, 1 or 3) uint8, called only for images that enter.
        """
        pictures: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for (name, end), shown in self.exhibits.items():
            known = np.flatnonzero(~np.isnan(values[name]))
            entering = sorted((_rank(values[name][k], end), image_ids[k], int(k)) for k in known)[: self.size]
            if shown and len(shown) == self.size:
                last = (_rank(shown[-1].value, end), shown[-1].image_id)
                entering = [entry for entry in entering if entry[:2] < last]
            for _, image_id, k in entering:
                if k not in pictures:
                    pictures[k] = thumbnail(picture(k)), heat(magnitude[k])
                shown.append(Exhibit(float(values[name][k]), image_id, *pictures[k]))
            self._keep(name, end)

    def merge(self, other: Gallery) -> None:
        """Takes in the exhibits of another gallery of the same size."""
        for key, shown in self.exhibits.items():
            shown += other.exhibits[key]
            self._keep(*key)

    def _keep(self, name: str, end: End) -> None:
        shown = self.exhibits[name, end]
        shown.sort(key=lambda exhibit: (_rank(exhibit.value, end), exhibit.image_id))
        del shown[self.size :]

    def arrays(self) -> dict[str, np.ndarray]:
        """Array name -> array, for an NPZ file; a list that is empty is left out."""
        result = {}
        for (name, end), shown in self.exhibits.items():
            for part in PARTS if shown else ():
                result[f"{name}.{end}.{part}"] = np.array([getattr(exhibit, part) for exhibit in shown])
        return result

    @classmethod
    def from_arrays(cls, size: int, arrays: Mapping[str, np.ndarray]) -> Gallery:
        """The gallery that `arrays` came from."""
        gallery = cls(size)
        for (name, end), shown in gallery.exhibits.items():
            if f"{name}.{end}.value" in arrays:
                parts = (arrays[f"{name}.{end}.{part}"] for part in PARTS)
                shown += [Exhibit(float(v), str(i), t, h) for v, i, t, h in zip(*parts, strict=True)]
        return gallery


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """(h, w, 1 or 3) uint8, at most THUMBNAIL_PIXELS a side."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"picture: {picture.dtype} {picture.shape}; uint8 (height, width, 1 or 3) is needed")
    return np.rint(block_mean(picture, _pool(picture))).astype(np.uint8)


def heat(magnitude: np.ndarray) -> np.ndarray:
    """(h, w) float32 of a (height, width) map, over the blocks that `thumbnail` uses."""
    return block_mean(magnitude[:, :, None], _pool(magnitude))[:, :, 0].astype(np.float32)


def _pool(image: np.ndarray) -> int:
    return -(-max(image.shape[:2]) // THUMBNAIL_PIXELS)


def _rank(value: float, end: End) -> float:
    return float(value) if end == "lowest" else -float(value)
