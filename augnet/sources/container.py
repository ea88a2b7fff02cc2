"""What formats with many images in a file have in common: their files, damage in them, names of columns."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice
from typing import ClassVar, TypeVar

import numpy as np

from augnet.config import ImagesConfig
from augnet.errors import ConfigError, ImageError, did_you_mean_path
from augnet.sources.base import Encoded, ImageRef, Source, refuse_metadata, sample
from augnet.sources.files import DataFile, Files, refuse_size
from augnet.sources.paths import printable

LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "cls",
    "category",
    "target",
    "y",
    "image/class/label",
    "class_name",
)
"""What a column or feature of labels is called, in the order in which they are looked for."""

METADATA_CHARACTERS = 100
"""Of a value of metadata that are kept; what is longer is no name of a slice."""

LOOKED_AT = 1000
"""Names in a folder that are looked at to tell what it holds."""

_T = TypeVar("_T")
_DAMAGED = "damaged: "


class ContainerSource(Source):
    """Images in files that hold many each: `images.path` is such a file, a folder of them, or a glob.

    A format says which files are its own (`endings`, `magic`), lists the images of one (`_images`), and reads
    one image back from the place that it wrote behind the `#` of its uri (`_read`). What of a file cannot be
    listed becomes one image whose `read` fails with the reason, so that nothing goes missing in silence.

    Attributes:
        endings: of names of files of this format, in lower case.
        magic: (offset, bytes) that tell the format of a file with another ending.
        markers: names of files that make a folder one of this format.
        needs_marker: whether only these do, since names of files are another format's too.
        file: what a file of this format is called in messages.
    """

    endings: ClassVar[tuple[str, ...]] = ()
    magic: ClassVar[tuple[tuple[int, bytes], ...]] = ()
    markers: ClassVar[frozenset[str]] = frozenset()
    needs_marker: ClassVar[bool] = False
    file: ClassVar[str]

    def __init__(self, config: ImagesConfig):
        self.config = config
        self.files = Files(config.path)
        if not self.files.is_local:
            self.reads_at_once = 16  # each waits for the network

    @classmethod
    def recognizes(cls, name: str, start: bytes) -> bool:
        """Whether a file is of this format.

        Args:
            name: of the file, in lower case.
            start: its first 512 bytes, or none to go by the name alone.
        """
        return name.endswith(cls.endings) or any(
            start[offset : offset + len(magic)] == magic for offset, magic in cls.magic
        )

    def list(self) -> Iterator[ImageRef]:
        """The images, file by file as their names sort, and in each in the order in which they lie there.

        Raises:
            ConfigError: on the first step, when there is no image, or a name in the configuration is none of
                the data's.
        """
        refs = self._listed()
        if self.config.limit is not None:
            refs = iter(sample(refs, self.config.limit, self.config.sample_seed))
        yield from refs

    def reads_forward(self, ref: ImageRef) -> bool:
        """In a gzipped file; see `byte_range`."""
        return ref.uri.rpartition("#")[2].startswith("z")

    def read(self, ref: ImageRef) -> Encoded:
        """One image, an encoded file or an array.

        Raises:
            ImageError: stage "read".
        """
        uri, _, place = ref.uri.rpartition("#")
        if place.startswith(_DAMAGED):
            raise ImageError("read", place.removeprefix(_DAMAGED))
        return self._read(uri, place)

    def read_bytes(self, uri: str, place: str) -> bytes:
        """The image at a `byte_range` of a file. Raises ImageError."""
        start, size, gzipped = parse_range(place)
        refuse_size(size, self.config.max_bytes)
        return self.files.read_exactly(uri, start, size, unpacked=gzipped)

    def data_files(self) -> Iterator[DataFile]:
        """The files that are called as this format's are; all, where none is."""
        return (
            file for file in self.files.list() if self._any_name or self.recognizes(file.name.lower(), b"")
        )

    @cached_property
    def _any_name(self) -> bool:
        names = [] if self.files.is_file() else self.files.peek(LOOKED_AT)
        return not any(self.recognizes(name.lower(), b"") for name in names)

    def first_file(self) -> DataFile:
        """Raises ConfigError where there is none."""
        if file := next(self.data_files(), None):
            return file
        raise ConfigError(
            f"images.path: no {self.file} under {self.files.given!r} (looked for {' '.join(self.endings)}); "
            f"give one, a folder of them, or a glob{did_you_mean_path(self.config.path)}"
        )

    def first_readable(self, look: Callable[[DataFile], _T]) -> _T:
        """What `look` finds in the first file that it can read; where it cannot, it raises a built-in error.

        Raises:
            ConfigError: no file can be read; the message has what is wrong with the first.
        """
        problem = None
        for file in chain([self.first_file()], islice(self.data_files(), 1, LOOKED_AT)):
            try:
                return look(file)
            except (ValueError, NotImplementedError, OSError, EOFError, zlib.error) as error:
                problem = problem or f"{file.name!r} is no {self.file}: {first_line(error)}"
        raise ConfigError(f"images.path: {problem}")

    @abstractmethod
    def _images(self, file: DataFile) -> Iterator[ImageRef]:
        """The images of one file. OSError, EOFError and zlib.error may pass."""

    @abstractmethod
    def _read(self, uri: str, place: str) -> Encoded:
        """The image at a place of the file `uri`. Raises ImageError."""

    def _listed(self) -> Iterator[ImageRef]:
        self.first_file()
        refs = chain.from_iterable(self._survived(file) for file in self.data_files())
        damaged: list[ImageRef] = []
        for ref in refs:
            if not ref.uri.rpartition("#")[2].startswith(_DAMAGED):
                yield from damaged
                yield ref
                yield from refs
                return
            damaged.append(ref)
        if damaged:
            name, reason = damaged[0].image_id.rpartition("#")[0], damaged[0].uri.rpartition(_DAMAGED)[2]
            raise ConfigError(f"images.path: {name!r} is no {self.file}: {reason}")
        raise ConfigError(f"images.path: there is no image in the files under {self.files.given!r}")

    def _survived(self, file: DataFile) -> Iterator[ImageRef]:
        count = 0
        try:
            for ref in self._images(file):
                count += 1
                yield ref
        except (OSError, EOFError, zlib.error) as error:
            yield damage(file, f"{type(error).__name__} after {count} images")


