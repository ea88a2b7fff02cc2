"""Files behind `images.path`, on this machine or at any address that fsspec opens: list them, read parts."""

from __future__ import annotations

import errno
import gzip
import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import BinaryIO, cast

import fsspec

from augnet.errors import ConfigError, ImageError
from augnet.redact import without_secrets
from augnet.sources.paths import path_to_uri, printable, refuse_file, uri_to_path
from augnet.storage.addresses import StoreError, is_local, open_address, open_file, retried

_MAGIC = "*?["
_Names = list[str]  # inside Files, `list` is its method


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that may hold images.

    Attributes:
        name: below `images.path`, with forward slashes; the file's own name where `images.path` is a file.
        uri: absolute path, or address.
    """

    name: str
    uri: str


class Files:
    """A file, a folder and everything below it, or a glob. Links to folders are not followed.

    Args:
        path: `images.path`.

    Attributes:
        given: the path, without secrets, for messages.
        is_local: whether it is on this machine.

    Raises:
        ConfigError: the address is of a kind that nothing installed here can open.
    """

    def __init__(self, path: str):
        self.given = without_secrets(path)
        self._fs, self._path = open_address(path, "images.path")
        self.is_local = is_local(self._fs)
        self._path = self._path.rstrip("/") or "/"
        self._root, self._glob = self._path, None
        if any(sign in self._path for sign in _MAGIC) and not retried(self._fs.exists, self._path):
            fixed = self._path[: min(self._path.find(s) for s in _MAGIC if s in self._path)]
            self._root, self._glob = fixed.rpartition("/")[0] or "/", self._path
        self._threads = _PerThread()

    def is_file(self) -> bool:
        """Whether `images.path` is one regular file."""
        return self._glob is None and bool(retried(self._fs.isfile, self._path))

    def list(self) -> Iterator[DataFile]:
        """The files, sorted by name; without those that are hidden or in hidden folders.

        Raises:
            ConfigError: the folder cannot be listed.
        """
        try:
            if self.is_file():
                yield DataFile(printable(self._path.rpartition("/")[2]), self._uri(self._path))
                return
            if self._glob is not None:
                paths = list_files(self._fs, self._glob, is_glob=True)
            elif self.is_local:
                paths = [*_walk(self._path)]  # fsspec would follow links to folders, in circles too
            else:
                paths = list_files(self._fs, self._path)
        except OSError as error:
            reason = without_secrets(str(error)) or type(error).__name__
            raise ConfigError(f"images.path: {self.given!r} cannot be listed: {reason}") from None
        prefix = len(self._root.rstrip("/")) + 1
        for path in sorted(paths):
            name = path[prefix:]
            if not any(part.startswith(".") for part in name.split("/")):
                yield DataFile(printable(name), self._uri(path))

    def peek(self, count: int) -> _Names:
        """Names of the first files that are found below a folder, or match a glob; without listing all."""
        if self._glob is not None:
            return [file.name for file in islice(self.list(), count)]
        prefix = len(self._root.rstrip("/")) + 1
        walk = _walk if self.is_local else partial(_walk_address, self._fs)
        try:
            paths = retried(lambda: [*islice(walk(self._path), count)])
            return [path[prefix:] for path in paths]
        except (OSError, ValueError):  # a ValueError: a NUL in the path
            return []  # the source itself says what is wrong

    def open(self, uri: str) -> BinaryIO:
        """The file, for reading from its start. Raises OSError."""
        path = self._place(uri)
        if self.is_local and not os.path.isfile(path):  # opening a FIFO would wait for a writer
            raise FileNotFoundError(path)
        return open_file(self._fs, path)

    def open_unpacked(self, uri: str) -> tuple[BinaryIO, bool]:
        """The file, unpacked where it is gzipped, and whether it is. Raises OSError."""
        stream = self.open(uri)
        gzipped = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        return (cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if gzipped else stream), gzipped

    def size(self, uri: str) -> int:
        """Bytes of the file. Raises OSError."""
        return int(retried(self._fs.size, self._place(uri)))

    def read_range(self, uri: str, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`; fewer where the file ends. Raises OSError."""
        if self.is_local:
            with self.open(uri) as stream:
                stream.seek(start)
                return stream.read(size)
        data: bytes = retried(self._fs.cat_file, self._place(uri), start=start, end=start + size)
        return data

    def read_exactly(self, uri: str, start: int, size: int, unpacked: bool = False) -> bytes:
        """The `size` bytes that begin at `start` of a file.

        Args:
            uri: of the file.
            start, size: in bytes.
            unpacked: the file is gzipped, and `start` counts the bytes that it unpacks to. Cheap where one
                thread reads images in the order in which they lie in the file.

        Raises:
            ImageError: stage "read": they cannot be read, or are fewer.
        """
        try:
            if unpacked:
                return self.read_forward(uri, lambda: self.open_unpacked(uri)[0], start, size)
            return _whole(self.read_range(uri, start, size), size)
        except OSError as error:
            raise ImageError("read", read_problem(error)) from error

    def read_forward(self, key: str, opened: Callable[[], BinaryIO], start: int, size: int) -> bytes:
        """The same, of a stream in which going back means unpacking it anew.

        Args:
            key: names the stream; each thread keeps the one that it read last, where it left it.
            opened: makes it.
            start, size: in bytes.

        Raises:
            ImageError: stage "read".
        """
        try:
            if self._threads.key != key:
                self._threads.key = ""
                self._threads.stream = opened()
                self._threads.key = key
            self._threads.stream.seek(start)
            return _whole(self._threads.stream.read(size), size)
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise ImageError("read", read_problem(error)) from error

    def _place(self, uri: str) -> str:
        return uri_to_path(uri) if self.is_local else uri

    def _uri(self, path: str) -> str:
        return path_to_uri(path) if self.is_local else str(self._fs.unstrip_protocol(path))


