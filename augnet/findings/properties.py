"""Changes of the whole image: its colour, brightness, sharpness, contrast, fine waves and background."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise

import numpy as np
from scipy import fft  # several times as fast as NumPy

from augnet.findings.interventions import Change, Mark, Moving, Place, Range

SMALL = 1e-3
"""Of the range of values: where less than that varies, there is nothing to scale."""
GAINS = (0.2, 5.0)
"""What a factor between two images may be: beyond it, noise would be blown up."""


class Pictures:
    """Images (n, height, width, channel), and what properties are read from, made when first asked for."""

    def __init__(self, images: np.ndarray, limits: Range):
        self._images, self._limits = images, limits

    @cached_property
    def unit(self) -> np.ndarray:
        """With their values in [0, 1]."""
        return self._limits.unit(self._images)

    @cached_property
    def waves(self) -> np.ndarray:
        """Their `spectrum`."""
        return spectrum(self.unit)


class Property(Change):
    """What can be changed of the whole image."""

    @abstractmethod
    def traits(self, pictures: Pictures) -> np.ndarray:
        """(n, m), what tells how much of the property each image has; NaN for one that can have none."""


@dataclass(frozen=True)
class Colour(Property):
    """The cast: how the channels' means differ from the brightness, by what is added or by factors."""

    kind = "colour"
    both_ways = True
    by_factor: bool

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        into, of = limits.unit(images), limits.unit(sources)
        return limits.back(_cast(into, of, self.by_factor))

    def traits(self, pictures: Pictures) -> np.ndarray:
        means = pictures.unit.mean(axis=(1, 2))
        return np.asarray(means - means.mean(axis=1, keepdims=True))


def _cast(into: np.ndarray, of: np.ndarray, by_factor: bool) -> np.ndarray:
    own, given = (unit.mean(axis=(1, 2), keepdims=True) for unit in (into, of))
    if by_factor:
        own, given = (mean + SMALL for mean in (own, given))
        own, given = (mean / mean.mean(axis=-1, keepdims=True) for mean in (own, given))
        return into * (given / own).clip(*GAINS)
    own, given = (mean - mean.mean(axis=-1, keepdims=True) for mean in (own, given))
    return into + given - own


@dataclass(frozen=True)
class Brightness(Property):
    """The mean, by what is added or by a factor."""

    kind = "brightness"
    both_ways = True
    by_factor: bool

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        into, of = limits.unit(images), limits.unit(sources)
        own, given = (unit.mean(axis=(1, 2, 3), keepdims=True) for unit in (into, of))
        if self.by_factor:
            return limits.back(into * ((given + SMALL) / (own + SMALL)).clip(*GAINS))
        return limits.back(into + given - own)

    def traits(self, pictures: Pictures) -> np.ndarray:
        return np.asarray(pictures.unit.mean(axis=(1, 2, 3))[:, None])


@dataclass(frozen=True)
class Contrast(Property):
    """The spread of the values around their mean."""

    kind = "contrast"
    both_ways = True

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        into, of = limits.unit(images), limits.unit(sources)
        own, given = (unit.std(axis=(1, 2, 3), keepdims=True) + SMALL for unit in (into, of))
        mean = into.mean(axis=(1, 2, 3), keepdims=True)
        return limits.back(mean + (into - mean) * (given / own).clip(*GAINS))

    def traits(self, pictures: Pictures) -> np.ndarray:
        return np.asarray(np.log(pictures.unit.std(axis=(1, 2, 3))[:, None] + SMALL))


BANDS = (0.12, 0.18, 0.25, 0.35, 0.5, 0.75)
"""Edges of the bands of spatial frequency, in cycles per pixel; below the first is the picture's content."""


@dataclass(frozen=True)
class Blur(Property):
    """How much of the fine detail is missing beside the coarse, band by band of spatial frequency."""

    kind = "blur"
    by_nature = 1.6

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        own, given = spectrum(limits.unit(images)), spectrum(limits.unit(sources))
        before, after = (relative_bands(part) for part in (own, given))
        for band, gain in zip(bands(images.shape[1:3]), (after / before).T, strict=True):
            own[:, band] *= gain.clip(0, 1)[:, None, None]
        return limits.back(fft.ifft2(own, axes=(1, 2)).real)

    def traits(self, pictures: Pictures) -> np.ndarray:
        return np.asarray(np.log(relative_bands(pictures.waves)).mean(axis=1, keepdims=True))


def bands(size: tuple[int, int]) -> list[np.ndarray]:
    """(height, width) bool each, the waves of every band that has any."""
    frequency = frequencies(size)
    found = [(frequency >= low) & (frequency < high) for low, high in pairwise(BANDS)]
    return [band for band in found if band.any()]


