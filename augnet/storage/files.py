"""The output folder of an audit: files that appear whole or not at all, with their checksums."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from augnet.storage import names


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
        return json_bytes(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> UnitRecord:
        """Raises ValueError when the bytes are no record (a torn or altered file)."""
        try:
            tree = json.loads(data)
            files = tuple(FileEntry(**entry) for entry in tree.pop("files"))
            return cls(**tree, files=files)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a unit record: {error}") from None


class OutputFolder:
    """OUT, a local path or an fsspec URI. Writes are whole: a temporary file, then one rename or upload."""

    def __init__(self, root: str):
        self.root = root
        self.fs, self._base = fsspec.core.url_to_fs(root)
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def __str__(self) -> str:
        return self.root

    def path(self, name: str) -> str:
        """The file's full path in its own file system."""
        return f"{self._base}/{name}"

    def exists(self, name: str) -> bool:
        return self.fs.exists(self.path(name))

    def names(self, kind: str) -> list[str]:
        """Finished files of one subfolder, sorted, as names below OUT; temporary ones are left out."""
        try:
            found = self.fs.ls(self.path(kind), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        files = [path.rsplit("/", 1)[-1] for path in found]
        return sorted(f"{kind}/{name}" for name in files if not name.startswith(names.TEMPORARY_PREFIX))

    def open(self, name: str) -> BinaryIO:
        return self.fs.open(self.path(name), "rb")

    def read_bytes(self, name: str) -> bytes:
        return self.fs.cat_file(self.path(name))

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A private temporary file to fill; it takes its place under `name` when the block ends well."""
        target = self.path(name)
        folder = os.path.dirname(target) if self.is_local else tempfile.gettempdir()
        if self.is_local:
            os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=names.TEMPORARY_PREFIX, dir=folder)
        os.close(handle)
        try:
            yield Path(temporary)
            if self.is_local:
                os.chmod(temporary, 0o666 & ~_umask())
                os.replace(temporary, target)
            else:
                self.fs.put_file(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def write_bytes(self, name: str, data: bytes) -> None:
        with self.writing(name) as temporary:
            temporary.write_bytes(data)

    def write_json(self, name: str, tree: Any) -> None:
        self.write_bytes(name, json_bytes(tree))

    def entry(self, name: str) -> FileEntry:
        """Size and checksum of a file as it is now."""
        with self.open(name) as stream:
            return digest(name, stream)

    def intact(self, entry: FileEntry) -> bool:
        """Whether the file is there with the size and checksum that its record gives."""
        try:
            return self.fs.size(self.path(entry.name)) == entry.size and self.entry(entry.name) == entry
        except FileNotFoundError:
            return False

    def foreign_names(self) -> list[str]:
        """What lies in the folder that no audit writes."""
        return [name for name in self._entries() if not names.belongs_to_audit(name)]

    def remove_audit(self) -> None:
        """Delete what an audit wrote here, and nothing else."""
        for name in filter(names.belongs_to_audit, self._entries()):
            self.fs.rm(self.path(name), recursive=True)

    def _entries(self) -> list[str]:
        try:
            found = self.fs.ls(self._base, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)


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


def _umask() -> int:
    current = os.umask(0o077)
    os.umask(current)
    return current