class _PerThread(threading.local):
    """The packed stream that a thread reads, and how far it has come; never sent to another process."""

    key: str = ""
    stream: BinaryIO

    def __reduce__(self) -> tuple[type[_PerThread], tuple[()]]:
        return _PerThread, ()


def _walk(root: str) -> Iterator[str]:
    """Paths of the files below a folder, without hidden ones; neither depth nor links in circles matter."""
    stack = [root]
    while stack:
        folder = stack.pop()
        with os.scandir(folder) as entries:
            shown = sorted(
                (entry for entry in entries if entry.name[:1] != "."), key=lambda entry: entry.name
            )
        yield from (entry.path for entry in shown if not entry.is_dir())
        stack += [entry.path for entry in reversed(shown) if entry.is_dir(follow_symlinks=False)]


def list_files(fs: fsspec.AbstractFileSystem, path: str, is_glob: bool = False) -> _Names:
    """Paths of all files below a folder, or of those that a glob matches. Raises OSError."""
    if not is_glob:
        return list(retried(fs.find, path))
    found = retried(fs.glob, path, detail=True)
    return [path for path, info in found.items() if info["type"] == "file"]


def _walk_address(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[str]:
    for folder, _, names in fs.walk(root, on_error="raise"):
        yield from (f"{folder}/{name}" for name in sorted(names) if name[:1] != ".")


def read_address(fs: fsspec.AbstractFileSystem, uri: str, max_bytes: int) -> bytes:
    """The bytes of a whole file in object storage, in one request.

    Raises:
        ImageError: stage "read": it is gone, empty, larger than `max_bytes`, or may not be read.
    """
    try:
        data = _first_bytes(fs, uri, max_bytes + 1)
        size = len(data) if len(data) <= max_bytes else max(len(data), retried(fs.size, uri) or 0)
    except FileNotFoundError:
        raise ImageError("read", "the file cannot be read: No such file or directory") from None
    except OSError as error:
        raise ImageError("read", read_problem(error)) from error
    refuse_file(size, max_bytes)
    return data


def _first_bytes(fs: fsspec.AbstractFileSystem, uri: str, count: int) -> bytes:
    """So many bytes from the start of a file, or all where it has fewer. Raises OSError."""
    try:
        data: bytes = retried(fs.cat_file, uri, start=0, end=count)
    except OSError as error:
        # Most stores refuse a range of an empty file.
        if (error.errno == errno.EINVAL or "416" in str(error)) and retried(fs.size, uri) == 0:
            return b""
        raise
    return data


def _whole(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ImageError("read", f"the file ends after {len(data)} of {size} bytes")
    return data


def refuse_size(size: int, limit: int) -> None:
    """Raise ImageError where an image in a file is empty, or larger than `images.max_bytes`."""
    if size == 0:
        raise ImageError("read", "the image has no bytes")
    if size > limit:
        raise ImageError("read", f"the image has {size} bytes, more than images.max_bytes ({limit})")


def read_problem(error: BaseException) -> str:
    """Why a file cannot be read, without its path."""
    if isinstance(error, StoreError):
        return "the file cannot be read: its store does not answer as it should"
    errno = getattr(error, "errno", None)
    reason = os.strerror(errno) if errno else type(error).__name__
    return f"the file cannot be read: {reason}"