def relative_bands(waves: np.ndarray) -> np.ndarray:
    """(n, band) root mean square amplitude in each band, over that of all coarser waves but the mean."""
    frequency = frequencies(waves.shape[1:3])
    longest = frequency[frequency > 0].min()  # of a small picture, in the first band
    noise = SMALL * np.sqrt(frequency.size)

    def amplitude(band: np.ndarray) -> np.ndarray:
        return np.sqrt((np.abs(waves[:, band]) ** 2).mean(axis=(1, 2))) + noise

    coarse = amplitude((frequency > 0) & (frequency <= max(longest, BANDS[0])))
    return np.stack([amplitude(band) / coarse for band in bands(waves.shape[1:3])], axis=1)


@dataclass(frozen=True)
class Frequency(Property):
    """The few fine waves that each source has most more of than others: a regular pattern.

    Not all waves: these together are what a texture is. Of each source: a pattern may lie in any direction.
    It is taken by damping all fine waves: those of images without it lie elsewhere.
    """

    kind = "frequency"
    by_nature = 2.0
    both_ways = True

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        own, given = spectrum(limits.unit(images)), spectrum(limits.unit(sources))
        usual = np.abs(own).mean(axis=(0, 3))
        more = (np.abs(given).mean(axis=-1) - usual) * self._fine(images)
        few = max(FEW_WAVES, round(FEW * usual.size))
        least = np.sort(more.reshape(len(more), -1), axis=1)[:, -few, None, None]
        moved = (more >= least) & (more > 0)
        return limits.back(fft.ifft2(np.where(moved[..., None], given, own), axes=(1, 2)).real)

    def take(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        return Blur().put(images, sources, limits)

    def traits(self, pictures: Pictures) -> np.ndarray:
        amplitude = np.abs(pictures.waves).mean(axis=-1)
        return np.asarray(amplitude[:, self._fine(pictures.waves)])

    def _fine(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(frequencies(images.shape[1:3]) >= BANDS[1])


FEW, FEW_WAVES = 0.01, 4
"""Of all waves, and at least; those of one grating come in pairs."""


def spectrum(unit: np.ndarray) -> np.ndarray:
    """The discrete Fourier transform over height and width of (n, height, width, channel)."""
    return np.asarray(fft.fft2(unit, axes=(1, 2)))


def frequencies(size: tuple[int, int]) -> np.ndarray:
    """(height, width), cycles per pixel of each wave of `spectrum`."""
    height, width = size
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])


@dataclass(frozen=True)
class Background(Property):
    """What lies behind the object, in images that have one, where image and source both show it."""

    kind = "background"
    by_nature = 2.0

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        both = background(limits.unit(images)) & background(limits.unit(sources))
        return np.where(both[..., None], sources, images)

    def traits(self, pictures: Pictures) -> np.ndarray:
        unit = pictures.unit
        behind = background(unit)
        area = behind.sum(axis=(1, 2)) + 1
        steps = np.abs(np.diff(unit, axis=2)).mean(axis=-1) * (behind[:, :, 1:] & behind[:, :, :-1])
        mean = (unit.mean(axis=-1) * behind).sum(axis=(1, 2)) / area
        found = np.stack([mean, steps.sum(axis=(1, 2)) / area], axis=1)
        found[~behind.any(axis=(1, 2))] = np.nan
        return found


LIKE = 0.1
"""Of the range of values: what differs by less from the sides' colour is like it, however even these are."""
OBJECT = (0.02, 0.6)
"""Of the picture, that an object covers; with less or more there is none, and so no background."""


def background(unit: np.ndarray) -> np.ndarray:
    """(n, height, width) bool, what lies behind the object; nothing where there is none.

    An object is where most pixels around differ more from the median of the picture's sides than those do.
    """
    sides = np.concatenate([unit[:, 0], unit[:, -1], unit[:, :, 0], unit[:, :, -1]], axis=1)
    median = np.median(sides, axis=1)[:, None]
    reach = np.quantile(np.abs(sides - median).max(axis=-1), 0.9, axis=1).clip(LIKE)
    channels = np.moveaxis(np.abs(unit - median[:, None]), -1, 0)
    apart = reduce(np.maximum, channels) > reach[:, None, None]  # along so short an axis NumPy takes long
    thing = np.asarray(_around(apart) >= 5)
    share = thing.mean(axis=(1, 2))[:, None, None]
    return np.asarray((_around(thing) == 0) & (share > OBJECT[0]) & (share < OBJECT[1]))


def _around(mask: np.ndarray) -> np.ndarray:
    """(n, height, width) uint8, how many of each pixel and its eight neighbours are in a mask."""
    padded = np.pad(mask.astype(np.uint8), ((0, 0), (1, 1), (1, 1)), mode="edge")
    lines = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return np.asarray(lines[:, :, :-2] + lines[:, :, 1:-1] + lines[:, :, 2:])


CHANGES: dict[str, type[Change]] = {
    change.__name__: change
    for change in (
        Place,
        Mark,
        Moving,
        Colour,
        Brightness,
        Contrast,
        Blur,
        Frequency,
        Background,
    )
}
"""By name, as they are written down."""
