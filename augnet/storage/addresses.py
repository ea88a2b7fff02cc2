"""Files at any address that fsspec opens (s3://, gs://), and patience with the network that they come by."""

from __future__ import annotations

import errno
import io
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, ParamSpec, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from augnet.errors import ConfigError
from augnet.redact import without_secrets

log = logging.getLogger(__name__)

PAUSES_SECONDS = (0.25, 1.0, 4.0, 8.0)
"""Before each further try of a call that failed; up to half of it is left out at random, so that workers that
failed together do not come back together. A store's library has tried for some seconds itself by then."""

READ_BYTES = 2**20
"""What is read of a file in a store at once, at least: s3fs would read 50 MiB ahead, for any column."""

_PASSING = {errno.EBUSY, errno.EIO, errno.EREMOTEIO, errno.EPIPE, errno.ETIMEDOUT, errno.ENETUNREACH}
"""What s3fs makes of "503 slow down" and its kin, and what a broken network says."""

_PASSING_TYPES = {
    "ConnectionError",  # botocore: no connection
    "HTTPClientError",  # botocore: a connection that broke, no answer in time
    "ResponseParserError",  # botocore: half an answer
    "ClientPayloadError",  # aiohttp: an answer that broke off
    "IncompleteRead",
    "HttpError",  # gcsfs
    "TimeoutError",
    "TransportError",  # google.auth
}
"""Names of errors that the libraries of stores raise; they are not imported only to be caught."""

_LOST = "NoSuchUpload"
"""What S3 says when the end of an upload in parts is asked for again, as its first answer was lost."""

_LIBRARIES = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "google", "s3fs")

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class StoreError(OSError):
    """What a store answered, or that it did not, after every retry."""


def open_address(address: str, key: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a path or an address, and the path in it.

    Its calls belong into `retried`. No listing is cached: others write there at the same time.

    Args:
        address: a local path, or an address.
        key: of the configuration that holds it, for the message.

    Raises:
        ConfigError: the address is of a kind that nothing installed here can open.
    """
    try:
        fs, path = fsspec.core.url_to_fs(address, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{key}: {without_secrets(address)!r} cannot be opened ({error}); s3:// needs pip install "
            "'augnet[s3]', gs:// needs 'augnet[gcs]'"
        ) from None
    if "s3" in fs.protocol:
        # botocore retries each request, part of an upload or range; s3fs would retry all of that once more.
        fs.retries = 1
        retried(lambda: fs.s3).meta.events.register("needs-retry.s3", _note_attempt, unique_id=__name__)
    return fs, path


def is_local(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether it is the file system of this machine."""
    return isinstance(fs, LocalFileSystem)


def open_file(fs: fsspec.AbstractFileSystem, path: str) -> BinaryIO:
    """A file opened for reading, in a store by ranges of READ_BYTES.

    Raises:
        OSError: there is none, or it cannot be read.
    """
    if is_local(fs) or "http" in fs.protocol:  # a web server may know no ranges
        stream: BinaryIO = retried(fs.open, path, "rb")
        return stream
    return io.BufferedReader(_Ranges(fs, path), READ_BYTES)


def retried(
    call: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
) -> _Result:
    """What a call of a file system gives, tried again after PAUSES_SECONDS where the store may recover.

    Raises:
        OSError: the call failed: a StoreError where every try did, or where only the store's library knows
            the error.
    """
    for pause in (*PAUSES_SECONDS, None):
        try:
            return call(*args, **kwargs)
        except Exception as error:
            if not _may_pass(error):
                if type(error).__module__.startswith(_LIBRARIES):
                    raise StoreError(_said(error)) from error
                raise
            if pause is None:
                tries = len(PAUSES_SECONDS) + 1
                raise StoreError(f"{_said(error)} (tried {tries} times)") from error
            log.warning("storage: %s; trying again", without_secrets(_said(error)))
            retries.add()
            time.sleep(pause * random.uniform(0.5, 1))
    raise AssertionError("the last try has no pause")


class Tally:
    """A number that any thread adds to and that is taken away by whoever reports it."""

    def __init__(self) -> None:
        self._count, self._lock = 0, threading.Lock()

    def add(self) -> None:
        with self._lock:
            self._count += 1

    def take(self) -> int:
        """What was added since it was last taken."""
        with self._lock:
            count, self._count = self._count, 0
        return count


retries = Tally()
"""Retries in this process, by `retried` and by botocore; what gcsfs retries by itself is not seen."""


def _note_attempt(attempts: int, **_: Any) -> None:
    """botocore asks after each attempt whether another is due; every one but the first was a retry."""
    if attempts > 1:
        retries.add()


def _may_pass(error: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    names = {kind.__name__ for kind in type(error).__mro__}
    answer = getattr(error.__cause__, "response", None) or {}  # of botocore, behind what s3fs makes of it
    lost = answer.get("Error", {}).get("Code") == _LOST
    return lost or not names.isdisjoint(_PASSING_TYPES) or getattr(error, "errno", None) in _PASSING


def _said(error: Exception) -> str:
    """The first line of what went wrong; its type where it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    return (str(text).splitlines() or [""])[0] or type(error).__name__


class _Ranges(io.RawIOBase):
    """A file in a store; each read is a request of its own, and is retried as one."""

    def __init__(self, fs: fsspec.AbstractFileSystem, path: str):
        self._fs, self._path, self._position = fs, path, 0
        self._size: int = retried(fs.size, path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._next(self._size)

    def _next(self, count: int) -> bytes:
        """At most so many bytes, as one request."""
        end = min(self._position + count, self._size)
        if end <= self._position:
            return b""
        data: bytes = retried(self._fs.cat_file, self._path, start=self._position, end=end)
        self._position += len(data)
        return data
