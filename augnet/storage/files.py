"""The output folder of an audit: files that appear whole or not at all, with their checksums."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from augnet.errors import AuditError, ConfigError
from augnet.redact import without_secrets
from augnet.storage import addresses, names
from augnet.storage.addresses import retried


@dataclass(frozen=True)
class FileEntry:
    """One finished file: its name below the output folder, size in bytes, and sha256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class UnitRecord:
    """What became of one work unit. Written after its files; holds no times, so that it never varies."""

    unit_id: int
    fingerprint: str
    planned: int
    audited: int
    failed: int
    files: tuple[FileEntry, ...]

    def to_json(self) -> bytes:
        return sealed(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> UnitRecord:
        """Raises ValueError when the bytes are no record (a torn or altered file)."""
        try:
            tree = unsealed(data)
            return cls(**tree | {"files": tuple(FileEntry(**entry) for entry in tree["files"])})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a unit record: {error}") from None


class OutputFolder:
    """OUT, a local path or an fsspec URI. Writes are whole: a temporary file, then one rename or upload.

    Raises:
        ConfigError: the address is of a kind that nothing installed here can open.
    """

    def __init__(self, root: str):
        self.root = root
        self.fs, self._base = addresses.open_address(root, "output")
        self.is_local = addresses.is_local(self.fs)

    def __str__(self) -> str:
        return without_secrets(self.root)

    def path(self, name: str) -> str:
        """The file's full path in its own file system.

        Raises:
            AuditError: a name that leads out of the folder: tables and records may come from strangers.
        """
        if ".." in name.split("/"):
            raise AuditError(f"{self}: refers to {name!r}, outside of its folder, which is not followed")
        return f"{self._base}/{name}"

    def refuse_unwritable(self) -> None:
        """Raise ConfigError where a local folder is none, or may not be written to or made."""
        if not self.is_local:
            return
        place = self._base.rstrip("/") or "/"
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            raise ConfigError(f"output: {place!r} is no folder; give a new or empty folder")
        if not os.access(place, os.W_OK | os.X_OK):
            raise ConfigError(f"output: {place!r} may not be written to; give a folder that you may write to")

    def entries(self) -> list[str]:
        """What lies directly in the folder, by name, sorted; nothing where there is no folder yet."""
        try:
            found = retried(self.fs.ls, self._base, detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    def exists(self, name: str) -> bool:
        return retried(self.fs.exists, self.path(name))

    def names(self, kind: str) -> list[str]:
        """Finished files that an audit wrote into one of its subfolders, sorted, as names below OUT."""
        try:
            found = retried(self.fs.ls, self.path(kind), detail=False)
        except FileNotFoundError:
            return []
        return sorted(filter(names.is_finished, (f"{kind}/{path.rsplit('/', 1)[-1]}" for path in found)))

    def engine_names(self) -> list[str]:
        """`engine-cpu.json` and the like, sorted."""
        return sorted(path.rsplit("/", 1)[-1] for path in retried(self.fs.glob, self.path(names.engine("*"))))

    def modified(self, name: str) -> float:
        """When the file was written, in seconds since the epoch."""
        return retried(self.fs.modified, self.path(name)).timestamp()

    def open(self, name: str) -> BinaryIO:
        return addresses.open_file(self.fs, self.path(name))

    def read_bytes(self, name: str) -> bytes:
        return retried(self.fs.cat_file, self.path(name))

    def read_json(self, name: str) -> Any:
        """Raises AuditError when the file holds no JSON."""
        try:
            return json.loads(self.read_bytes(name))
        except ValueError:
            raise AuditError(f"{self}: {name} is damaged; --fresh makes the audit anew") from None

    def write_sealed(self, name: str, tree: dict[str, Any]) -> None:
        """JSON with its own checksum inside, so that any change to the file is found; durable on return."""
        with self.writing(name) as temporary, temporary.open("wb") as stream:
            stream.write(sealed(tree))
            stream.flush()
            os.fsync(stream.fileno())

    def read_sealed(self, name: str) -> dict[str, Any]:
        """What `write_sealed` wrote; raises AuditError when the file is not as it was written."""
        try:
            return unsealed(self.read_bytes(name))
        except ValueError:
            raise AuditError(
                f"{self}: {name} is damaged or was edited; --fresh makes the audit anew"
            ) from None

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A private temporary file to fill; it takes its place under `name` when the block ends well.

        Raises:
            AuditError: the file cannot be written: a full disk, no permission.
        """
        target = self.path(name)
        folder = os.path.dirname(target) if self.is_local else tempfile.gettempdir()
        try:
            if self.is_local:
                os.makedirs(folder, exist_ok=True)
            with private_file(folder) as temporary:
                yield temporary
                if self.is_local:
                    _follow_umask(temporary)
                    os.replace(temporary, target)
                else:
                    retried(self.fs.put_file, str(temporary), target)
        except OSError as error:
            reason = error.strerror or error
            raise AuditError(
                f"output: cannot write {name} in {self} ({reason}); mend that, and the same command goes on "
                "from the finished units"
            ) from error

    def write_bytes(self, name: str, data: bytes) -> None:
        with self.writing(name) as temporary:
            temporary.write_bytes(data)

    def write_json(self, name: str, tree: Any) -> None:
        self.write_bytes(name, json_bytes(tree))

    def write_json_once(self, name: str, tree: Any) -> None:
        """Write a file that is not there yet; of several writers, one wins and the others do nothing."""
        if not self.is_local:
            with suppress(FileExistsError):
                retried(self.fs.pipe_file, self.path(name), json_bytes(tree), mode="create")
            return
        os.makedirs(self._base, exist_ok=True)
        with private_file(self._base) as temporary:
            temporary.write_bytes(json_bytes(tree))
            _follow_umask(temporary)
            with suppress(FileExistsError):
                os.link(temporary, self.path(name))

    def entry(self, name: str) -> FileEntry:
        """Size and checksum of a file as it is now."""
        with self.open(name) as stream:
            return digest(name, stream)

    def intact(self, entry: FileEntry) -> bool:
        """Whether the file is there with the size and checksum that its record gives."""
        try:
            size = retried(self.fs.size, self.path(entry.name))
            return size == entry.size and self.entry(entry.name) == entry
        except FileNotFoundError:
            return False

    def sweep(self) -> None:
        """Delete the temporary files that dead processes left; those of running ones stay."""
        for name in self._names() if self.is_local else ():
            if name.rpartition("/")[2].startswith(names.TEMPORARY_PREFIX):
                with suppress(OSError), open(self.path(name), "r+b") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by whoever writes it
                    os.unlink(stream.name)

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.exists(name):
            retried(self.fs.rm_file, self.path(name))

    def foreign_names(self) -> Iterator[str]:
        """The files in the folder that no audit writes."""
        return (name for name in self._names() if not names.belongs_to_audit(name))

    def audit_names(self) -> Iterator[str]:
        """The files in the folder that an audit may have written, finished or not."""
        return filter(names.belongs_to_audit, self._names())

    def remove_audit(self) -> None:
        """Delete what an audit wrote here, and nothing else."""
        for name in list(self.audit_names()):
            retried(self.fs.rm_file, self.path(name))
        for kind in names.FOLDERS if self.is_local else ():
            with suppress(OSError):  # it holds something else, or is not there
                os.rmdir(self.path(kind))

    def _names(self) -> Iterator[str]:
        """Every file below the folder."""
        prefix = len(self._base.rstrip("/")) + 1
        yield from (path[prefix:] for path in sorted(retried(self.fs.find, self._base)))


_private: set[str] = set()
_creating = threading.Lock()


@contextmanager
def private_file(folder: str) -> Iterator[Path]:
    """A temporary file that only this user can read, deleted at the end of the block unless it was renamed.

    It is locked for as long as its process lives: a `.writing-` file without a lock is nobody's.
    """
    with _creating:
        handle, name = _locked_file(folder)
        _private.add(name)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        _private.discard(name)
        os.close(handle)


def discard_private_files() -> None:
    """Delete this process's temporary files and let no thread make another: its last act when stopped."""
    _creating.acquire()
    for name in list(_private):
        with suppress(OSError):
            os.unlink(name)


def _locked_file(folder: str) -> tuple[int, str]:
    while True:
        handle, name = tempfile.mkstemp(prefix=names.TEMPORARY_PREFIX, dir=folder)
        with suppress(OSError):  # a file system without locks: then nothing is ever swept there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.path.exists(name):
            return handle, name
        os.close(handle)  # swept between the two


def digest(name: str, stream: BinaryIO) -> FileEntry:
    """Size and checksum of all that the stream gives."""
    checksum, size = hashlib.sha256(), 0
    while block := stream.read(1 << 20):
        checksum.update(block)
        size += len(block)
    return FileEntry(name, size, checksum.hexdigest())


def json_bytes(tree: Any) -> bytes:
    """Stable, readable JSON: the same tree gives the same bytes. NaN is an error, as JSON has none."""
    return (json.dumps(tree, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def json_digest(tree: Any) -> str:
    """sha256 of a tree, by its `json_bytes`."""
    return hashlib.sha256(json_bytes(tree)).hexdigest()


def sealed(tree: dict[str, Any]) -> bytes:
    """JSON with its own checksum inside, so that any change to it is found."""
    return json_bytes({**tree, "sha256": json_digest(tree)})


def unsealed(data: bytes) -> dict[str, Any]:
    """The tree that `sealed` made the bytes of; raises ValueError when any byte differs."""
    try:
        tree = json.loads(data)
        del tree["sha256"]
        if sealed(tree) == data:
            return tree
    except (TypeError, KeyError, RecursionError):
        pass
    raise ValueError("not as it was written")


def _follow_umask(path: Path) -> None:
    """Give a private file the mode that a file opened by this user has."""
    umask = os.umask(0o077)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)
