"""A sample of the images of each prediction, with what their pixels add to it: what findings are sought in.

An image's rank is a digest of its id, and a group keeps those of lowest rank. So the sample is the same
whatever the order and the split in which images come, and as good as drawn at random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from augnet.engine.batch import JacobianBatch
from augnet.statistics.decision import Task, probabilities
from augnet.statistics.image import predicted_outputs
from augnet.statistics.moments import shrunk

MIN_IMAGES = 20
"""Of a group, and of others, for findings: with fewer, only overwhelming effects would be seen."""
MOST_IMAGES = 16384
"""Of all groups together: with their maps some 128 MB of memory."""

Group = tuple[int, bool]
"""An output, and whether its images are predicted to be of it. Of a regression: (output, True), all."""


@dataclass(frozen=True, order=True)
class Sampled:
    """One image of a group; they are ordered by rank.

    Attributes:
        outputs: (K,) float32.
        shares: (rows, columns) float16, the part of the output's attribution that lies in each cell, see
            `JacobianBatch.attributions`; in units of the mean cell, so that 1 is an even share.
        grey: (rows, columns) float16, the image, its channels' mean over cells of its own size.
    """

    rank: int
    image_id: str
    uri: str = field(compare=False)
    outputs: np.ndarray = field(compare=False)
    shares: np.ndarray = field(compare=False)
    grey: np.ndarray = field(compare=False)


ARRAYS = {
    "rank": np.uint64,
    "image_id": str,
    "uri": str,
    "outputs": np.float32,
    "shares": np.float16,
    "grey": np.float16,
}
GREY_CELLS = 32
"""Along a side of an image in grey, at most."""


@dataclass
class GroupSample:
    """Up to `size` images of each group."""

    size: int
    groups: dict[Group, list[Sampled]] = field(default_factory=dict)

    def add(
        self,
        batch: JacobianBatch,
        images: np.ndarray,
        task: Task,
        image_ids: Sequence[str],
        uris: Sequence[str],
    ) -> None:
        """Takes in a batch of n images; those without a map, or with one that is not finite, are left out.

        Args:
            images: (n, height, width, channel), what the batch is of.
            image_ids, uris: n each.
        """
        if not self.size or batch.attributions is None:
            return
        ranks = np.array([rank_of(image_id) for image_id in image_ids], np.uint64)
        total = batch.attributions.sum(axis=(2, 3), dtype=np.float64)
        usable = np.isfinite(total) & (total > 0)
        grey_of = cache(lambda k: _grey(images[k]))  # an image is in a group of each yes-or-no output
        for group, place, members in groups_of(batch, task):
            found = self.groups.setdefault(group, [])
            chosen = np.flatnonzero(members & usable[:, place])
            if len(found) == self.size:
                chosen = chosen[ranks[chosen] <= found[-1].rank]
            for k in chosen[np.argsort(ranks[chosen])][: self.size].tolist():
                shares = batch.attributions[k, place] / batch.attributions[k, place].mean(dtype=np.float64)
                outputs = batch.outputs[k].astype(np.float32)
                found.append(
                    Sampled(
                        int(ranks[k]),
                        image_ids[k],
                        uris[k],
                        outputs,
                        shares.astype(np.float16),
                        grey_of(k),
                    )
                )
            self._keep(group)

    def merge(self, other: GroupSample) -> None:
        """Takes in the images of another sample of the same size."""
        for group, found in other.groups.items():
            self.groups[group] = self.groups.get(group, []) + found
            self._keep(group)

    def _keep(self, group: Group) -> None:
        self.groups[group] = sorted(self.groups[group])[: self.size]

    def arrays(self) -> dict[str, np.ndarray]:
        """Array name -> array, for an NPZ file."""
        entries = [(group, image) for group in sorted(self.groups) for image in self.groups[group]]
        if not entries:
            return {}
        columns: dict[str, np.ndarray] = {
            name: np.array([getattr(image, name) for _, image in entries], dtype)
            for name, dtype in ARRAYS.items()
        }
        return {"group": np.array([group for group, _ in entries], np.int64)} | columns

    @classmethod
    def from_arrays(cls, size: int, arrays: Mapping[str, np.ndarray]) -> GroupSample:
        """The sample that `arrays` came from."""
        sample = cls(size)
        if not arrays:
            return sample
        columns: Iterator[Any] = (
            arrays[name] if arrays[name].ndim > 1 else arrays[name].tolist() for name in ARRAYS
        )
        for (output, side), *values in zip(arrays["group"].tolist(), *columns, strict=True):
            sample.groups.setdefault((output, bool(side)), []).append(Sampled(*values))
        return sample


def group_size(task: Task, outputs: int, images: int) -> int:
    """Images of each group of a model with so many outputs: `images`, or fewer where groups are many."""
    groups = 2 * outputs if task in ("multilabel", "binary") else outputs
    return min(images, max(1, MOST_IMAGES // groups))


def _grey(image: np.ndarray) -> np.ndarray:
    """See `Sampled.grey`, of an image (height, width, channel)."""
    largest = np.finfo(np.float16).max
    return shrunk(image, GREY_CELLS).mean(axis=-1).clip(-largest, largest).astype(np.float16)


def rank_of(image_id: str) -> int:
    """A number in [0, 2^64) that stands for the id: as good as random, and always the same."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest())


def groups_of(batch: JacobianBatch, task: Task) -> list[tuple[Group, int, np.ndarray]]:
    """The groups that images of the batch are in: each with its map's place and its members (n,) bool."""
    count = 0 if batch.attributions is None else batch.attributions.shape[1]
    if task == "multiclass":
        predicted = predicted_outputs(batch.outputs)
        return [((k, True), 0, predicted == k) for k in np.unique(predicted[predicted >= 0]).tolist()]
    if task == "regression":
        everyone = np.ones(len(batch), bool)
        return [
            ((int(output), True), place, everyone)
            for place, output in enumerate(batch.selected[0])
            if (batch.selected[:, place] == output).all() and place < count
        ]
    positive = probabilities(batch, task) > 0.5
    places = range(min(1, count) if task == "binary" else count)
    return [
        ((int(output), side), place, positive[:, output] == side)
        for place in places
        for output in [batch.selected[0, place]]
        if output >= 0 and (batch.selected[:, place] == output).all()
        for side in (True, False)
    ]
