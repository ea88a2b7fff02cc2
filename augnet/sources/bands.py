"""Image files of any number of channels, as arrays: NPY and multiband TIFF."""

from __future__ import annotations

import importlib
import io
import logging
import math
import struct
import zlib
from types import ModuleType
from typing import Any

import numpy as np

from augnet.errors import ImageError

NPY_MAGIC = b"\x93NUMPY"
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_DEFLATE, _LZMA = (8, 32946), 34925
"""Numbers of a TIFF's compression."""

_MOST_TIMES_PACKED = 2000
"""Deflate packs at most 1032 to 1, LZW about 1400."""

_READ_ERRORS = (
    # What tifffile and its codecs are known to raise on damaged bytes.
    OSError,
    ValueError,  # with it, tifffile's own
    struct.error,
    zlib.error,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    EOFError,
)


def npy_header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, Fortran order, type of the values, and where they begin, of an NPY file.

    Args:
        start: of the file; the whole header at least.

    Raises:
        ValueError: it is not a readable header, or the values are Python objects.
    """
    stream = io.BytesIO(start)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never unpickled")
    return shape, fortran, dtype, stream.tell()


def load_npy(data: bytes) -> np.ndarray:
    """The array of an NPY file; a view of its bytes, so that a false header cannot ask for memory.

    Raises:
        ImageError: stage "decode".
    """
    try:
        shape, fortran, dtype, start = npy_header(data)
        if len(data) - start < math.prod(shape) * dtype.itemsize:
            raise ValueError(f"it ends before its {math.prod(shape)} values")
        values = np.frombuffer(data, dtype, math.prod(shape), start)
    except (ValueError, TypeError, EOFError, SyntaxError, MemoryError, RecursionError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError("decode", f"not a readable NPY array ({text})") from error
    return values.reshape(shape, order="F" if fortran else "C")


def load_tiff(data: bytes, bands: int, max_pixels: int) -> np.ndarray:
    """The bands (height, width, channel) of a TIFF file, interleaved, in planes, or one on each page.

    Args:
        data: a TIFF file.
        bands: that the model takes.
        max_pixels: height * width above which the file is refused by its header.

    Raises:
        ImageError: stage "decode".
    """
    if not data.startswith(TIFF_MAGICS):
        raise ImageError(
            "decode", "neither a TIFF nor an NPY file, the formats of images that are not grey or RGB"
        )
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            series = file.series[0]
            axes, shape = series.axes, series.shape
            if axes == "QYX" and shape[0] != bands == shape[2]:
                axes = "YXS"  # what tifffile writes of (height, width, band) where it is not told so
            sizes = dict(zip(axes, shape, strict=True))
            others = [size for axis, size in sizes.items() if axis not in "YX"]
            if not {"Y", "X"} <= set(axes) or len(sizes) < len(shape) or sum(size > 1 for size in others) > 1:
                raise ImageError("decode", f"a TIFF of shape {shape} ({axes}), not one of bands")
            if sizes["Y"] * sizes["X"] > max_pixels:
                raise ImageError(
                    "decode",
                    f"{sizes['Y']} x {sizes['X']} pixels (height x width), more than images.max_pixels "
                    f"({max_pixels})",
                )
            if math.prod(shape) * series.dtype.itemsize > _MOST_TIMES_PACKED * len(data):
                raise ImageError("decode", "a TIFF that unpacks to more than its bytes can hold")
            for page in series.pages:
                _refuse_bomb(page, data)
            array = series.asarray(maxworkers=1)
    except _READ_ERRORS as error:
        text = str(error).splitlines()[0] if str(error) else ""
        raise ImageError("decode", f"cannot be decoded ({type(error).__name__}: {text})") from error
    return np.moveaxis(array, (axes.index("Y"), axes.index("X")), (0, 1)).reshape(sizes["Y"], sizes["X"], -1)


def _refuse_bomb(page: Any, data: bytes) -> None:
    """Raise ImageError where a strip or tile unpacks to more than it holds; tifffile would unpack all of it.

    Args:
        page: a tifffile.TiffPage, or None where a file has fewer than it says.
        data: the whole file.
    """
    if page is None or page.compression not in (*_DEFLATE, _LZMA):
        return
    if page.compression == _LZMA:
        raise ImageError("decode", "a TIFF packed by LZMA; save it with deflate")
    most = math.prod(page.chunks) * page.dtype.itemsize
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if len(zlib.decompressobj().decompress(data[start : start + size], most + 1)) > most:
            raise ImageError("decode", "a TIFF whose strips or tiles unpack to more than they hold")


def _tifffile() -> ModuleType:
    try:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is in `failures`
        return importlib.import_module("tifffile")
    except ImportError:
        reason = "a TIFF of many bands needs tifffile, which is not installed; pip install 'augnet[tiff]'"
        raise ImageError("decode", reason) from None
