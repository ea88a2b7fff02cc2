"""Decoding: formats, colour modes, precision, orientation, and bytes that are no image."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from augnet.errors import ImageError
from augnet.sources import Decoded, decode
from augnet.sources.decode import CHANNELS, Color

COLORS: tuple[Color, ...] = ("grey", "rgb", "rgba")
NOISE = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
RGB = Image.fromarray(NOISE)
ORIENTATION = 0x0112


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def as_color(data: bytes, color: Color) -> Decoded:
    decoded = decode(data, color, 1_000_000)
    assert decoded.pixels.ndim == 3 and decoded.pixels.shape[2] == CHANNELS[color]
    return decoded


def failure(data: bytes, max_pixels: int = 1_000_000) -> str:
    with pytest.raises(ImageError) as info:
        decode(data, "rgb", max_pixels)
    assert info.value.stage == "decode"
    return str(info.value)


# Formats and modes


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("PNG", {}),
        ("PNG", {"interlace": 1}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_the_pixels_back(format: str, options: dict[str, Any]):
    decoded = as_color(encode(RGB, format, **options), "rgb")
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_array_equal(decoded.pixels, NOISE)
    assert not decoded.recolored


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(format: str):
    smooth = np.linspace(0, 255, 32 * 24).reshape(32, 24, 1).astype(np.uint8).repeat(3, axis=2)
    pixels = as_color(encode(Image.fromarray(smooth), format, quality=95), "rgb").pixels
    np.testing.assert_allclose(pixels, smooth, atol=6)


MODES = {
    "1": "grey",
    "L": "grey",
    "LA": "greya",
    "P": "rgb",
    "RGB": "rgb",
    "RGBA": "rgba",
    "CMYK": "cmyk",
    "YCbCr": "rgb",
}
FILES = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK", "YCbCr")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
    *(("GIF", mode) for mode in ("P",)),
    *(("TIFF", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")),
]


@pytest.mark.parametrize(("format", "mode"), FILES)
@pytest.mark.parametrize("color", COLORS)
def test_colours_are_pillows(format: str, mode: str, color: Color):
    image = RGB.copy()
    image.putalpha(Image.fromarray(NOISE[..., 0]))
    data = encode((image if mode in ("LA", "RGBA") else RGB).convert(mode), format)
    target = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}[color]
    expected = np.asarray(Image.open(io.BytesIO(data)).convert(target)).reshape(7, 5, -1)
    decoded = as_color(data, color)
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert decoded.recolored == (MODES[mode] != color)


@pytest.mark.parametrize(("format", "mode"), FILES)
def test_equal_to_keras(format: str, mode: str, tmp_path: Path):
    import keras

    path = tmp_path / "image"
    path.write_bytes(encode(RGB.convert(mode), format))
    for color in COLORS:
        color_mode = "grayscale" if color == "grey" else color
        expected = keras.utils.img_to_array(keras.utils.load_img(path, color_mode=color_mode))
        np.testing.assert_array_equal(as_color(path.read_bytes(), color).pixels, expected)


def test_grey_is_the_luma_of_itu_r_601():
    pixels = as_color(encode(RGB, "PNG"), "grey").pixels[..., 0]
    np.testing.assert_allclose(pixels, NOISE @ [0.299, 0.587, 0.114], atol=0.51)


def test_alpha_is_dropped_not_blended():
    image = Image.new("RGBA", (3, 2), (10, 20, 30, 0))
    assert (as_color(encode(image, "PNG"), "rgb").pixels == (10, 20, 30)).all()


def test_cmyk():
    image = Image.new("CMYK", (3, 2), (0, 255, 255, 0))  # red
    assert (as_color(encode(image, "TIFF"), "rgb").pixels == (255, 0, 0)).all()


@pytest.mark.parametrize("transparency", [1, bytes([0, 128, 255])])
def test_a_transparent_palette_keeps_its_colours(transparency: int | bytes):
    image = Image.new("P", (3, 1))
    image.putpalette([1, 2, 3, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    data = encode(image, "PNG", transparency=transparency)
    colors = [[[1, 2, 3], [40, 50, 60], [70, 80, 90]]]
    rgb = as_color(data, "rgb")
    np.testing.assert_array_equal(rgb.pixels, colors)
    assert rgb.recolored  # its alpha is gone
    rgba = as_color(data, "rgba")
    alpha = [255, 0, 255] if transparency == 1 else [0, 128, 255]
    np.testing.assert_array_equal(rgba.pixels[..., :3], colors)
    np.testing.assert_array_equal(rgba.pixels[0, :, 3], alpha)
    assert not rgba.recolored


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_or_page(format: str):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert (as_color(data, "rgb").pixels == (255, 0, 0)).all()


def test_a_jpeg_with_more_pictures_behind_it():
    data = encode(
        Image.new("L", (8, 8), 200), "MPO", save_all=True, append_images=[Image.new("L", (8, 8), 10)]
    )
    assert (as_color(data, "grey").pixels == 200).all()


def test_a_format_that_is_not_listed():
    assert failure(encode(RGB, "PPM")).startswith("not a PNG, JPEG, WebP, BMP, GIF or TIFF image")


# 16 bits and more


LEVELS = np.array([[0, 1, 128, 255], [256, 257, 40000, 65535]], np.uint16)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_precision(format: str):
    decoded = as_color(encode(Image.fromarray(LEVELS), format), "grey")
    assert decoded.pixels.dtype == np.float32
    np.testing.assert_allclose(decoded.pixels[..., 0], LEVELS / 257, rtol=6e-8)
    assert len(np.unique(decoded.pixels)) == LEVELS.size
    assert not decoded.recolored


def test_sixteen_bits_in_colour():
    data = encode(Image.fromarray(LEVELS), "PNG")
    rgba = as_color(data, "rgba")
    for channel in range(3):
        np.testing.assert_allclose(rgba.pixels[..., channel], LEVELS / 257, rtol=6e-8)
    assert (rgba.pixels[..., 3] == 255).all()
    np.testing.assert_array_equal(as_color(data, "rgb").pixels, rgba.pixels[..., :3])
    assert rgba.recolored


def tiff(order: str, bits: int, photometric: int, data: bytes, width: int, height: int) -> bytes:
    """A minimal grey TIFF, in the byte order `<` or `>`."""
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 122), (277, 1)]
    tags += [(278, height), (279, len(data))]
    entries = b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8)
    return head + struct.pack(order + "H", len(tags)) + entries + bytes(4) + data


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_in_both_byte_orders(order: str):
    data = tiff(order, 16, 1, LEVELS.astype(order + "u2").tobytes(), 4, 2)
    np.testing.assert_allclose(as_color(data, "grey").pixels[..., 0], LEVELS / 257, rtol=6e-8)


def test_sixteen_bits_where_zero_is_white():
    data = tiff("<", 16, 0, LEVELS.astype("<u2").tobytes(), 4, 2)
    np.testing.assert_allclose(as_color(data, "grey").pixels[..., 0], (65535 - LEVELS) / 257, rtol=6e-8)


def test_twelve_bits_reach_white():
    data = tiff("<", 12, 1, bytes.fromhex("000fff800001"), 4, 1)
    expected = np.array([[0, 4095, 0x800, 1]]) * 255 / 4095
    np.testing.assert_allclose(as_color(data, "grey").pixels[..., 0], expected, rtol=6e-8)


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "integer"), (np.float32, "floating point")])
def test_pixels_of_unknown_range_are_refused(dtype: type, kind: str):
    reason = failure(encode(Image.fromarray(np.ones((2, 3), dtype)), "TIFF"))
    assert reason == f"{kind} pixels of unknown range; convert the image to 8 or 16 bits per channel"


# Orientation


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(format: str, orientation: int):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    pixels = as_color(encode(RGB, format, exif=exif, **options), "rgb").pixels
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](NOISE))


def test_exif_orientation_of_a_jpeg():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    pixels = as_color(encode(RGB, "JPEG", exif=exif), "rgb").pixels
    plain = as_color(encode(RGB, "JPEG"), "rgb").pixels
    np.testing.assert_array_equal(pixels, np.rot90(plain, -1))


def test_orientation_of_sixteen_bits():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for format in ("PNG", "TIFF"):
        pixels = as_color(encode(Image.fromarray(LEVELS), format, exif=exif), "grey").pixels
        np.testing.assert_allclose(pixels[..., 0], np.rot90(LEVELS, -1) / 257, rtol=6e-8)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_means_nothing(value: int):
    exif = Image.Exif()
    exif[ORIENTATION] = value
    np.testing.assert_array_equal(as_color(encode(RGB, "PNG", exif=exif), "rgb").pixels, NOISE)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x05"]
)
def test_broken_exif_keeps_good_pixels(exif: bytes):
    plain = as_color(encode(RGB, "JPEG"), "rgb").pixels
    np.testing.assert_array_equal(as_color(encode(RGB, "JPEG", exif=exif), "rgb").pixels, plain)


# Broken and hostile bytes


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"not an image at all", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"]
)
def test_no_image(data: bytes):
    assert failure(data) == "not a PNG, JPEG, WebP, BMP, GIF or TIFF image, or one with a broken header"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_file(format: str):
    big = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    data = encode(big, format)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert failure(data[: len(data) // 2]) == failure(data[: len(data) // 2])


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_a_large_picture_is_refused_by_its_header():
    chunk = b"IDAT" + zlib.compress(bytes(1000))
    data = (
        png_header(5000, 4000)
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
    )
    assert failure(data) == "4000 x 5000 pixels (height x width), more than images.max_pixels (1000000)"


@pytest.mark.parametrize("width", [10_000, 12_000, 20_000, 2**31 - 1])
def test_bombs(width: int):
    chunk = b"IDAT" + zlib.compress(bytes(1000))
    data = (
        png_header(width, width)
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
    )
    assert "images.max_pixels (1000000)" in failure(data)


def test_the_largest_picture():
    data = encode(RGB, "PNG")
    assert decode(data, "rgb", 35).pixels.shape == (7, 5, 3)
    assert failure(data, 34) == "7 x 5 pixels (height x width), more than images.max_pixels (34)"


def test_reasons_hold_no_address():
    reasons = {failure(data) for data in (b"x", png_header(3, 3), encode(RGB, "TIFF")[:60]) for _ in range(2)}
    assert not any("0x" in reason or "BytesIO" in reason for reason in reasons)


def test_pillows_warnings_are_ignored_in_every_thread():
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\0\0\0\xff\xff\0\0"  # a text beyond the end
    data = encode(RGB, "JPEG", exif=exif)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                as_color(data, "rgb")
        except BaseException as error:
            failures.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="Truncated"):
            Image.open(io.BytesIO(data)).getexif()[ORIENTATION]
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        as_color(data, "rgb")
    assert not failures


def seeds() -> list[bytes]:
    """Small valid files of every kind, to be damaged."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    palette, grey16 = RGB.quantize(8), Image.fromarray(LEVELS)
    files = [encode(RGB.convert(mode), format) for format, mode in FILES]
    files += [encode(image, "TIFF", compression="packbits", exif=exif) for image in (RGB, grey16)]
    files += [encode(RGB, format, exif=exif) for format in ("PNG", "JPEG", "WEBP", "TIFF")]
    files += [encode(RGB.convert("L"), "GIF")]
    files += [encode(palette, "GIF", save_all=True, append_images=[palette.rotate(90)], transparency=1)]
    files += [encode(palette, "PNG", transparency=b"\0\1"), encode(grey16, "PNG")]
    return files


EDITS = st.tuples(st.integers(0, 400), st.integers(0, 8), st.binary(max_size=8))


@settings(deadline=None, max_examples=300)
@given(
    data=st.sampled_from(seeds()),
    edits=st.lists(EDITS, max_size=6),
    end=st.none() | st.integers(0, 400),
    color=st.sampled_from(COLORS),
)
@example(
    data=b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2\x44\1\0;", edits=[], end=None, color="rgb"
)
def test_damaged_bytes_are_decoded_or_refused(
    data: bytes, edits: list[tuple[int, int, bytes]], end: int | None, color: Color
):
    damaged = bytearray(data)
    for position, removed, inserted in edits:
        damaged[position : position + removed] = inserted
    try:
        decoded = as_color(bytes(damaged[:end]), color)
    except ImageError as error:
        assert error.stage == "decode"
        assert str(error) and "0x" not in str(error)
    else:
        assert decoded.pixels.min() >= 0 and decoded.pixels.max() <= 255
