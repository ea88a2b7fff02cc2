"""From file to model input: size, colour, scale, and what does not fit together."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from augnet.config import OwnScale, PreprocessConfig, load_config
from augnet.errors import ConfigError, ImageError
from augnet.sources import Preprocess
from augnet.sources import preprocess as preprocess_module
from augnet.sources.scaling import application_scale


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def make(
    height: int | None = 8,
    width: int | None = 6,
    channels: int = 3,
    model_rescales: bool | str = False,
    suggestion: tuple[str, str] = ("", ""),
    **config: Any,
) -> Preprocess:
    settings = PreprocessConfig(**config)
    return Preprocess(settings, height, width, channels, model_rescales, 10_000, *suggestion)


# Scale


def test_unit_is_division_by_255():
    pixels = noise(8, 6, 3)
    prepared = make(scale="unit")(png(pixels))
    assert prepared.image.dtype == np.float32
    np.testing.assert_array_equal(prepared.image, np.asarray(pixels, np.float32) / 255)
    assert (prepared.resized, prepared.recolored) == (False, False)


def test_none_keeps_pixels():
    pixels = noise(8, 6, 4)
    np.testing.assert_array_equal(make(channels=4, scale="none")(png(pixels)).image, pixels)


def test_minus_one_one():
    pixels = np.repeat(np.array([[0, 51, 255]], np.uint8), 2, axis=0)
    image = make(2, 3, 1, scale="minus_one_one")(png(pixels)).image
    np.testing.assert_allclose(image[..., 0], [[-1, -0.6, 1]] * 2, atol=1e-7)


def test_imagenet():
    pixels = noise(8, 6, 3)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(make(scale="imagenet")(png(pixels)).image, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], [0.25]), ([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]), ([0.5], [1, 2, 3])]
)
def test_own_scale(mean: list[float], std: list[float]):
    pixels = noise(8, 6, 3)
    image = make(scale={"mean": mean, "std": std})(png(pixels)).image
    np.testing.assert_allclose(image, (pixels / 255 - mean) / np.array(std), atol=1e-6)


@pytest.mark.parametrize(
    "scale", ["unit", "minus_one_one", "imagenet", "caffe", "none", {"mean": [0.3], "std": [0.1, 0.2, 0.4]}]
)
def test_input_scale_is_the_slope(scale: Any):
    preprocess = make(scale=scale)
    black, white = (preprocess(png(np.full((8, 6, 3), v, np.uint8))).image for v in (0, 255))
    assert preprocess.input_scale.dtype == np.float64
    assert preprocess.input_scale.shape == (3,)
    np.testing.assert_allclose((white - black)[0, 0] / 255, preprocess.input_scale, rtol=1e-6)


def test_the_input_scale_of_imagenet():
    np.testing.assert_array_equal(
        make(scale="imagenet").input_scale, 1 / (255 * np.array([0.229, 0.224, 0.225]))
    )


@pytest.mark.parametrize(
    ("scale", "model_rescales", "resolved", "reason"),
    [
        (
            "auto",
            False,
            "unit",
            "Pixels are divided by 255, because the model does not rescale its input by itself.",
        ),
        ("auto", True, "none", "Pixels stay in 0..255, because the model rescales its input by itself."),
        (
            "auto",
            "a Rescaling layer",
            "none",
            "Pixels stay in 0..255, because the model rescales its input by itself (a Rescaling layer).",
        ),
        ("unit", False, "unit", "The configuration says so."),
        ("none", True, "none", "The configuration says so."),
        ("unit", True, "unit", "The configuration says so, although the model rescales its input by itself."),
    ],
)
def test_the_scale_and_why(scale: str, model_rescales: bool | str, resolved: str, reason: str):
    preprocess = make(scale=scale, model_rescales=model_rescales)
    assert (preprocess.scale, preprocess.reason) == (resolved, reason)


APPLICATIONS = sorted(
    name for name in dir(keras.applications) if hasattr(getattr(keras.applications, name), "preprocess_input")
)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_keras_applications_preprocess_as_their_own_modules_do(name: str):
    preprocess = make(scale=f"keras.applications.{name}")
    pixels = noise(8, 6, 3)
    own = getattr(keras.applications, name).preprocess_input(pixels.astype("float32"))
    np.testing.assert_allclose(preprocess(png(pixels)).image, own, rtol=1e-6, atol=1e-6)
    assert preprocess.reason == f"The configuration says keras.applications.{name}."


def test_the_modes_of_keras_applications():
    modes = {name: application_scale(f"keras.applications.{name}") for name in APPLICATIONS}
    assert len(modes) >= 16
    assert {modes[name] for name in ("resnet", "resnet50", "vgg16", "vgg19", "imagenet_utils")} == {"caffe"}
    assert modes["densenet"] == "imagenet"
    assert {modes[name] for name in ("resnet_v2", "mobilenet_v2", "xception")} == {"minus_one_one"}
    assert modes["efficientnet"] == "none"


def test_a_network_of_keras_applications_by_its_name_alone(tmp_path: Path):
    tree = "{model: {path: m.keras}, images: {path: i}, output: o, preprocess: keras.applications.vgg16}"
    (tmp_path / "config.yaml").write_text(tree)
    assert load_config(str(tmp_path / "config.yaml")).preprocess.scale == "keras.applications.vgg16"
    with pytest.raises(
        ConfigError,
        match=r"preprocess\.scale: 'keras.apps' does not fit; give auto, unit, .* or \{mean: .*, std",
    ):
        load_config(str(tmp_path / "config.yaml"), {"preprocess": {"scale": "keras.apps"}})


def test_an_unknown_application_names_those_there_are():
    with pytest.raises(ConfigError, match=r"no module 'keras\.applications\.resnet51'; .* resnet, resnet50,"):
        make(scale="keras.applications.resnet51")


def test_caffe_is_shown_as_it_was_and_is_reversed_for_the_model():
    pixels = noise(8, 6, 3)
    preprocess = make(scale="caffe")
    image = preprocess(png(pixels)).image
    np.testing.assert_allclose(image[..., 0], pixels[..., 2] - np.float32(103.939), rtol=1e-6)
    np.testing.assert_array_equal(preprocess.picture(image), pixels)


def test_what_was_guessed_is_warned_of():
    guessed = make()
    assert guessed.warnings and guessed.describe()["warnings"] == list(guessed.warnings)
    assert "preprocess.scale was guessed; set it" in guessed.warnings[0]
    assert not make(scale="unit").warnings and not make(model_rescales="a Rescaling layer").warnings
    network = make(suggestion=("keras.applications.resnet", "its layers are those of it"))
    assert network.scale == "caffe"
    assert "keras.applications.resnet.preprocess_input, because its layers are" in network.warnings[0]
    own = make(suggestion=("none", "it does so itself"), scale="unit")
    assert (own.scale, own.warnings) == ("unit", ())


def test_an_own_scale_resolves_to_itself():
    scale = OwnScale(mean=(0.5,), std=(0.5,))
    assert make(scale=scale).scale == scale


# Size


@pytest.mark.parametrize("name", ["bilinear", "nearest", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_resizing_is_pillows(name: str, mode: str, channels: int):
    pixels = noise(20, 15, channels).squeeze()
    prepared = make(channels=channels, resize=name, scale="none")(png(pixels))
    image = Image.fromarray(pixels).resize((6, 8), Image.Resampling[name.upper()])
    assert image.mode == mode
    np.testing.assert_array_equal(prepared.image, np.asarray(image).reshape(8, 6, channels))
    assert prepared.resized


def test_box_on_a_whole_factor_is_the_block_mean():
    pixels = noise(8, 6, dtype=np.uint16)
    image = make(4, 3, 1, scale="none", resize="box")(png(pixels)).image
    mean = pixels.reshape(4, 2, 3, 2).mean(axis=(1, 3)) / 257
    np.testing.assert_allclose(image[..., 0], mean, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_single_pixel_fills_the_input(channels: int):
    prepared = make(channels=channels, scale="none")(png(np.array([[37]], np.uint8)))
    expected = np.full((8, 6, channels), 37)
    expected[..., 3:] = 255
    np.testing.assert_array_equal(prepared.image, expected)


def test_sixteen_bits_are_not_rounded():
    pixels = np.array([[0, 1, 256], [257, 40000, 65535]], np.uint16)
    image = make(2, 3, 3, scale="unit")(png(pixels)).image
    np.testing.assert_allclose(image, np.repeat(pixels[..., None], 3, axis=-1) / 65535, rtol=2e-7)


@pytest.mark.parametrize("name", ["bicubic", "lanczos"])
def test_filters_that_overshoot_stay_in_range(name: str):
    edge = np.repeat(np.array([[0, 0, 65535, 65535]], np.uint16), 4, axis=0)
    image = make(8, 8, 1, scale="none", resize=name)(png(edge)).image
    assert (image.min(), image.max()) == (0, 255)


@pytest.mark.parametrize("size", [(20, 15), (15, 20), (9, 40), (40, 9), (8, 6)])
def test_cropping_to_the_aspect_ratio_is_what_keras_does(tmp_path: Path, size: tuple[int, int]):
    (tmp_path / "image.png").write_bytes(png(noise(*size, 3)))
    kept = keras.utils.load_img(
        tmp_path / "image.png", target_size=(8, 6), interpolation="bilinear", keep_aspect_ratio=True
    )
    preprocess = make(crop_to_aspect_ratio=True, scale="none")
    np.testing.assert_array_equal(preprocess((tmp_path / "image.png").read_bytes()).image, np.asarray(kept))


def test_cropping_leaves_at_least_a_pixel():
    prepared = make(crop_to_aspect_ratio=True, scale="none")(png(np.array([[[9, 9, 9]] * 3], np.uint8)))
    np.testing.assert_array_equal(prepared.image, np.full((8, 6, 3), 9))


def test_only_the_axis_that_the_model_leaves_open_is_free():
    preprocess = make(None, 6, size=(10, 6))
    assert (preprocess.height, preprocess.width) == (10, 6)
    with pytest.raises(ConfigError, match=r"preprocess.size: 10 x 7 .* any x 6 \(height x width\)"):
        make(None, 6, size=(10, 7))


def test_the_models_size_is_the_default():
    preprocess = make(8, 6)
    assert (preprocess.height, preprocess.width, preprocess.channels) == (8, 6, 3)
    assert make(8, 6, size=(8, 6)).height == 8


def test_another_size_than_the_models():
    with pytest.raises(
        ConfigError, match=r"preprocess.size: 6 x 8 does not fit the model, whose input has 8 x 6"
    ):
        make(8, 6, size=(6, 8))


def test_no_size_at_all():
    with pytest.raises(
        ConfigError, match=r"preprocess.size: the model takes any x any .* such as \[224, 224\]"
    ):
        make(None, None)


def test_a_picture_too_tall_to_resize(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(preprocess_module, "_MAX_RESIZE_PIXELS", 6 * 100)
    make()(png(np.zeros((100, 1), np.uint8)))
    with pytest.raises(ImageError, match="101 x 1 pixels") as info:
        make()(png(np.zeros((101, 1), np.uint8)))
    assert info.value.stage == "preprocess"


# Colour


@pytest.mark.parametrize(("channels", "color"), [(1, "grey"), (3, "rgb"), (4, "rgba")])
def test_colour_follows_the_models_channels(channels: int, color: str):
    assert make(channels=channels).color == make(channels=channels, color=color).color == color


def test_recolored_is_reported():
    grey = png(noise(8, 6))
    assert make(channels=3)(grey).recolored
    assert not make(channels=1)(grey).recolored


def test_channels_that_are_no_colours_are_bands():
    assert make(channels=2).color == 2
    with pytest.raises(ImageError, match="neither a TIFF nor an NPY file"):
        make(channels=2)(png(np.zeros((8, 6, 3), np.uint8)))


def test_a_colour_of_other_channels_than_the_models():
    with pytest.raises(
        ConfigError, match=r"preprocess.color: 'grey' has 1 channels, but the model's input has 3"
    ):
        make(color="grey")


@pytest.mark.parametrize(
    ("channels", "scale", "message"),
    [
        (1, "imagenet", "mean .* does not fit a model input of 1 channels"),
        (3, {"mean": [0.5, 0.5], "std": [1]}, r"mean \[0.5, 0.5\] does not fit .* of 1 or 3 finite numbers"),
        (3, {"mean": [0.5], "std": [1, 1, 1, 1]}, "std .* does not fit a model input of 3 channels"),
        (1, {"mean": [float("nan")], "std": [1]}, "mean .* finite"),
    ],
)
def test_a_scale_of_other_channels(channels: int, scale: Any, message: str):
    with pytest.raises(ConfigError, match=f"preprocess.scale: {message}"):
        make(channels=channels, scale=scale)


def test_bad_bytes_fail_in_decode():
    with pytest.raises(ImageError) as info:
        make()(b"no image")
    assert info.value.stage == "decode"


def test_describe_is_plain_json():
    described = make(channels=1, resize="box", scale={"mean": [0.5], "std": [0.25]}).describe()
    assert json.loads(json.dumps(described)) == {
        "size": [8, 6],
        "color": "grey",
        "resize": "box",
        "crop_to_aspect_ratio": False,
        "scale": {"mean": [0.5], "std": [0.25]},
        "reason": "The configuration says so.",
        "warnings": [],
    }
    assert make().describe()["scale"] == "unit"
    assert make(scale="caffe").describe()["color"] == "bgr"


def test_travels_to_workers():
    data = png(noise(9, 9, 3))
    preprocess = make(scale="imagenet")
    copy = pickle.loads(pickle.dumps(preprocess))
    np.testing.assert_array_equal(copy(data).image, preprocess(data).image)
