"""Images as one NumPy array: `x` of an NPZ file with labels `y`, or an NPY file. Images are read singly."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import BinaryIO, cast

import numpy as np

from augnet.config import ImagesConfig
from augnet.errors import ConfigError, ImageError
from augnet.sources.bands import NPY_MAGIC, npy_header
from augnet.sources.base import ImageRef, refuse_metadata
from augnet.sources.container import (
    LABEL_NAMES,
    ContainerSource,
    check_no_columns,
    choose,
    damage,
    label_text,
)
from augnet.sources.files import DataFile, read_problem, refuse_size
from augnet.sources.zip import member_start

_HEADER_BYTES = 16_384  # NumPy itself reads no longer header
_TYPES = ("uint8", "uint16", "float16", "float32", "float64")
_LABEL_BYTES = 2**28
_MEMBERS = 1000
_READ_ERRORS = (ValueError, NotImplementedError, RuntimeError, OSError, EOFError)


@dataclass(frozen=True)
class _Array:
    """An array inside a file.

    Attributes:
        shape: of all values; the first axis counts the images.
        dtype: of the values.
        start: byte of the first value, in the file, or in what the member unpacks to.
        packed: the member of an NPZ file that it lies packed in; empty where its bytes lie there as such.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int
    packed: str = ""


class ArraysSource(ContainerSource):
    """The images of an array (image, height, width) or (image, height, width, channel).

    Values of uint8 and uint16 are levels, those of floats the model's own input; see `decode`. `image_id` is
    `file#index`. Labels are the array `y` beside `x`, `y_test` beside `x_test`, `labels` beside `images`, in
    the NPZ file or as an NPY file.

    Args:
        config: the `images` section. `image` and `labels` name arrays of an NPZ file.
    """

    endings = (".npz", ".npy")
    magic = ((0, NPY_MAGIC),)
    markers = frozenset({"x.npy"})
    file = "NPZ or NPY file"

    def __init__(self, config: ImagesConfig):
        super().__init__(config)
        self._opened: dict[str, _Array] = {}

    @classmethod
    def recognizes(cls, name: str, start: bytes) -> bool:
        """In a folder, NPZ files; of NPY files, each of which may be one image, only x.npy and x_*.npy."""
        if start:
            return super().recognizes(name, start)
        base = name.rpartition("/")[2]
        return name.endswith(".npz") or base == "x.npy" or (base.startswith("x_") and base.endswith(".npy"))

    @cached_property
    def _names(self) -> tuple[str, str | None]:
        """The NPZ members of images and of labels, settled by the first file; empty and None for NPY files.

        Raises:
            ConfigError: there is no such array, or none that can only be meant.
        """
        refuse_metadata(self.config, "arrays have")
        name, arrays = self.first_readable(lambda file: (file.name, self._arrays_of(file.uri)))
        if "" in arrays:
            check_no_columns(self.config, "an NPY file")
            refuse_unfit(name, arrays[""].shape, arrays[""].dtype)
            return "", None
        likely = [name for name, array in arrays.items() if len(array.shape) in (3, 4)]
        guesses = [name for name in ("x", "images") if name in likely] or likely[: len(likely) == 1]
        image = choose("images.image", self.config.image, arrays, guesses, "array")
        if image is None:
            found = ", ".join(f"{name!r} {array.shape}" for name, array in arrays.items())
            raise ConfigError(
                f"images.image: name the array of {name!r} that holds the images; it has {found}"
            )
        refuse_unfit(image, arrays[image].shape, arrays[image].dtype)
        if self.config.labels in ("none", "folder"):
            return image, None
        fitting = [name for name, array in arrays.items() if array.shape[:1] == arrays[image].shape[:1]]
        wanted = None if self.config.labels == "auto" else self.config.labels
        guesses = [_beside(image), *LABEL_NAMES]
        return image, choose("images.labels", wanted, set(fitting) - {image}, guesses, "array of that length")

    def _images(self, file: DataFile) -> Iterator[ImageRef]:
        name, label_name = self._names
        try:
            array = self._array(file.uri)
            has_labels = self.config.labels != "none"
            labels = self._labels(file, name, label_name, array.shape[0]) if has_labels else None
        except (ImageError, *_READ_ERRORS) as error:
            yield damage(file, f"not readable ({error})")
            return
        for index in range(array.shape[0]):
            label = None if labels is None else label_text(labels[index])
            # What is packed is read forward, as if gzipped.
            place = f"z{index}" if array.packed else f"{index}"
            yield ImageRef(f"{file.name}#{index}", f"{file.uri}#{place}", label)

    def _read(self, uri: str, place: str) -> np.ndarray:
        try:
            array = self._array(uri)
        except _READ_ERRORS as error:
            raise ImageError("read", read_problem(error)) from error
        size = math.prod(array.shape[1:]) * array.dtype.itemsize
        refuse_size(size, self.config.max_bytes)
        data = self._values(uri, array, int(place.removeprefix("z")) * size, size)
        return np.frombuffer(data, array.dtype).reshape(array.shape[1:])

    def _labels(self, file: DataFile, name: str, label_name: str | None, count: int) -> np.ndarray | None:
        """The labels (image, ...) of a file. Raises one of _READ_ERRORS."""
        uri, array = file.uri, None
        if label_name is not None:
            array = self._arrays_of(uri)[label_name]
        elif not name:
            folder, slash, base = file.uri.rpartition("/")
            uri = f"{folder}{slash}{_beside(base)}"
            with suppress(FileNotFoundError):
                array = self._arrays_of(uri)[""] if uri != file.uri else None
        if array is None:
            return None
        size = math.prod(array.shape) * array.dtype.itemsize
        if array.shape[:1] != (count,) or size > _LABEL_BYTES:
            raise ValueError(f"labels of shape {array.shape} for {count} images")
        return np.frombuffer(self._values(uri, array, 0, size), array.dtype).reshape(array.shape)

    def _values(self, uri: str, array: _Array, start: int, size: int) -> bytes:
        if not array.packed:
            return self.files.read_exactly(uri, array.start + start, size)

        def unpacked() -> BinaryIO:
            return cast(BinaryIO, zipfile.ZipFile(self.files.open(uri)).open(array.packed))

        return self.files.read_forward(f"{uri}#{array.packed}", unpacked, array.start + start, size)

    def _array(self, uri: str) -> _Array:
        """The images of a file. Raises one of _READ_ERRORS."""
        if uri not in self._opened:
            name, _ = self._names
            arrays = self._arrays_of(uri)
            if name not in arrays:
                raise ValueError(f"there is no array {name!r}")
            self._opened[uri] = arrays[name]
        return self._opened[uri]

    def _arrays_of(self, uri: str) -> Mapping[str, _Array]:
        """The arrays of an NPZ file by name; that of an NPY file as "". Raises one of _READ_ERRORS."""
        with self.files.open(uri) as stream:
            start = stream.read(_HEADER_BYTES)
            if start.startswith(NPY_MAGIC):
                return {"": _described(start, self.files.size(uri))}
            arrays = {}
            try:
                archive = zipfile.ZipFile(stream)
                for member in archive.infolist()[:_MEMBERS]:
                    if member.filename.endswith(".npy"):
                        with archive.open(member) as data:
                            array = _described(data.read(_HEADER_BYTES), member.file_size, member.filename)
                        if member.compress_type == zipfile.ZIP_STORED:
                            begin = member_start(self.files, uri, member.header_offset)
                            array = replace(array, start=begin + array.start)
                        else:
                            array = replace(array, packed=member.filename)
                        arrays[member.filename.removesuffix(".npy")] = array
            except zipfile.BadZipFile as error:
                raise ValueError(f"the archive is damaged: {error}") from None
        if not arrays:
            raise ValueError("there is no array in it")
        return arrays


