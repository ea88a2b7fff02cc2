"""What a dataset format offers: a listing of its images in a fixed order, and the bytes of each."""

from __future__ import annotations

import hashlib
import heapq
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from augnet.config import ImagesConfig


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of a dataset: its name and whereabouts, not its pixels.

    Attributes:
        image_id: unique name inside the dataset; always valid Unicode.
        uri: where the bytes are, as text that `Source.read` understands on any machine that sees the data.
        label: class name, or None where there is none.
    """

    image_id: str
    uri: str
    label: str | None


class Source(ABC):
    """A dataset of images. Small, picklable, and the same on every worker.

    Attributes:
        reads_at_once: images to read at the same time, at least; decoding takes as many as there are cores.
    """

    reads_at_once: int = 2

    @abstractmethod
    def list(self) -> Iterator[ImageRef]:
        """The images, sorted by image_id (Unicode code points), found while iterating.

        Raises:
            ConfigError: on the first step, when there is no image.
        """

    @abstractmethod
    def read(self, ref: ImageRef) -> bytes:
        """The encoded bytes of one image.

        Raises:
            ImageError: stage "read", when they cannot be had; the reason holds neither path nor time.
        """


def open_source(config: ImagesConfig) -> Source:
    """The dataset that `images` of the configuration describes.

    Raises:
        ConfigError: when nothing readable is there.
    """
    from augnet.sources.folder import FolderSource  # the formats import this module
    from augnet.sources.remote import RemoteSource

    is_remote = "://" in config.path and not config.path.startswith("file://")
    return RemoteSource(config) if is_remote else FolderSource(config)


def sample(refs: Iterable[ImageRef], limit: int, seed: int) -> list[ImageRef]:
    """A random sample of at most `limit` images, without replacement, in the order of image_id.

    Keeps the images whose hash of (seed, image_id) is smallest: one pass, memory for `limit` refs, the same
    on every machine, a larger sample holds the smaller one, and a file more or less in the dataset changes at
    most one image of the sample.

    Args:
        refs: all images, in any order.
        limit: images to keep.
        seed: any integer; another seed gives another sample.
    """

    def rank(ref: ImageRef) -> bytes:
        return hashlib.blake2b(f"{seed} {ref.image_id}".encode(), digest_size=16).digest()

    return sorted(heapq.nsmallest(limit, refs, key=rank), key=lambda ref: ref.image_id)
