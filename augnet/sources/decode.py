"""Encoded bytes to pixels in 0..255, and the one place where a hostile or broken image becomes a failure.

Colour conversion is Pillow's, and so equals `keras.utils.load_img`: grey is ITU-R 601 luma; an alpha channel
that the model has no place for is dropped, not blended; a transparent palette entry keeps its colour. Unlike
`load_img`, a picture is turned upright as its EXIF orientation says, and 16-bit grey keeps its precision:
levels are scaled from the full range of the file's bit depth to 0..255, as float32. (Pillow itself reads
16-bit *colour* PNG and TIFF as 8 bits.) Of an animation the first frame is taken, of a TIFF the first page.
32-bit integer and floating point images are refused: such files do not say which value is white.

Arrays, from NPY files and containers, are taken as they are: uint8 and uint16 hold levels, uint16 scaled to
0..255 as above; floating point arrays hold the model's own input, which is not scaled again. A model whose
input is not grey, RGB or RGBA (its colour is then a number of bands) takes NPY and multiband TIFF files.

(Of a broken TIFF, libtiff itself writes a line to standard error; Pillow offers no way to stop it.)
"""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from augnet.errors import ImageError
from augnet.sources.bands import NPY_MAGIC, load_npy, load_tiff

Color = Literal["grey", "rgb", "rgba"]
Bands = int
"""Channels of a model's input that are no colours."""
CHANNELS: dict[Color, int] = {"grey": 1, "rgb": 3, "rgba": 4}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")

_ARRAY_MODES = (1, 3, 4)
"""Channels of a uint8 array that Pillow converts as it does images."""

_MODES: dict[Color, str] = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}
_NATIVE_COLORS = {
    **dict.fromkeys(("1", "L", "LA"), "grey"),
    **dict.fromkeys(("P", "PA", "RGB", "RGBX", "RGBA"), "rgb"),
}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_PILLOW_ERRORS = (
    # What Pillow's readers are known to raise on damaged bytes: tests/test_sources_decode.py looks for more.
    OSError,  # truncated data, unknown formats, codec errors
    SyntaxError,  # broken headers
    ValueError,
    struct.error,
    zlib.error,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
)


@dataclass(frozen=True)
class Decoded:
    """An upright picture in the colour mode that was asked for.

    Attributes:
        pixels: (height, width, channel), uint8, or float32 for 16-bit sources; 0..255. May be read-only.
        recolored: whether the file was of another colour mode. Palettes count as rgb, 1 and 16 bits as grey.
        is_model_input: whether `pixels` are float32 in the model's own space instead of 0..255.
    """

    pixels: np.ndarray
    recolored: bool
    is_model_input: bool = False


def decode(data: bytes | np.ndarray, color: Color | Bands, max_pixels: int) -> Decoded:
    """The pixels of one image.

    Args:
        data: a PNG, JPEG, WebP, BMP, GIF, TIFF or NPY file, or an array (height, width) or (height, width,
            channel) of uint8, uint16 or floats.
        color: the colour mode to return, or a number of bands.
        max_pixels: height * width above which the image is refused by its header, before it is decoded.
            Pillow has a limit of its own, 2 * PIL.Image.MAX_IMAGE_PIXELS.

    Raises:
        ImageError: stage "decode"; the reason depends on the bytes alone.
    """
    if isinstance(data, np.ndarray):
        return _of_array(data, color, max_pixels)
    if data.startswith(NPY_MAGIC):
        return _of_array(load_npy(data), color, max_pixels)
    if isinstance(color, int):
        return _of_array(load_tiff(data, color, max_pixels), color, max_pixels)
    _hush_pillow()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            image.load()
            _check_size(image.size, max_pixels)  # a GIF's first frame may be larger than its screen
            return _convert(image, color)
    except Image.UnidentifiedImageError as error:
        reason = "not a PNG, JPEG, WebP, BMP, GIF or TIFF image, or one with a broken header"
        raise ImageError("decode", reason) from error
    except Image.DecompressionBombError as error:
        reason = f"more pixels than images.max_pixels ({max_pixels}) or Pillow allows"
        raise ImageError("decode", reason) from error
    except _PILLOW_ERRORS as error:
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", str(error))
        reason = f"cannot be decoded ({type(error).__name__}{': ' if text else ''}{text})"
        raise ImageError("decode", reason) from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            "decode",
            f"{height} x {width} pixels (height x width), more than images.max_pixels ({max_pixels})",
        )