def damage(file: DataFile, reason: str) -> ImageRef:
    """What stands in a listing for the part of a file that cannot be read; the reason names no path."""
    return ImageRef(f"{file.name}#damaged", f"{file.uri}#{_DAMAGED}{reason}", None)


def byte_range(start: int, size: int, gzipped: bool = False) -> str:
    """The place of an image by its bytes: "512+1234", or "z512+1234" of what a gzipped file unpacks to."""
    return f"{'z' if gzipped else ''}{start}+{size}"


def parse_range(place: str) -> tuple[int, int, bool]:
    """Start, size and whether the file is gzipped, of what `byte_range` wrote."""
    start, _, size = place.removeprefix("z").partition("+")
    return int(start), int(size), place.startswith("z")


def first_line(error: BaseException) -> str:
    """Of an error's text; its type where it has none."""
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def is_hidden(name: str) -> bool:
    """Whether the path of an archive's member is hidden, or is what macOS adds to archives."""
    return any(
        (part[:1] == "." and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/")
    )


def unique(refs: Iterable[ImageRef]) -> Iterator[ImageRef]:
    """The images with `#2`, `#3` added to an image_id that came before."""
    seen: set[str] = set()
    for ref in refs:
        name, count = ref.image_id, 1
        while name in seen:
            count += 1
            name = f"{ref.image_id}#{count}"
        seen.add(name)
        yield ref if count == 1 else replace(ref, image_id=name)


def choose(
    key: str, wanted: str | None, names: Collection[str], guesses: Sequence[str], what: str
) -> str | None:
    """The column, feature or array that the configuration names, else the first of `guesses` that there is.

    Args:
        key: of the configuration.
        wanted: its value; None to guess.
        names: those that there are.
        guesses: names that are likely, the likeliest first.
        what: a name is of, for the message: "column", "feature".

    Raises:
        ConfigError: there is no such name; the message lists those that there are.
    """
    if wanted is None:
        return next((name for name in guesses if name in names), None)
    if wanted in names:
        return wanted
    listed = ", ".join(map(repr, sorted(names)[:30])) or "none"
    raise ConfigError(f"{key}: there is no {what} {wanted!r} in the data; there is {listed}")


def choose_label(labels: str, names: Collection[str], what: str) -> str | None:
    """The column or feature of labels that `images.labels` asks for; None for no labels.

    Raises:
        ConfigError: there is no such name, or folders are asked for.
    """
    if labels == "none":
        return None
    if labels == "folder":
        raise ConfigError(
            f"images.labels: there are no folders here; give auto, none or the name of a {what}"
        )
    return choose("images.labels", None if labels == "auto" else labels, names, LABEL_NAMES, what)


def choose_metadata(
    config: ImagesConfig, names: Collection[str], what: str, automatic: Sequence[str] = ()
) -> tuple[str, ...]:
    """The columns or features of metadata that `images.metadata` asks for.

    Args:
        config: the `images` section.
        names: those that there are.
        what: a name is of, for the message: "column", "feature".
        automatic: those that auto stands for.

    Raises:
        ConfigError: there is no such name.
    """
    if config.metadata == "none":
        return ()
    if config.metadata == "auto":
        return tuple(automatic)
    for name in config.metadata:
        choose("images.metadata", name, names, (), what)
    return config.metadata


def metadata_of(values: Mapping[str, object], names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """(name, value) of each name that has one; longer text is cut, and lists are left out."""
    found = []
    for name in names:
        value = values.get(name)
        text = None if isinstance(value, list | dict) else label_text(value)
        if text is not None:
            found.append((printable(name), printable(text[:METADATA_CHARACTERS])))
    return tuple(found)


def check_no_columns(config: ImagesConfig, what: str) -> None:
    """Raise ConfigError where the configuration names a column, but the format has none."""
    for key, value in (("images.image", config.image), ("images.labels", config.labels)):
        if value not in (None, "auto", "folder", "none"):
            raise ConfigError(f"{key}: {value!r}: {what} has no columns; leave it out")
    refuse_metadata(config, f"{what} has")


def label_text(value: object) -> str | None:
    """A label as text: 3, 3.0, True, b"cat" and one-hot (0, 0, 1) as "3", "3", "1", "cat" and "2"."""
    match value:
        case np.ndarray() | list() | tuple():
            values = np.asarray(value)
            if values.size == 1:
                return label_text(values.reshape(-1)[0].item())
            return str(int(values.argmax())) if values.ndim == 1 and values.dtype.kind in "bif" else None
        case bytes():
            return value.decode("utf-8", "backslashreplace").strip() or None
        case bool() | np.bool_() | int() | np.integer():
            return str(int(value))
        case float() | np.floating():
            return None if np.isnan(value) else str(int(value)) if float(value).is_integer() else str(value)
        case str():
            return value.strip() or None
    return None


def folder_label(name: str) -> str | None:
    """The name of the folder that a path lies in."""
    return name.replace("\\", "/").rpartition("/")[0].rpartition("/")[2] or None