def _described(header: bytes, size: int, name: str = "it") -> _Array:
    """The array that a header describes. Raises ValueError where it is not wholly in `size` bytes."""
    try:
        shape, fortran, dtype, start = npy_header(header)
    except ValueError as error:
        raise ValueError(f"{name} is not readable: {error}") from None
    if fortran and len(shape) > 1:
        raise ValueError(f"{name} is in Fortran order; save numpy.ascontiguousarray of it")
    if start + math.prod(shape) * dtype.itemsize > size:
        raise ValueError(f"{name} ends before its {math.prod(shape)} values")
    return _Array(shape, dtype, start)


def refuse_unfit(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise ConfigError where an array of this shape and type cannot be images."""
    if len(shape) not in (3, 4):
        raise ConfigError(
            f"images.image: {name!r} is of shape {shape}; images are (image, height, width) or (image, "
            "height, width, channel)"
        )
    if dtype.name not in _TYPES:
        raise ConfigError(f"images.image: {name!r} holds {dtype}; save it as {', '.join(_TYPES[:4])}")


def _beside(name: str) -> str:
    """y for x, y_test for x_test, labels for images; the name itself where it is neither."""
    for images, labels in (("images", "labels"), ("x", "y"), ("X", "y")):
        if name.startswith(images):
            return labels + name[len(images) :]
    return name
