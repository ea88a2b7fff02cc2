"""What a dataset format offers: a listing of its images in a fixed order, and each image's bytes or array.

A new format is one module with a `Source`, its line in `formats.FORMATS`, and its name at `images.format`:

>>> import numpy as np
>>> class Noise(Source):
...     '''Grey pictures of noise: what does a model make of nothing?'''
...     def list(self):
...         return (ImageRef(f"noise#{seed}", str(seed), None) for seed in range(100))
...     def read(self, ref):
...         return np.random.default_rng(int(ref.uri)).integers(0, 256, (32, 32), np.uint8)
>>> noise = Noise()
>>> first = next(noise.list())
>>> first.image_id, noise.read(first).shape
('noise#0', (32, 32))

A format whose files hold many images each derives from `container.ContainerSource` instead.
"""

from __future__ import annotations

import hashlib
import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from augnet.config import ImagesConfig
from augnet.errors import ConfigError

Encoded = bytes | np.ndarray
"""An image of a dataset: an image file, or an array (height, width) or (height, width, channel)."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of a dataset: its name and whereabouts, not its pixels.

    Attributes:
        image_id: unique name inside the dataset; always valid Unicode.
        uri: where the bytes are, as text that `Source.read` understands on any machine that sees the data. In
            a file of many images, `#` and the image's place follow: bytes, a row, a member.
        label: class name, or None where there is none.
        metadata: (name, value) of what else the dataset says of it and `images.metadata` asks for.
    """

    image_id: str
    uri: str
    label: str | None
    metadata: tuple[tuple[str, str], ...] = ()


class Source(ABC):
    """A dataset of images. Small, picklable, and the same on every worker.

    Attributes:
        reads_at_once: images to read at the same time, at least; decoding takes as many as there are cores.
        holds_inputs: the images are arrays of floats, which a model is fed as they are.
    """

    reads_at_once: int = 2
    holds_inputs: bool = False

    @abstractmethod
    def list(self) -> Iterator[ImageRef]:
        """The images, in an order that is the same every time, found while iterating.

        Raises:
            ConfigError: on the first step, when there is no image.
        """

    @abstractmethod
    def read(self, ref: ImageRef) -> Encoded:
        """One image. Safe to call from several threads.

        Raises:
            ImageError: stage "read", when it cannot be had; the reason holds neither path nor time.
        """

    def reads_forward(self, ref: ImageRef) -> bool:
        """Whether an image is best read by the thread that reads its neighbours, in the order of the listing.

        So it is where reading at random costs much more, as in compressed streams.
        """
        return False

    def class_names(self) -> tuple[str, ...] | None:
        """The dataset's own names of its classes, in the order of their numbers; None where it has none."""
        return None


def check_folder_labels(config: ImagesConfig) -> None:
    """Raise ConfigError where a column is named, but the images are files in folders."""
    refuse_metadata(config, "images in a folder have")
    if config.labels not in ("auto", "folder", "none"):
        raise ConfigError(
            f"images.labels: {config.labels!r}: images in a folder have no such column; give folder or none, "
            "or a manifest (.csv, .jsonl, .parquet) as images.path"
        )


def refuse_metadata(config: ImagesConfig, what: str) -> None:
    """Raise ConfigError where `images.metadata` names columns, but the dataset has none."""
    if config.metadata not in ("auto", "none", ()):
        raise ConfigError(f"images.metadata: {list(config.metadata)}: {what} no such columns; leave it out")


def sample(refs: Iterable[ImageRef], limit: int, seed: int) -> list[ImageRef]:
    """A random sample of at most `limit` images, without replacement, in the order of the listing.

    Keeps the images whose hash of (seed, image_id) is smallest: one pass, memory for `limit` refs, the same
    on every machine, a larger sample holds the smaller one, and a file more or less in the dataset changes at
    most one image of the sample.

    Args:
        refs: all images.
        limit: images to keep.
        seed: any integer; another seed gives another sample.
    """

    def rank(entry: tuple[int, ImageRef]) -> bytes:
        return hashlib.blake2b(f"{seed} {entry[1].image_id}".encode(), digest_size=16).digest()

    return [ref for _, ref in sorted(heapq.nsmallest(limit, enumerate(refs), key=rank))]
