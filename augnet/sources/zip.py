"""ZIP archives of images. Nothing is ever extracted: members are read by their place in the archive."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator

from augnet.errors import ImageError
from augnet.sources.base import ImageRef
from augnet.sources.container import (
    ContainerSource,
    check_no_columns,
    damage,
    folder_label,
    is_hidden,
    unique,
)
from augnet.sources.files import DataFile, Files, read_problem, refuse_size
from augnet.sources.folder import SUFFIXES
from augnet.sources.paths import printable

_HEADER = struct.Struct("<4s5H3L2H")
"""Of a member: signature, fields that the directory repeats, and the lengths of name and extra field."""

_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class ZipSource(ContainerSource):
    """The images of ZIP archives, told by their suffix as in a folder.

    `image_id` is `file#member`; `label` the folder that the member lies in. A place holds all that a worker
    needs to read a member (header, packed bytes, bytes, method, checksum), so that it need not read the
    directory of what may be a million members, and reads of a remote archive what it uses.

    Args:
        config: the `images` section.
    """

    endings = (".zip",)
    magic = ((0, b"PK\x03\x04"),)
    file = "ZIP archive"

    def _images(self, file: DataFile) -> Iterator[ImageRef]:
        check_no_columns(self.config, "a ZIP archive")
        return unique(self._members(file))

    def _members(self, file: DataFile) -> Iterator[ImageRef]:
        with self.files.open(file.uri) as stream:
            try:
                members = zipfile.ZipFile(stream).infolist()
            except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
                yield damage(file, f"the archive is damaged ({error})")
                return
        for member in members:
            name = printable(member.filename)
            if name.lower().endswith(SUFFIXES) and not is_hidden(name):
                label = None if self.config.labels == "none" else folder_label(name)
                yield ImageRef(f"{file.name}#{name}", f"{file.uri}#{_place(file, member)}", label)

    def _read(self, uri: str, place: str) -> bytes:
        header, packed, size, method, checksum = map(int, place.split("+"))
        refuse_size(size, self.config.max_bytes)
        refuse_size(packed, self.config.max_bytes)
        try:
            data = self.files.read_range(uri, member_start(self.files, uri, header), packed)
            if method == zipfile.ZIP_DEFLATED:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except ValueError as error:
            raise ImageError("read", str(error)) from error
        except (OSError, zlib.error) as error:
            raise ImageError("read", read_problem(error)) from error
        if len(data) != size or zlib.crc32(data) != checksum:
            raise ImageError(
                "read", "the member is damaged: its size or checksum is not what the archive says"
            )
        return data


def member_start(files: Files, uri: str, header: int) -> int:
    """The byte of a ZIP archive at which the packed bytes of the member with a header at byte `header` begin.

    Raises:
        ValueError: there is no member.
        OSError: the file cannot be read.
    """
    data = files.read_range(uri, header, _HEADER.size)
    if len(data) < _HEADER.size or not data.startswith(b"PK\x03\x04"):
        raise ValueError("the archive has no member where its directory says")
    *_, name, extra = _HEADER.unpack(data)
    return header + _HEADER.size + int(name) + int(extra)


def _place(file: DataFile, member: zipfile.ZipInfo) -> str:
    problem = None
    if stat.S_ISLNK(member.external_attr >> 16):
        problem = "a link, which is not followed"
    elif member.flag_bits & _ENCRYPTED:
        problem = "encrypted; unpack the archive and give the folder"
    elif member.compress_type not in _METHODS:
        problem = "packed by another method than deflate; pack the archive anew"
    if problem:
        return damage(file, problem).uri.removeprefix(f"{file.uri}#")
    numbers = (member.header_offset, member.compress_size, member.file_size, member.compress_type, member.CRC)
    return "+".join(map(str, numbers))