def _of_array(array: np.ndarray, color: Color | Bands, max_pixels: int) -> Decoded:
    array = array[..., np.newaxis] if array.ndim == 2 else array
    if array.ndim != 3 or not array.size:
        raise ImageError("decode", f"an array of shape {array.shape}, not (height, width, channel)")
    _check_size((array.shape[1], array.shape[0]), max_pixels)
    found, wanted = array.shape[-1], color if isinstance(color, int) else CHANNELS[color]
    if array.dtype == np.uint8 and not isinstance(color, int) and found in _ARRAY_MODES:
        return _convert(Image.fromarray(array[..., 0] if found == 1 else array), color)
    if array.dtype == np.uint16:
        pixels = np.multiply(array, 255, dtype=np.float32) / np.float32(65535)
    elif array.dtype == np.uint8:
        pixels = array
    elif array.dtype.kind == "f":
        pixels = array.astype(np.float32)
    else:
        raise ImageError("decode", f"an array of {array.dtype}; save it as uint8, uint16 or float32")
    if found == 1 and not isinstance(color, int):
        pixels = _spread(pixels[..., 0], color)
    elif found != wanted:
        raise ImageError("decode", f"an array of {found} channels; the model takes {wanted}")
    return Decoded(pixels, found != wanted, is_model_input=array.dtype.kind == "f")


def _convert(image: Image.Image, color: Color) -> Decoded:
    if image.mode in ("I", "F"):
        kind = "integer" if image.mode == "I" else "floating point"
        raise ImageError(
            "decode", f"{kind} pixels of unknown range; convert the image to 8 or 16 bits per channel"
        )
    if image.mode.startswith("I;16"):
        return Decoded(_spread(_scale_16_bit(image), color), recolored=color != "grey")
    native = _NATIVE_COLORS.get(image.mode, image.mode)
    recolored = native + ("a" if image.has_transparency_data else "") != color
    image = _turn_upright(image)
    if color != "rgba":
        image.info.pop("transparency", None)  # Pillow warns of what is wanted here: colour without alpha
    if image.mode != _MODES[color]:
        image = image.convert(_MODES[color])
    return Decoded(np.asarray(image).reshape(image.height, image.width, CHANNELS[color]), recolored)


def _scale_16_bit(image: Image.Image) -> np.ndarray:
    """(height, width) float32 in 0..255 from 9 to 16 bits of grey."""
    white, inverted = 65535, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        white = 2 ** image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
        inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0  # white is zero
    levels = np.asarray(_turn_upright(image))
    if inverted:
        levels = white - levels
    return np.multiply(levels, 255, dtype=np.float32) / np.float32(white)  # the product is exact


def _spread(grey: np.ndarray, color: Color) -> np.ndarray:
    """(height, width, channel) of the colour mode from (height, width) grey; alpha is opaque."""
    pixels = np.broadcast_to(grey[..., np.newaxis], (*grey.shape, min(CHANNELS[color], 3)))
    if color == "rgba":
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=-1)
    return pixels


def _turn_upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except _PILLOW_ERRORS:  # broken metadata is no reason to lose good pixels; viewers show them as they are
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


_HUSH = [("ignore", None, kind, re.compile(r"PIL\."), 0) for kind in (UserWarning, RuntimeWarning)]
_HUSH_LOCK = threading.Lock()


def _hush_pillow() -> None:
    """Ignores Pillow's warnings about odd metadata and large pictures, which no user can act on.

    As a filter that stays: `warnings.catch_warnings` is not safe in threads, and images decode in many.
    """
    if list(warnings.filters[: len(_HUSH)]) == _HUSH:
        return
    with _HUSH_LOCK:
        for _, _, kind, module, _ in reversed(_HUSH):
            warnings.filterwarnings("ignore", category=kind, module=module.pattern)
