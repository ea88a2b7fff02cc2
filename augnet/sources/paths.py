"""Files of this machine: their paths as valid Unicode, whatever they are called, and their bytes."""

from __future__ import annotations

import os
import stat
from urllib.parse import quote_from_bytes, unquote_to_bytes

from augnet.errors import ImageError

_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO must not wait for a writer


def printable(name: str) -> str:
    """The name as valid Unicode: bytes that are not UTF-8 become `\\xff`, half a surrogate pair `\\ud800`."""
    if name.isascii():
        return name
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return name.encode("utf-8", "backslashreplace").decode()


def path_to_uri(path: str) -> str:
    if printable(path) == path:
        return path
    try:
        return "file://" + quote_from_bytes(os.fsencode(path))
    except UnicodeEncodeError:  # no file can be called so
        return printable(path)


def uri_to_path(uri: str) -> str:
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))) if uri.startswith("file://") else uri


def read_regular(path: str, max_bytes: int) -> bytes:
    """The bytes of a regular file of this machine.

    Raises:
        OSError: it is gone or may not be read.
        ImageError: it is empty, larger than `max_bytes`, or not a regular file.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NO_WAIT)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("read", "not a regular file")
        refuse_file(status.st_size, max_bytes)
        return file.read(status.st_size)


def refuse_file(size: int, max_bytes: int) -> None:
    """Raise ImageError where a file is empty, or larger than `images.max_bytes`."""
    if size == 0:
        raise ImageError("read", "the file is empty")
    if size > max_bytes:
        raise ImageError("read", f"the file has {size} bytes, more than images.max_bytes ({max_bytes})")
