"""Where images come from: list them, read their bytes, decode them, and make a model's input of them."""

from augnet.sources.base import Encoded, ImageRef, Source
from augnet.sources.decode import Decoded, decode
from augnet.sources.folder import FolderSource
from augnet.sources.formats import open_source
from augnet.sources.preprocess import Prepared, Preprocess

__all__ = [
    "Decoded",
    "Encoded",
    "FolderSource",
    "ImageRef",
    "Prepared",
    "Preprocess",
    "Source",
    "decode",
    "open_source",
]
