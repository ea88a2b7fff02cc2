"""Tar archives of images: WebDataset shards, where a sample is the members with one name, and plain ones.

Nothing is ever extracted: members are read by their place in the archive, whatever path or link they claim.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO

from augnet.sources.base import ImageRef
from augnet.sources.container import (
    LABEL_NAMES,
    ContainerSource,
    byte_range,
    choose,
    choose_metadata,
    damage,
    folder_label,
    is_hidden,
    label_text,
    metadata_of,
    unique,
)
from augnet.sources.files import DataFile
from augnet.sources.folder import SUFFIXES
from augnet.sources.paths import printable

_LABEL_BYTES = 2**16
"""A member of text or JSON that is longer than this holds no label."""

_HEADER_BYTES = 2**20
_TEXTS = ("cls", "json", "txt")


@dataclass
class _Sample:
    """The members of one key, in order.

    Attributes:
        key: path of the members up to the first dot of their name.
        images: ending of each image member -> place, or why it cannot be read.
        texts: ending of each member that may hold a label -> its bytes.
    """

    key: str
    images: dict[str, str] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)

    def fields(self) -> dict[str, object]:
        """What may be a label or metadata, by name: the members, and the values in the JSON member."""
        try:
            tree = json.loads(self.texts.get("json", b"{}"))
        except (ValueError, RecursionError):
            tree = {}
        return {**(tree if isinstance(tree, dict) else {}), **self.texts}


class WebDatasetSource(ContainerSource):
    """The images of tar archives, plain or gzipped.

    `image_id` is `file#key`; where a key has several images, `file#key.ending`. The label is the `.cls`
    member, else the JSON member's, else the `.txt` member, else the folder in the archive.

    Args:
        config: the `images` section. `image` is the ending of the member to take where there are several;
            `labels` and each of `metadata` is the ending of a member, or a key of the JSON member.
    """

    endings = (".tar", ".tgz", ".tar.gz")
    magic = ((257, b"ustar"),)
    file = "tar archive"

    @cached_property
    def _fields(self) -> tuple[str | None, tuple[str, ...]]:
        """What holds the label and metadata, settled by the first sample with an image.

        The label is None for the folder or no label.

        Raises:
            ConfigError: the sample lacks what the configuration names.
        """
        first = self.first_readable(self._first_sample)
        choose("images.image", self.config.image, first.images, (), "image member")
        names, wanted, kind = first.fields(), self.config.labels, "member or JSON key"
        further = choose_metadata(self.config, names, kind)
        if wanted in ("none", "folder"):
            return None, further
        guesses = ("cls", *LABEL_NAMES, "txt")
        return choose("images.labels", None if wanted == "auto" else wanted, names, guesses, kind), further

    def _first_sample(self, file: DataFile) -> _Sample:
        for part in self._samples(file):
            if isinstance(part, _Sample):
                return part
            raise ValueError(part.uri.rpartition(": ")[2])
        raise ValueError("there is no image in it")

    def _images(self, file: DataFile) -> Iterator[ImageRef]:
        return unique(self._members(file))

    def _members(self, file: DataFile) -> Iterator[ImageRef]:
        for part in self._samples(file):
            if isinstance(part, ImageRef):
                yield part
                continue
            label_field, further = self._fields
            label, values = None, part.fields()
            if label_field is not None:
                label = label_text(values.get(label_field))
            elif self.config.labels in ("auto", "folder"):
                label = folder_label(part.key)
            metadata = metadata_of(values, further)
            images = part.images
            if self.config.image is not None:
                images = {ending: place for ending, place in images.items() if ending == self.config.image}
            for ending, place in images.items():
                name = part.key if len(images) == 1 else f"{part.key}.{ending}"
                yield ImageRef(f"{file.name}#{name}", f"{file.uri}#{place}", label, metadata)

    def _read(self, uri: str, place: str) -> bytes:
        return self.read_bytes(uri, place)

    def _samples(self, file: DataFile) -> Iterator[_Sample | ImageRef]:
        """The samples that have an image; what is damaged as such an image."""
        sample = _Sample("")
        stream, gzipped = self.files.open_unpacked(file.uri)
        with closing(stream):
            try:
                for member in _walk(stream):
                    name = printable(member.name.removeprefix("./"))
                    folder, slash, base = name.rpartition("/")
                    stem, _, ending = base.partition(".")
                    key, ending = f"{folder}{slash}{stem}", ending.lower()
                    if key != sample.key:
                        if sample.images:
                            yield sample
                        sample = _Sample(key)
                    if is_hidden(name):
                        continue
                    if base.lower().endswith(SUFFIXES) and not member.isdir():
                        sample.images[ending] = _place(file, member, gzipped)
                    elif ending in _TEXTS and member.isreg() and 0 <= member.size <= _LABEL_BYTES:
                        stream.seek(member.offset_data)
                        sample.texts[ending] = stream.read(member.size)
            except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
                if sample.images:
                    yield sample
                yield damage(file, f"the archive is damaged ({error})")
                return
        if sample.images:
            yield sample


def _place(file: DataFile, member: tarfile.TarInfo, gzipped: bool) -> str:
    if not member.isreg() or member.issparse():
        kind = "a sparse file" if member.isreg() else "a link or a special file, which is not followed"
        return damage(file, kind).uri.removeprefix(f"{file.uri}#")
    return byte_range(member.offset_data, member.size, gzipped)


def _walk(stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The members in order, whose data are not read.

    Raises:
        tarfile.TarError: the archive is damaged; `tarfile` itself takes a broken header for the end.
    """
    archive = tarfile.TarFile(fileobj=_BoundedReads(stream))  # type: ignore[arg-type]
    before = -1
    while (member := archive.next()) is not None:
        if archive.offset <= before or member.size < 0:
            raise tarfile.ReadError("a header leads backwards")
        before = archive.offset
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
        yield member
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"no header at byte {archive.offset}")


class _BoundedReads:
    """A file as `tarfile` reads headers from it: one that claims to be huge asks for no memory."""

    def __init__(self, stream: BinaryIO):
        self.seek, self.tell, self._stream = stream.seek, stream.tell, stream

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)
