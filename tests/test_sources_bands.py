"""Arrays and multiband files: what they decode to, and how they reach a model with as many channels."""

import io
import zlib

import numpy as np
import pytest
import tifffile
from conftest import linear_model
from PIL import Image

import augnet
from augnet.config import PreprocessConfig
from augnet.errors import ImageError
from augnet.sources import Preprocess, decode
from pipeline.main import main

RNG = np.random.default_rng(5)
BANDS = RNG.integers(0, 2**16, (12, 10, 5), np.uint16)


def npy(array, **settings):
    file = io.BytesIO()
    np.save(file, array, **settings)
    return file.getvalue()


def tiff(array, **settings):
    file = io.BytesIO()
    tifffile.imwrite(file, array, **settings)
    return file.getvalue()


def image_file(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("color", ["grey", "rgb", "rgba"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_array_of_levels_is_what_its_image_file_is(color, channels):
    array = RNG.integers(0, 256, (12, 10, channels), np.uint8)
    file = image_file(array[..., 0] if channels == 1 else array)
    expected = decode(file, color, 1000)
    for found in (decode(array, color, 1000), decode(npy(array), color, 1000)):
        np.testing.assert_array_equal(found.pixels, expected.pixels)
        assert found.recolored == expected.recolored


def test_16_bits_are_scaled_to_255():
    levels = np.array([[[0, 65535, 32768]]], np.uint16)
    np.testing.assert_allclose(decode(levels, "rgb", 10).pixels, [[[0, 255, 32768 / 257]]], rtol=1e-6)
    grey = decode(levels[..., 1], "rgb", 10)
    np.testing.assert_array_equal(grey.pixels, [[[255, 255, 255]]])


def test_floats_are_the_models_own_input():
    array = RNG.normal(size=(12, 10, 3))
    prepared = Preprocess(PreprocessConfig(scale="imagenet"), 12, 10, 3, False, 1000)(array)
    assert prepared.image.dtype == np.float32
    np.testing.assert_array_equal(prepared.image, array.astype(np.float32))
    halved = Preprocess(PreprocessConfig(), 6, 5, 3, False, 1000)(array - 5)
    assert halved.resized and halved.image.max() < 0  # neither clipped to levels nor scaled


@pytest.mark.parametrize(
    "settings", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}, {"tile": (16, 16)}]
)
def test_multiband_tiff_files(settings):
    array = np.moveaxis(BANDS, -1, 0) if settings.get("planarconfig") else BANDS
    found = decode(tiff(array, photometric="minisblack", **settings), 5, 1000)
    np.testing.assert_allclose(found.pixels, BANDS / 257, rtol=1e-6)


def test_bands_on_pages():
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for band in range(5):
            writer.write(BANDS[..., band], contiguous=True)
    np.testing.assert_allclose(decode(file.getvalue(), 5, 1000).pixels, BANDS / 257, rtol=1e-6)


def test_bands_are_resized_one_by_one():
    prepared = Preprocess(PreprocessConfig(scale="none"), 6, 5, 5, False, 1000)(npy(BANDS))
    for band in range(5):
        alone = Preprocess(PreprocessConfig(scale="none"), 6, 5, 1, False, 1000)(npy(BANDS[..., band]))
        np.testing.assert_array_equal(prepared.image[..., band], alone.image[..., 0])
    levels = RNG.integers(0, 256, (12, 10, 2), np.uint8)
    assert Preprocess(PreprocessConfig(scale="none"), 6, 5, 2, False, 1000)(levels).image.shape == (6, 5, 2)


@pytest.mark.parametrize(
    "data, color, words",
    [
        (BANDS, "rgb", "an array of 5 channels; the model takes 3"),
        (BANDS[..., :3], 5, "an array of 3 channels; the model takes 5"),
        (image_file(np.zeros((4, 4, 3), np.uint8)), 5, "neither a TIFF nor an NPY file"),
        (np.zeros((4, 4), np.int32), "grey", "an array of int32; save it as uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "rgb", r"an array of shape \(2, 4, 4, 3\)"),
        (np.zeros((0, 4), np.uint8), "grey", r"an array of shape \(0, 4, 1\)"),
        (np.zeros((40, 40), np.uint8), "grey", r"40 x 40 pixels .* more than images\.max_pixels"),
        (tiff(np.zeros((40, 40, 5), np.uint8)), 5, r"40 x 40 pixels .* more than images\.max_pixels"),
        (tiff(np.zeros((2, 5, 4, 4), np.uint8), metadata={"axes": "TCYX"}), 5, "not one of bands"),
        (npy(np.zeros((4, 4)))[:-1], "grey", "not a readable NPY array"),
        (npy(np.array([{}]), allow_pickle=True), "grey", "Python objects"),
        (b"\x93NUMPY\x01\x00\xff\xff", "grey", "not a readable NPY array"),
        (tiff(BANDS, planarconfig="contig", compression="zlib")[:400], 5, "cannot be decoded"),
        (b"II*\0" + bytes(50), 5, "cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_says_why(data, color, words):
    with pytest.raises(ImageError, match=words) as info:
        decode(data, color, 1000)
    assert info.value.stage == "decode"


def test_a_tiff_that_is_a_bomb_is_not_unpacked():
    data = tiff(np.zeros((12, 10, 5), np.uint8), planarconfig="contig", compression="zlib")
    bomb, patched = zlib.compress(bytes(10**8), 9), bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name, value in (("StripOffsets", len(data)), ("StripByteCounts", len(bomb))):
            place = file.pages[0].tags[name].offset + 8  # of the value in a tag's 12 bytes
            patched[place : place + 4] = value.to_bytes(4, "little")
    with pytest.raises(ImageError, match="more than they hold"):
        decode(bytes(patched) + bomb, 5, 1000)


def test_damaged_tiff_files_fail_as_images_do():
    data = tiff(BANDS, photometric="minisblack", compression="zlib")
    outcomes = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        broken = bytearray(data)
        for place in rng.integers(4, len(data), 3):
            broken[place] = rng.integers(256)
        try:
            decode(bytes(broken), 5, 1000)
            outcomes.add("decoded")
        except ImageError:
            outcomes.add("refused")
    assert outcomes == {"decoded", "refused"}


def test_an_audit_of_five_bands(tmp_path):
    linear_model(channels=5).save(tmp_path / "model.keras")
    for number in range(6):
        bands = RNG.integers(0, 2**16, (12, 10, 5), np.uint16)
        path = tmp_path / "images" / f"{number % 3}" / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            np.save(path, bands)
        else:
            path.with_suffix(".tiff").write_bytes(tiff(bands, photometric="minisblack"))
    arguments = ["--model", f"{tmp_path}/model.keras", "--images", f"{tmp_path}/images"]
    assert main(["audit", *arguments, "--output", f"{tmp_path}/out", "--log-level=warning"]) == 0
    audit = augnet.open_audit(f"{tmp_path}/out")
    assert audit.counts["audited"] == 6
    kernel = linear_model(channels=5).layers[-1].kernel.numpy().reshape(12, 10, 5, 3)
    np.testing.assert_allclose(audit.jacobian("1/1.npy"), np.moveaxis(kernel, -1, 0), rtol=1e-5)
