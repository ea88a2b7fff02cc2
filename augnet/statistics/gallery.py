"""The images that a report shows, each with a small picture and small maps of its rows.

An image is kept for a reason: it is at an end of a statistic, it is flagged, or it is in a random sample, of
its label or of all images. Each reason has a shortlist of a fixed length in a fixed order, so that what is
kept depends neither on how the images are cut into units nor on the order in which those are merged.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import get_args

import numpy as np

from augnet.statistics.moments import shrunk
from augnet.storage.catalog import SCALARS, End

THUMBNAIL_PIXELS = 128
"""Longest side of a thumbnail."""

END_IMAGES = 8
"""Images at each end of each statistic, at most."""

END_SHARE = 0.25
"""Of a gallery, for the ends of the statistics, at most."""

LEVELS = 127
"""A view is kept in steps of its largest magnitude over this."""

FLAGGED, ANY = "flagged", "any"


@dataclass(frozen=True)
class Exhibit:
    """What a gallery keeps of an image.

    Attributes:
        thumbnail: (h, w, 1 or 3) uint8, the picture averaged over blocks of pixels.
        rival: the output that the views' second row is of; -1 where there is none.
        scale: (view,) float32, the largest magnitude of each view; NaN where it is not known.
        views: (view, h, w) int8, see `engine.batch.VIEWS`, in steps of scale / LEVELS.
    """

    image_id: str
    thumbnail: np.ndarray
    rival: int
    scale: np.ndarray
    views: np.ndarray


PARTS = tuple(part.name for part in fields(Exhibit))


@dataclass(frozen=True)
class Gallery:
    """Up to about `size` images, and up to `size` more of each of: flagged, sampled by label, sampled.

    Attributes:
        size: images that a report shows.
        labels: how many labels are sampled by themselves.
        statistics: how many have ends.
        shortlists: by reason, in ascending order, (rank, image_id) of at most `_length` images.
        exhibits: of every image that is on a shortlist.
    """

    size: int
    labels: int
    statistics: int = len(SCALARS)
    shortlists: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    exhibits: dict[str, Exhibit] = field(default_factory=dict)

    def add(
        self,
        values: Mapping[str, np.ndarray],
        image_ids: Sequence[str],
        *,
        flagged: np.ndarray,
        label_ids: np.ndarray,
        rivals: np.ndarray,
        views: np.ndarray,
        picture: Callable[[int], np.ndarray],
        bounds: np.ndarray | None = None,
    ) -> None:
        """Takes in a batch of n images.

        Args:
            values: statistic -> (n,) float64, NaN where null.
            flagged: (n,) bool.
            label_ids: (n,) integers, -1 for none.
            rivals, views: as of `JacobianBatch`.
            picture: k -> (height, width, 1 or 3) uint8, called only for images that enter.
            bounds: of the samples, see `sample_bounds`; default: none.
        """
        if not self.size:
            return
        bounds = np.ones(self.labels + 1) if bounds is None else bounds
        numbers = {image_id: k for k, image_id in enumerate(image_ids)}
        for reason, rank, image_id in self._candidates(values, image_ids, flagged, label_ids, bounds):
            if self._enter(reason, rank, image_id) and image_id not in self.exhibits:
                k = numbers[image_id]
                scale, steps = quantized(views[k])
                small = thumbnail(picture(k))
                self.exhibits[image_id] = Exhibit(image_id, small, int(rivals[k]), scale, steps)
        self._forget()

    def merge(self, other: Gallery) -> None:
        """Takes in the images of another gallery of the same audit."""
        for reason, entries in other.shortlists.items():
            for rank, image_id in entries:
                self._enter(reason, rank, image_id)
        self.exhibits.update(other.exhibits)
        self._forget()

    def shown(self) -> list[Exhibit]:
        """The `size` images of a report, none twice: the ends, the flagged, the samples by label, then any.

        Of the ends, and of the labels, as many of each as of every other.
        """
        ends = [reason for reason in self.shortlists if reason.startswith("end")]
        labels = [reason for reason in self.shortlists if reason.startswith("label")]
        groups = ([*sorted(ends)], [FLAGGED], [*sorted(labels)], [ANY])
        chosen: dict[str, None] = {}
        for reasons in groups:
            lists = [self.shortlists.get(reason, []) for reason in reasons]
            for place in range(max(map(len, lists), default=0)):
                chosen.update((part[place][1], None) for part in lists if place < len(part))
        return [self.exhibits[image_id] for image_id in [*chosen][: self.size]]

    def _candidates(
        self,
        values: Mapping[str, np.ndarray],
        image_ids: Sequence[str],
        flagged: np.ndarray,
        label_ids: np.ndarray,
        bounds: np.ndarray,
    ) -> Iterator[tuple[str, float, str]]:
        """(reason, rank, image_id) of all that may enter, the best first of every reason."""
        most = self._length("end")
        for name, column in values.items():
            for end in get_args(End):
                ranks = column if end == "lowest" else -column
                known = np.sort(ranks[~np.isnan(ranks)])
                limit = known[most - 1] if len(known) > most else np.inf
                reached = np.flatnonzero(ranks <= limit).tolist()
                best = sorted((float(ranks[k]), image_ids[k]) for k in reached)
                yield from ((f"end.{name}.{end}", rank, image_id) for rank, image_id in best[:most])
        draws = [draw(image_id) for image_id in image_ids]
        for k in sorted(range(len(draws)), key=draws.__getitem__):
            if flagged[k]:
                yield FLAGGED, draws[k], image_ids[k]
            label = int(label_ids[k])
            if 0 <= label < self.labels and draws[k] < bounds[label]:
                yield f"label.{label:05d}", draws[k], image_ids[k]
            if draws[k] < bounds[-1]:
                yield ANY, draws[k], image_ids[k]

    def _length(self, reason: str) -> int:
        """The most images on a shortlist."""
        if reason.startswith("end"):
            return min(END_IMAGES, math.ceil(END_SHARE * self.size / self.statistics / 2))
        if reason.startswith("label"):
            return label_sample(self.size, self.labels)
        return self.size

    def _enter(self, reason: str, rank: float, image_id: str) -> bool:
        """Put an image on a shortlist in its place; false where others are before it and the list is full."""
        entries, length = self.shortlists.setdefault(reason, []), self._length(reason)
        if bisect(entries, (rank, image_id)) >= length:
            return False
        insort(entries, (rank, image_id))
        del entries[length:]
        return True

    def _forget(self) -> None:
        """Let go of the images that are on no shortlist any more."""
        listed = {image_id for entries in self.shortlists.values() for _, image_id in entries}
        for image_id in self.exhibits.keys() - listed:
            del self.exhibits[image_id]

    def arrays(self) -> dict[str, np.ndarray]:
        """Array name -> array, for the NPZ file of an aggregate."""
        listed = [
            (reason, rank, image_id)
            for reason in sorted(self.shortlists)
            for rank, image_id in self.shortlists[reason]
        ]
        reasons, ranks, ids = zip(*listed, strict=True) if listed else ((), (), ())
        shortlists = {
            "shortlist.reason": np.array(reasons, str),
            "shortlist.rank": np.array(ranks, np.float64),
            "shortlist.image_id": np.array(ids, str),
        }
        kept = [self.exhibits[image_id] for image_id in sorted(self.exhibits)]
        return shortlists | exhibit_arrays(kept)

    def take(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Fills an empty gallery with what the `arrays` of another came from."""
        names = (arrays[f"shortlist.{part}"].tolist() for part in ("reason", "rank", "image_id"))
        for reason, rank, image_id in zip(*names, strict=True):
            self.shortlists.setdefault(reason, []).append((rank, image_id))
        self.exhibits.update((exhibit.image_id, exhibit) for exhibit in exhibits_of(arrays))


