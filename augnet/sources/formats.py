"""The dataset formats, and how `images.format: auto` tells which one a path holds."""

from __future__ import annotations

from augnet.config import ImagesConfig
from augnet.errors import ConfigError
from augnet.redact import without_secrets
from augnet.sources.arrays import ArraysSource
from augnet.sources.base import Source
from augnet.sources.container import LOOKED_AT, ContainerSource
from augnet.sources.files import DataFile, Files
from augnet.sources.folder import SUFFIXES, FolderSource
from augnet.sources.hf import HuggingFaceSource
from augnet.sources.manifest import ManifestSource
from augnet.sources.parquet import ParquetSource
from augnet.sources.remote import RemoteSource
from augnet.sources.tfds import TfdsSource
from augnet.sources.tfrecord import TFRecordSource
from augnet.sources.webdataset import WebDatasetSource
from augnet.sources.zip import ZipSource

FORMATS: dict[str, type[ContainerSource]] = {
    "manifest": ManifestSource,
    "webdataset": WebDatasetSource,
    "zip": ZipSource,
    "tfrecord": TFRecordSource,
    "tfds": TfdsSource,
    "parquet": ParquetSource,
    "hf": HuggingFaceSource,
    "arrays": ArraysSource,
}
"""Formats other than plain image files, by their name in `images.format`."""

IMAGES = tuple(suffix for suffix in SUFFIXES if suffix != ".npy")
"""Endings that are of an image for sure; an NPY file may hold a whole dataset."""


def open_source(config: ImagesConfig) -> Source:
    """The dataset that `images` of the configuration describes.

    Raises:
        ConfigError: when nothing readable is there, or it cannot be told what it is.
    """
    is_remote = "://" in config.path and not config.path.startswith("file://")
    name = _detect(config, is_remote) if config.format == "auto" else config.format
    if name == "folder":
        return RemoteSource(config) if is_remote else FolderSource(config)
    source = FORMATS[name](config)
    if config.format == "auto" and isinstance(source, ParquetSource) and not source.holds_images():
        return ManifestSource(config)
    return source


def _detect(config: ImagesConfig, is_remote: bool) -> str:
    """The name of the format, told by markers, by endings of names, else by the first bytes of a file.

    A folder that holds an image is a folder of images, whatever else is in it. What nothing fits is left to
    the folder's own error.
    """
    if config.path.lower().endswith(IMAGES):
        return "folder"
    files = Files(config.path)
    if files.is_file():
        return _of_file(files, next(files.list())) or "folder"
    names = files.peek(LOOKED_AT)
    bases = {name.rpartition("/")[2] for name in names}
    for format_name, source in FORMATS.items():
        if source.markers & set(names):
            return format_name
    if any(name.lower().endswith(IMAGES) for name in names):
        return "folder"
    for format_name, source in FORMATS.items():
        if source.needs_marker and source.markers & bases:
            return format_name
    found = _called_after(names)
    if len(found) > 1:
        raise ConfigError(
            f"images.format: {without_secrets(config.path)!r} holds files of several formats "
            f"({', '.join(found)}); say which with images.format, or give a glob"
        )
    if found or any(name.lower().endswith(SUFFIXES) for name in names):
        return found[0] if found else "folder"
    file = next(files.list(), None) if names else None
    return (_of_file(files, file) if file else None) or "folder"


def _called_after(names: list[str]) -> list[str]:
    """The formats that any of the files is called after."""
    return [
        format_name
        for format_name, source in FORMATS.items()
        if not source.needs_marker and any(source.recognizes(name.lower(), b"") for name in names)
    ]


def _of_file(files: Files, file: DataFile) -> str | None:
    """The format that a file is called after, else that its first bytes are of."""
    if found := _called_after([file.name]):
        return found[0]
    try:
        start = files.read_range(file.uri, 0, 512)
    except OSError:
        return None
    recognized = (name for name, source in FORMATS.items() if source.recognizes(file.name.lower(), start))
    return next(recognized, None)
