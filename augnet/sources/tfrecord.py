"""TFRecord files of tf.train.Example, read in ranges.

The records are walked here rather than by TensorFlow's reader: that one asks for as much memory as a record's
header claims, and a false header ends the process; and it opens no fsspec address. A record is its length
(uint64), a checksum of that, its bytes, and a checksum of those (masked CRC-32C):
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing
from functools import cached_property
from typing import Any, BinaryIO

import google_crc32c
from google.protobuf.message import DecodeError

from augnet.errors import ConfigError, ImageError
from augnet.sources.base import ImageRef
from augnet.sources.container import (
    ContainerSource,
    byte_range,
    choose,
    choose_label,
    choose_metadata,
    damage,
    label_text,
    metadata_of,
    parse_range,
)
from augnet.sources.example_proto import Example
from augnet.sources.files import DataFile, refuse_size

IMAGE_NAMES = ("image/encoded", "image", "image_raw", "encoded", "jpeg", "png", "img")
"""What a feature of images is called, in the order in which they are looked for."""

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_SKIP_BYTES = 2**20
_NAMES_BYTES = 2**24


class TFRecordSource(ContainerSource):
    """The images of TFRecord files, plain or gzipped. `image_id` is `file#index`.

    Args:
        config: the `images` section. `image`, `labels` and `metadata` name features of the Examples.
    """

    endings = (".tfrecord", ".tfrecords", ".tfrec", ".tfrecord.gz", ".tfrecords.gz")
    file = "TFRecord file"

    @classmethod
    def recognizes(cls, name: str, start: bytes) -> bool:
        """Also train.tfrecord-00000-of-00010, and files whose first record's header has a right checksum."""
        if name.endswith(cls.endings) or ".tfrecord-" in name:
            return True
        return len(start) >= _HEADER.size and start[8:12] == _CHECKSUM.pack(_masked_crc(start[:8]))

    @cached_property
    def _features(self) -> tuple[str, str | None, tuple[str, ...]]:
        """The features of images, of labels and of metadata, settled by the first readable record.

        Raises:
            ConfigError: there is no such feature, or none that is likely to hold images.
        """
        features = self.first_readable(self._first_features)
        of_bytes = [name for name, feature in features.items() if feature.WhichOneof("kind") == "bytes_list"]
        guesses = [name for name in IMAGE_NAMES if name in of_bytes] or of_bytes[: len(of_bytes) == 1]
        image = choose("images.image", self.config.image, features, guesses, "feature")
        if image is None:
            raise ConfigError(
                f"images.image: no feature is likely to hold images; name one of "
                f"{', '.join(map(repr, sorted(features)))}"
            )
        others = [name for name in features if name != image]
        label = choose_label(self.config.labels, others, "feature")
        return image, label, choose_metadata(self.config, others, "feature")

    def class_names(self) -> tuple[str, ...] | None:
        """Of the file label.labels.txt that TensorFlow Datasets writes beside its records."""
        _, label, _ = self._features
        if label is None or "/" in label:
            return None
        try:
            text = self.files.read_range(
                f"{self.first_file().uri.rpartition('/')[0]}/{label}.labels.txt", 0, _NAMES_BYTES
            )
            return tuple(text.decode("utf-8").splitlines()) or None
        except (OSError, ValueError):
            return None

    def _first_features(self, file: DataFile) -> dict[str, Any]:
        """By name, of a file's first record. Raises ValueError where it has none."""
        stream, _ = self.files.open_unpacked(file.uri)
        with closing(stream):
            for _, record in _records(stream, self.config.max_bytes):
                example = None if record is None else _parse(record)
                if example is not None and example.features.feature:
                    return dict(example.features.feature)
        raise ValueError("no record in it is a tf.train.Example with features")

    def _images(self, file: DataFile) -> Iterator[ImageRef]:
        _, label_feature, further = self._features
        stream, gzipped = self.files.open_unpacked(file.uri)
        index = 0
        with closing(stream):
            try:
                for (start, size), record in _records(stream, self.config.max_bytes):
                    label, metadata = None, ()  # type: str | None, tuple[tuple[str, str], ...]
                    if (label_feature is not None or further) and record is not None:
                        example = _parse(record)
                        label = None if label_feature is None else label_text(_values(example, label_feature))
                        metadata = metadata_of({name: _single(example, name) for name in further}, further)
                    place = byte_range(start, size, gzipped)
                    yield ImageRef(f"{file.name}#{index}", f"{file.uri}#{place}", label, metadata)
                    index += 1
            except ValueError as error:
                yield damage(file, f"{error}, after {index} records")

    def _read(self, uri: str, place: str) -> bytes:
        start, size, gzipped = parse_range(place)
        refuse_size(size, self.config.max_bytes)
        data = self.files.read_exactly(uri, start, size + _CHECKSUM.size, gzipped)
        record, checksum = data[:size], data[size:]
        if checksum != _CHECKSUM.pack(_masked_crc(record)):
            raise ImageError("read", "the record is damaged: its checksum is wrong")
        example = _parse(record)
        if example is None:
            raise ImageError("read", "the record is no tf.train.Example")
        name, _, _ = self._features
        values = _values(example, name)
        if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], bytes):
            found = ", ".join(map(repr, sorted(example.features.feature))) or "none"
            raise ImageError(
                "read", f"the record has not one image in feature {name!r}; its features: {found}"
            )
        if not values[0]:
            raise ImageError("read", "the image has no bytes")
        return values[0]


def _records(stream: BinaryIO, limit: int) -> Iterator[tuple[tuple[int, int], bytes | None]]:
    """The place (start, size in bytes) and the bytes of each record; None for one larger than `limit`.

    Raises:
        ValueError: the file is cut off, or a header is damaged: where the next record begins is unknown.
    """
    position = 0
    while header := stream.read(_HEADER.size):
        if len(header) < _HEADER.size:
            raise ValueError("the file is cut off in a record's header")
        length, checksum = _HEADER.unpack(header)
        if checksum != _masked_crc(header[:8]):
            raise ValueError("a record's header is damaged")
        start = position + _HEADER.size
        position = start + length + _CHECKSUM.size
        record = None
        if length <= limit:
            record = stream.read(length)
            rest = length - len(record) + len(stream.read(_CHECKSUM.size)) - _CHECKSUM.size
        else:
            rest = length + _CHECKSUM.size
            while rest and (skipped := len(stream.read(min(rest, _SKIP_BYTES)))):
                rest -= skipped
        if rest:
            raise ValueError("the file is cut off in a record")
        yield (start, length), record


def _parse(record: bytes) -> Any | None:
    """The Example; None where the bytes are none."""
    try:
        return Example.FromString(record)
    except DecodeError:
        return None


def _values(example: Any | None, name: str) -> list[bytes] | list[int] | list[float] | None:
    """The values of a feature; None where there is none."""
    if example is None or name not in example.features.feature:
        return None
    feature = example.features.feature[name]
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else None


def _single(example: Any | None, name: str) -> bytes | int | float | None:
    """The value of a feature; None where it has none or several."""
    values = _values(example, name) or ()
    return values[0] if len(values) == 1 else None


def _masked_crc(data: bytes) -> int:
    checksum: int = google_crc32c.value(data)
    return (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF
