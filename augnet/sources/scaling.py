"""From pixels in 0..255 to the numbers that a model was trained on."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass

import numpy as np

from augnet.config import APPLICATIONS, OwnScale, PreprocessConfig
from augnet.errors import ConfigError


@dataclass(frozen=True)
class Scaling:
    """(pixel / divisor - mean) / std, with pixels in 0..255.

    Attributes:
        mean, std: one value for all channels, or one for each, in the order of the model's input.
        reverse: the model takes the channels in reverse order, blue first.
    """

    divisor: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    reverse: bool = False

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """float64 (..., channel) of pixels (..., channel)."""
        ordered = pixels[..., ::-1] if self.reverse else pixels
        return (ordered / self.divisor - np.array(self.mean)) / np.array(self.std)


SCALINGS = {
    "none": Scaling(),
    "unit": Scaling(255.0),
    "minus_one_one": Scaling(127.5, mean=(1.0,)),
    "imagenet": Scaling(255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "caffe": Scaling(mean=(103.939, 116.779, 123.68), reverse=True),
}
"""By their names in preprocess.scale. keras.applications calls the last three tf, torch and caffe."""


@dataclass(frozen=True)
class SettledScale:
    """What became of `preprocess.scale`.

    Attributes:
        scale: a key of SCALINGS, or an OwnScale.
        reason: one sentence that says why this one.
        guess: nothing said so for certain.
    """

    scale: str | OwnScale
    reason: str
    guess: bool = False

    def scaling(self, channels: int) -> Scaling:
        """The formula.

        Raises:
            ConfigError: it is for another number of channels.
        """
        found = SCALINGS[self.scale] if isinstance(self.scale, str) else _own(self.scale)
        for name, values in (("mean", found.mean), ("std", found.std)):
            if len(values) not in (1, channels) or not all(map(math.isfinite, values)):
                raise ConfigError(
                    f"preprocess.scale: {name} {list(values)} does not fit a model input of {channels} "
                    f"channels; give {{mean, std}} of 1 or {channels} finite numbers each"
                )
        return found


def settle_scale(
    config: PreprocessConfig,
    model_rescales: bool | str = False,
    suggested: str = "",
    suggested_reason: str = "",
) -> SettledScale:
    """The scale that the configuration asks for or, where that is `auto`, the model.

    Args:
        config: the `preprocess` section.
        model_rescales: whether the model rescales its input by itself, as True, False, or as words that name
            what in it does ("layer 'rescaling' divides by 255").
        suggested: the scale that the network in the model was published with, such as
            "keras.applications.resnet", or "none" for raw pixels; "" where it is not known.
        suggested_reason: what was found in the model that says so.

    Raises:
        ConfigError: keras.applications has no such module.
    """
    rescaling = "the model rescales its input by itself"
    if isinstance(model_rescales, str):
        rescaling += f" ({model_rescales})"
    if config.scale != "auto":
        although = f", although {rescaling}" if model_rescales and config.scale != "none" else ""
        if isinstance(config.scale, str) and config.scale.startswith(APPLICATIONS):
            name = application_scale(config.scale)
            return SettledScale(name, f"The configuration says {config.scale}{although}.")
        return SettledScale(config.scale, f"The configuration says so{although}.")
    if suggested.startswith(APPLICATIONS):
        reason = f"As in {suggested}.preprocess_input, because {suggested_reason}."
        return SettledScale(application_scale(suggested), reason, guess=True)
    if suggested:
        if suggested == "none":
            return SettledScale("none", f"Pixels stay in 0..255, because {suggested_reason}.")
        return SettledScale(suggested, f"As published, because {suggested_reason}.", guess=True)
    if model_rescales:
        return SettledScale("none", f"Pixels stay in 0..255, because {rescaling}.")
    reason = "Pixels are divided by 255, because the model does not rescale its input by itself."
    return SettledScale("unit", reason, guess=True)


def application_scale(name: str) -> str:
    """The key of SCALINGS that does what `preprocess_input` of a module of keras.applications does.

    The module itself is asked, with pixels of every value.

    Args:
        name: "keras.applications.resnet", ...

    Raises:
        ConfigError: no such module, or none of SCALINGS does what it does.
    """
    applications = importlib.import_module("keras.applications")
    module = getattr(applications, name.removeprefix(APPLICATIONS), None)
    preprocess_input = getattr(module, "preprocess_input", None)
    if preprocess_input is None:
        known = (key for key in dir(applications) if hasattr(getattr(applications, key), "preprocess_input"))
        raise ConfigError(f"preprocess.scale: no module {name!r}; keras.applications has {', '.join(known)}")
    values = np.arange(256)
    pixels = np.stack([values, values[::-1], np.roll(values, 100)], axis=-1).reshape(16, 16, 3)
    expected = np.asarray(preprocess_input(pixels.astype("float32")))
    for key, scaling in SCALINGS.items():
        if np.allclose(scaling(pixels), expected, rtol=1e-5, atol=1e-5):
            return key
    raise ConfigError(
        f"preprocess.scale: what {name}.preprocess_input does is none of {', '.join(SCALINGS)}; "
        "give {mean, std}"
    )


def _own(scale: OwnScale) -> Scaling:
    return Scaling(255.0, scale.mean, scale.std)
