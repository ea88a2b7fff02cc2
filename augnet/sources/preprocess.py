"""Encoded bytes to a model's input: decode, resize, scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from augnet.config import OwnScale, PreprocessConfig
from augnet.errors import ConfigError, ImageError
from augnet.sources.base import Encoded
from augnet.sources.decode import CHANNELS, Bands, Color, decode
from augnet.sources.scaling import settle_scale

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
GUESSED = "preprocess.scale was guessed; set it if your model was trained otherwise."
_MAX_RESIZE_PIXELS = 2**28
"""Pixels between Pillow's two resize passes, 4 bytes each: a bound for pictures of absurd proportions."""


@dataclass(frozen=True)
class Prepared:
    """One model input.

    Attributes:
        image: (height, width, channel) float32, in the model's input space.
        resized: whether the picture had another size.
        recolored: whether the file had another colour mode.
    """

    image: np.ndarray
    resized: bool
    recolored: bool


class Preprocess:
    """How an image file becomes the input of one model, settled before the first image is read.

    A resized image is what `keras.utils.load_img(path, target_size=..., interpolation=...)` gives: Pillow's
    filters, which average over all source pixels when they shrink (`tf.image.resize` does not, unless
    antialias=True), rounded to 8 bits and kept in 0..255. 16-bit images are resized in float32, without
    rounding. With crop_to_aspect_ratio it is what load_img gives with keep_aspect_ratio=True.

    Args:
        config: the `preprocess` section.
        height: of the model's input in pixels; None where the model takes any.
        width: as height.
        channels: of the model's input.
        model_rescales: whether the model rescales its input by itself, as True, False, or as words that name
            what in it does ("layer 'rescaling' divides by 255").
        max_pixels: `images.max_pixels`.
        suggested, suggested_reason: see settle_scale.

    Attributes:
        height, width, channels: of the prepared image.
        color: "grey", "rgb" or "rgba"; a number of bands where the model's input is none of these.
        resize: name of Pillow's filter.
        scale: "unit", "minus_one_one", "imagenet", "caffe", "none" or an OwnScale; never "auto".
        reason: one sentence that says why this scale.
        warnings: sentences on what was guessed.
        input_scale: (channel,) float64, d model input / d pixel, with pixels in 0..255.

    Raises:
        ConfigError: when the model's input and the configuration do not fit together.
    """

    def __init__(
        self,
        config: PreprocessConfig,
        height: int | None,
        width: int | None,
        channels: int,
        model_rescales: bool | str,
        max_pixels: int,
        suggested: str = "",
        suggested_reason: str = "",
    ):
        self.height, self.width = _resolve_size(config, height, width)
        self.channels = channels
        self.color = _resolve_color(config, channels)
        settled = settle_scale(config, model_rescales, suggested, suggested_reason)
        self.scale, self.reason = settled.scale, settled.reason
        self.warnings = (f"{GUESSED} {settled.reason}",) if settled.guess else ()
        self.resize, self._crop = config.resize, config.crop_to_aspect_ratio
        self._max_pixels = max_pixels
        scaling = settled.scaling(channels)
        self.input_scale = 1 / (scaling.divisor * np.broadcast_to(scaling.std, channels))
        self._reverse = scaling.reverse
        self._divisor = np.float32(scaling.divisor)
        self._mean, self._std = (
            # As whole rows of pixels: NumPy is several times faster on those than on a few channels.
            np.tile(np.broadcast_to(values, channels).astype(np.float32), (self.width, 1))
            for values in (scaling.mean, scaling.std)
        )

    def __call__(self, data: Encoded) -> Prepared:
        """The model input made of one image.

        Args:
            data: an image file or array, as `decode` takes it.

        Raises:
            ImageError: stage "decode" or "preprocess".
        """
        decoded = decode(data, self.color, self._max_pixels)
        pixels = decoded.pixels
        resized = pixels.shape[:2] != (self.height, self.width)
        if resized:
            pixels = self._resize(pixels, limits=None if decoded.is_model_input else (0, 255))
        image = np.ascontiguousarray(pixels) if decoded.is_model_input else self._rescale(pixels)
        return Prepared(image, resized, decoded.recolored)

    def picture(self, image: np.ndarray) -> np.ndarray:
        """The uint8 picture (height, width, 1 or 3) that an input (height, width, channel) was made of."""
        pixels = (image * self._std + self._mean) * self._divisor
        if self._reverse:
            pixels = pixels[..., ::-1]
        shown = pixels[..., :3] if self.channels >= 3 else pixels[..., :1]
        return np.rint(shown).clip(0, 255).astype(np.uint8)

    def describe(self) -> dict[str, Any]:
        """What was settled, as plain JSON values; size is (height, width)."""
        return {
            "size": [self.height, self.width],
            "color": "bgr" if self._reverse else self.color,
            "resize": self.resize,
            "crop_to_aspect_ratio": self._crop,
            "scale": self.scale.model_dump(mode="json") if isinstance(self.scale, OwnScale) else self.scale,
            "reason": self.reason,
            "warnings": list(self.warnings),
        }

    def _resize(self, pixels: np.ndarray, limits: tuple[int, int] | None) -> np.ndarray:
        height, width, channels = pixels.shape
        if height * self.width > _MAX_RESIZE_PIXELS:
            raise ImageError(
                "preprocess", f"{height} x {width} pixels (height x width) are too tall a picture to resize"
            )
        size, kernel = (self.width, self.height), _FILTERS[self.resize]
        box = self._box(height, width)
        if pixels.dtype == np.float32 or channels not in CHANNELS.values():
            planes = [Image.fromarray(pixels[..., c]).resize(size, kernel, box) for c in range(channels)]
            resized = np.stack([np.asarray(plane) for plane in planes], axis=-1)
            return resized if limits is None else resized.clip(*limits)
        image = Image.fromarray(pixels[..., 0] if channels == 1 else pixels).resize(size, kernel, box)
        return np.asarray(image).reshape(self.height, self.width, channels)

    def _box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is resized: all, or the middle with the input's proportions."""
        if not self._crop:
            return 0, 0, width, height
        # Whole pixels, rounded as keras.utils.load_img(keep_aspect_ratio=True) does, but at least one.
        box_height = max(1, min(height, width * self.height // self.width))
        box_width = max(1, min(width, height * self.width // self.height))
        top, left = (height - box_height) // 2, (width - box_width) // 2
        return left, top, left + box_width, top + box_height

    def _rescale(self, pixels: np.ndarray) -> np.ndarray:
        """(pixels / divisor - mean) / std, step by step in float32 as keras.applications does it."""
        if self._reverse:
            pixels = pixels[..., ::-1]
        image = np.divide(pixels, self._divisor, dtype=np.float32)
        if self._mean.any():
            image -= self._mean
        if (self._std != 1).any():
            image /= self._std
        return image


def _resolve_size(config: PreprocessConfig, height: int | None, width: int | None) -> tuple[int, int]:
    if config.size is None:
        if height is None or width is None:
            raise ConfigError(
                f"preprocess.size: the model takes {_size_text(height, width)} (height x width) pixels; "
                "give the size to audit it at, such as [224, 224]"
            )
        return height, width
    if (height or config.size[0], width or config.size[1]) != config.size:
        raise ConfigError(
            f"preprocess.size: {_size_text(*config.size)} does not fit the model, whose input has "
            f"{_size_text(height, width)} (height x width) pixels; give that size, or leave it out"
        )
    return config.size


def _size_text(height: int | None, width: int | None) -> str:
    return f"{height or 'any'} x {width or 'any'}"


def _resolve_color(config: PreprocessConfig, channels: int) -> Color | Bands:
    if config.color == "auto":
        for color, count in CHANNELS.items():
            if count == channels:
                return color
        return channels
    if CHANNELS[config.color] != channels:
        raise ConfigError(
            f"preprocess.color: {config.color!r} has {CHANNELS[config.color]} channels, but the model's "
            f"input has {channels}; leave color at auto"
        )
    return config.color
