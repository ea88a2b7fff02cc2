"""The mergeable dataset aggregate: what a unit of work knows of its images, without the images."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import astuple, dataclass
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from augnet.engine.batch import RINGS, VIEWS, JacobianBatch, MapMoments, view_pool
from augnet.engine.measures.moments import empty_moments, merge_moments
from augnet.statistics.gallery import Gallery
from augnet.statistics.image import FLAGS, predicted_outputs
from augnet.statistics.moments import MOMENTS, block_mean, without_nonfinite
from augnet.statistics.reliability import no_trials
from augnet.statistics.sample import GroupSample
from augnet.storage.catalog import SCALARS

FORMAT = 4
"""Of the saved file; a file of another format is refused."""

COUNTS = ("images", "failures", "resized", "recolored")
"""The numbers of images that an aggregate counts."""

SUMS = ("flags", "labels", "input_sum", "rings", "noise")
"""The arrays that are added up."""

ROW_L2_ARRAYS = {"count": "count", "mean": "mean", "m2": "m2", "max": "max_abs"}
"""Array of the saved file -> attribute of `row_l2`."""

PAIRED_OUTPUTS = 2048
"""Above this many outputs nothing is gathered of their pairs, which would take 24 bytes each."""


@dataclass(frozen=True)
class Shape:
    """What two aggregates must share to be merged: numbers of outputs and known labels, and the input's size.

    Maps are kept over blocks of `map_pool` pixels a side, with the pictures of about `gallery` images, and
    `sampled` images of each group. Survival is foretold under noise of `noises` standard deviations; so many
    `statistics` are described.
    """

    outputs: int
    labels: int
    height: int
    width: int
    channels: int
    map_pool: int = 1
    gallery: int = 0
    sampled: int = 0
    noises: int = 0
    statistics: int = len(SCALARS)

    @property
    def paired_outputs(self) -> int:
        """Outputs of which pairs are gathered: all of them, or none of more than PAIRED_OUTPUTS."""
        return self.outputs if self.outputs <= PAIRED_OUTPUTS else 0


@dataclass(frozen=True)
class Pairs:
    """Figures of pairs of outputs; [i, j] and, but for `rivals`, [j, i] are equal, and [i, i] is unused.

    Attributes:
        count: (output, output) int64, images in which both rows were selected and neither is zero.
        cosine: (output, output) float64, sum over them of G_ij / sqrt(G_ii G_jj).
        rivals: (output, output) int64, images predicted as i whose rival is j.
    """

    count: np.ndarray
    cosine: np.ndarray
    rivals: np.ndarray


@dataclass
class Aggregate:
    """Sums over images that can be added up in any order and split: the same to float64 rounding.

    An image whose Jacobian holds a NaN or Inf counts in `images`, `flags`, `labels` and `input_sum` only.

    Attributes:
        shape: sizes that are fixed for an audit.
        flags: (flag,) int64, images that carry each of `image.FLAGS`.
        labels: (label,) int64, images of each known label.
        moments: per-pixel moments of the rows, outputs first, then labels.
        input_sum: (height, width, channel) float64, sum of the model inputs, over the maps' blocks.
        row_l2: moments of ||J_r||_2 by output r, (output,) each; a norm is its own magnitude.
        pairs: of outputs.
        rings: (output, RINGS) float64, sum of the shares of energy by spatial frequency, of the rows drawn.
        noise: (sigma, bin, sum) float64, how well survival was foretold, see `reliability_sums`; `add` leaves
            it alone.
        sample: images in which findings are sought; `add` leaves it alone.
        gallery: the images that a report shows.
        images, failures: images measured, and those that could not be.
        resized, recolored: images whose size or colour mode was changed on the way in.
    """

    shape: Shape
    flags: np.ndarray
    labels: np.ndarray
    moments: MapMoments
    input_sum: np.ndarray
    row_l2: MapMoments
    pairs: Pairs
    rings: np.ndarray
    noise: np.ndarray
    sample: GroupSample
    gallery: Gallery
    images: int = 0
    failures: int = 0
    resized: int = 0
    recolored: int = 0

    @classmethod
    def empty(cls, shape: Shape) -> Aggregate:
        """The aggregate of no images."""
        outputs, paired, pool = shape.outputs, shape.paired_outputs, shape.map_pool
        height, width = -(-shape.height // pool), -(-shape.width // pool)
        return cls(
            shape=shape,
            flags=np.zeros(len(FLAGS), np.int64),
            labels=np.zeros(shape.labels, np.int64),
            moments=empty_moments(outputs + shape.labels, height, width, shape.channels),
            input_sum=np.zeros((height, width, shape.channels)),
            row_l2=empty_moments(outputs),
            pairs=Pairs(*(np.zeros((paired, paired), dtype) for dtype in (np.int64, np.float64, np.int64))),
            rings=np.zeros((outputs, RINGS)),
            noise=no_trials(shape.noises),
            sample=GroupSample(shape.sampled),
            gallery=Gallery(shape.gallery, shape.labels, shape.statistics),
        )

    def add(
        self,
        batch: JacobianBatch,
        statistics: Mapping[str, pa.Array],
        images: np.ndarray,
        *,
        image_ids: list[str],
        label_ids: np.ndarray,
        picture: Callable[[int], np.ndarray],
        bounds: np.ndarray | None = None,
        resized: int = 0,
        recolored: int = 0,
    ) -> None:
        """Takes in a batch of n images.

        Args:
            batch, statistics: as measured, and its columns from `image_statistics`, no others.
            images: (n, height, width, channel), the model inputs.
            image_ids: n ids, unique in the dataset.
            label_ids: (n,) integers, the label's number; -1 for none.
            picture: k -> the k-th image as uint8 (height, width, 1 or 3); called only for gallery images.
            bounds: of the gallery's samples, see `gallery.sample_bounds`; default: none.
            resized, recolored: images of the batch to which that was done.
        """
        self.images += len(batch)
        self.resized += resized
        self.recolored += recolored
        raised = statistics["flags"].flatten().to_pylist()
        self.flags += [raised.count(flag) for flag in FLAGS]
        self.labels += np.bincount(label_ids[label_ids >= 0], minlength=self.shape.labels)
        self.input_sum += block_mean(images.sum(axis=0, dtype=np.float64), self.shape.map_pool)
        spoiled = "nan" in raised or "inf" in raised
        merge_moments(self.moments, without_nonfinite(batch.moments) if spoiled else batch.moments)

        usable = statistics["row_l2"].is_valid().to_numpy(zero_copy_only=False)
        self._add_rows(batch.gram, batch.selected, usable)
        np.add.at(self.rings, batch.drawn[usable], batch.rings[usable, 1])
        predicted = predicted_outputs(batch.outputs)
        if self.shape.paired_outputs:
            rival = statistics["rival"].fill_null(-1).to_numpy(zero_copy_only=False)
            met = (rival >= 0) & (predicted >= 0)
            np.add.at(self.pairs.rivals, (predicted[met], rival[met]), 1)

        rivals, views = _known_views(batch, statistics["rival"])
        self.gallery.add(
            {
                name: values.to_numpy(zero_copy_only=False)
                for name, values in statistics.items()
                if pa.types.is_float64(values.type)
            },
            image_ids,
            flagged=statistics["flags"].value_lengths().to_numpy(zero_copy_only=False) > 0,
            label_ids=label_ids,
            rivals=rivals,
            views=views,
            picture=picture,
            bounds=bounds,
        )

    def _add_rows(self, gram: np.ndarray, selected: np.ndarray, usable: np.ndarray) -> None:
        """Norms and cosines of the selected rows."""
        if not usable.all():
            gram, selected = gram[usable], selected[usable]
        if not len(gram):
            return
        norms = np.sqrt(np.maximum(np.einsum("nrr->nr", gram), 0.0))
        merge_moments(self.row_l2, _moments_of_norms(norms, selected, self.shape.outputs))

        if not self.shape.paired_outputs:
            return
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        directed = (norms > 0).astype(np.float64)
        together = bool((selected == selected[0]).all())
        for part in [slice(None)] if together else [slice(k, k + 1) for k in range(len(gram))]:
            pairs = np.ix_(selected[part][0], selected[part][0])
            self.pairs.count[pairs] += (directed[part].T @ directed[part]).astype(np.int64)
            self.pairs.cosine[pairs] += np.einsum("nij,ni,nj->ij", gram[part], inverse[part], inverse[part])

    def merge(self, other: Aggregate) -> None:
        """Takes in the images of another aggregate; raises ValueError when it is of another audit."""
        if self.shape != other.shape:
            raise ValueError(f"aggregates of different audits do not merge: {self.shape} and {other.shape}")
        for name in (*COUNTS, *SUMS):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        merge_moments(self.moments, other.moments)
        merge_moments(self.row_l2, other.row_l2)
        for name, figures in vars(self.pairs).items():
            figures += getattr(other.pairs, name)
        self.sample.merge(other.sample)
        self.gallery.merge(other.gallery)

    def save(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        """Writes an NPZ file without pickles: the same aggregate, the same bytes.

        Maps and pairs are written only for groups and outputs that have any rows.
        """
        groups = np.flatnonzero(self.moments.count)
        met = np.flatnonzero(self.pairs.count.any(axis=1))
        predicted, rival = np.nonzero(self.pairs.rivals)
        arrays = {
            "format": np.array(FORMAT),
            "shape": np.array(astuple(self.shape), np.int64),
            "counts": np.array([getattr(self, name) for name in COUNTS], np.int64),
            **{name: getattr(self, name) for name in SUMS},
            "groups": groups,
            **{f"moments.{name}": getattr(self.moments, name)[groups] for name in MOMENTS},
            **{f"row_l2.{name}": getattr(self.row_l2, of) for name, of in ROW_L2_ARRAYS.items()},
            "pairs.met": met,
            "pairs.count": self.pairs.count[np.ix_(met, met)],
            "pairs.cosine": self.pairs.cosine[np.ix_(met, met)],
            "pairs.rivals": np.stack([predicted, rival, self.pairs.rivals[predicted, rival]]),
            **{f"sample.{name}": array for name, array in self.sample.arrays().items()},
            **{f"gallery.{name}": array for name, array in self.gallery.arrays().items()},
        }
        with open(file, "wb") if isinstance(file, str | os.PathLike) else nullcontext(file) as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: str | os.PathLike[str] | BinaryIO) -> Aggregate:
        """The aggregate that `save` wrote; raises ValueError for a file of another format."""
        with np.load(file, allow_pickle=False) as stored:
            if "format" not in stored or stored["format"] != FORMAT:
                raise ValueError(f"{file}: not an aggregate of format {FORMAT}; audit the unit again")
            arrays = {name: stored[name] for name in stored.files}
        aggregate = cls.empty(Shape(*arrays["shape"].tolist()))
        shape = aggregate.shape
        for name, value in zip(COUNTS, arrays["counts"].tolist(), strict=True):
            setattr(aggregate, name, value)
        for name in SUMS:
            getattr(aggregate, name)[:] = arrays[name]
        for name in MOMENTS:
            getattr(aggregate.moments, name)[arrays["groups"]] = arrays[f"moments.{name}"]
        for name, of in ROW_L2_ARRAYS.items():
            getattr(aggregate.row_l2, of)[:] = arrays[f"row_l2.{name}"]
        aggregate.row_l2.mean_abs[:] = aggregate.row_l2.mean
        met = np.ix_(arrays["pairs.met"], arrays["pairs.met"])
        aggregate.pairs.count[met] = arrays["pairs.count"]
        aggregate.pairs.cosine[met] = arrays["pairs.cosine"]
        predicted, rival, count = arrays["pairs.rivals"]
        aggregate.pairs.rivals[predicted, rival] = count
        aggregate.sample = GroupSample.from_arrays(shape.sampled, _below("sample.", arrays))
        aggregate.gallery.take(_below("gallery.", arrays))
        return aggregate


def _known_views(batch: JacobianBatch, rival: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The rivals (n,) and views (n, view, h, w) of a batch: of the rows that the statistics are about.

    Of a regression, or several yes-or-no answers, the engine's nearest row is not the statistics' rival.
    """
    if batch.views is None or batch.rival is None:
        side = view_pool(*batch.magnitude.shape[1:])
        height, width = (-(-length // side) for length in batch.magnitude.shape[1:])
        return np.full(len(batch), -1), np.full((len(batch), len(VIEWS), height, width), np.nan)
    known = rival.fill_null(-1).to_numpy(zero_copy_only=False) == batch.rival
    of_rival = ~np.isin(VIEWS, ("predicted", "predicted_magnitude"))
    unknown = ~known[:, None] & of_rival
    return np.where(known, batch.rival, -1), np.where(unknown[:, :, None, None], np.nan, batch.views)


def _moments_of_norms(norms: np.ndarray, selected: np.ndarray, outputs: int) -> MapMoments:
    """By output, of (n, R) norms of the rows of outputs `selected` (n, R)."""
    output, norm = selected.ravel(), norms.ravel()
    count = np.bincount(output, minlength=outputs)
    mean = np.bincount(output, norm, minlength=outputs) / np.maximum(count, 1)
    m2 = np.bincount(output, (norm - mean[output]) ** 2, minlength=outputs)
    largest = np.zeros(outputs)
    np.maximum.at(largest, output, norm)
    return MapMoments(count.astype(np.int64), mean, m2, mean_abs=mean, max_abs=largest)


def _below(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