def exhibit_arrays(exhibits: Iterable[Exhibit]) -> dict[str, np.ndarray]:
    """One array for each of PARTS, the images along its first axis; nothing for no images."""
    kept = list(exhibits)
    return {part: np.array([getattr(exhibit, part) for exhibit in kept]) for part in PARTS if kept}


def exhibits_of(arrays: Mapping[str, np.ndarray]) -> Iterator[Exhibit]:
    """What `exhibit_arrays` made the arrays of."""
    for image_id, thumb, rival, scale, views in zip(*(arrays.get(part, ()) for part in PARTS), strict=True):
        # Copies, as a part of an array would keep the whole in memory when the other images are let go.
        yield Exhibit(str(image_id), thumb.copy(), int(rival), scale.copy(), views.copy())


def draw(image_id: str) -> float:
    """A number in [0, 1) that the id alone decides: the images with the lowest are a random sample."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=7).digest()) / 2**56


def label_sample(size: int, labels: int) -> int:
    """Images that are sampled of each label."""
    return math.floor((1 - END_SHARE) * size / max(1, labels))


def sample_bounds(size: int, images: int, label_images: Sequence[int]) -> np.ndarray:
    """(label + 1,) the draws below which the samples of each label, and of all images, lie.

    A unit knows only its own images; without a bound each would keep as many as the whole report shows. With
    it, all units together keep little more than that, and a sample is short in about one case of a thousand.
    """
    wanted = np.array([*(label_sample(size, len(label_images)) for _ in label_images), size], float)
    slack = np.where(wanted > 0, wanted + 3 * np.sqrt(wanted) + 3, 0)
    return slack / np.maximum([*label_images, images], 1)


def quantized(views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale (view,) float32 and steps (view, h, w) int8 of views (view, h, w); a NaN view has scale NaN."""
    scale = np.abs(views).max(axis=(1, 2))
    scale = np.where(np.isfinite(scale), scale, np.nan).astype(np.float32)
    known = np.nan_to_num(scale)[:, None, None]
    steps = np.divide(np.nan_to_num(views), known, out=np.zeros(views.shape, np.float32), where=known > 0)
    return scale, np.rint(steps * LEVELS).astype(np.int8)


def view_of(gallery: Mapping[str, np.ndarray], places: np.ndarray, view: int) -> np.ndarray:
    """(n, h, w) float32, one of `engine.batch.VIEWS` of the images at places (n,); NaN where it is not known.

    Args:
        gallery: as `exhibit_arrays` gives it.
    """
    return gallery["views"][places, view] * (gallery["scale"][places, view, None, None] / LEVELS)


def thumbnail(picture: np.ndarray) -> np.ndarray:
    """(h, w, 1 or 3) uint8, at most THUMBNAIL_PIXELS a side."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"picture: {picture.dtype} {picture.shape}; uint8 (height, width, 1 or 3) is needed")
    return np.rint(shrunk(picture, THUMBNAIL_PIXELS)).astype(np.uint8)
