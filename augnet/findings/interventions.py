"""Ways to put one property of some images into others, and what leaves all else alike to compare it with.

Each is a `Change`: `put` gives every image its source's property, and `elsewhere` lists changes that do as
much to an image without that property, its matched controls. Images are (n, height, width, channel) of the
model's own input, and `Range` says what values they may take.

A new kind of finding is a class here and its line in `candidates.candidates_of`:

>>> @dataclass(frozen=True)
... class Mirrored(Change):
...     kind = "mirrored"
...     def put(self, images, sources, limits):
...         return images[:, :, ::-1]
>>> Mirrored().put(np.arange(6).reshape(1, 1, 6, 1), None, None)[0, 0, :, 0]
array([5, 4, 3, 2, 1, 0])
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from augnet.statistics.sample import rank_of

SMALL = 1e-3
"""Of the range of values: where less than that varies, there is nothing to scale."""
GAINS = (0.2, 5.0)
"""What a factor between two images may be: beyond it, noise would be blown up."""


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels of the model input."""

    y: int
    x: int
    height: int
    width: int

    @property
    def area(self) -> int:
        """In pixels."""
        return self.height * self.width

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def shared(self, other: Box) -> int:
        """Pixels that both boxes hold."""
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        return max(height, 0) * max(width, 0)


@dataclass(frozen=True)
class Range:
    """The values that pixels take: lowest and highest of each channel, (channel,) each."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray) -> Range:
        """That of images (n, height, width, channel)."""
        return cls(images.min(axis=(0, 1, 2)), images.max(axis=(0, 1, 2)))

    def unit(self, images: np.ndarray) -> np.ndarray:
        """The images with their values in [0, 1], float64."""
        span = self.high - self.low
        return (images.astype(np.float64) - self.low) / np.where(span > 0, span, 1)

    def back(self, unit: np.ndarray) -> np.ndarray:
        """Images of values in [0, 1], cut to those; float32."""
        return (unit.clip(0, 1) * (self.high - self.low) + self.low).astype(np.float32)


class Change(ABC):
    """One property that images can get from others.

    Attributes:
        kind: of finding, see docs/FINDINGS.md.
        local: whether it is one of some pixels, and not of the whole image.
    """

    kind: ClassVar[str]
    local: ClassVar[bool] = False
    places: tuple[Box, ...] = ()

    @abstractmethod
    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        """The images, each with the property of its source; both (n, height, width, channel)."""

    def traits(self, images: np.ndarray, limits: Range) -> np.ndarray:
        """(n, m), what tells how much of the property each image has; NaN for one that can have none.

        Of a change of the whole image only.
        """
        raise NotImplementedError

    def painted(self, images: np.ndarray) -> np.ndarray:
        """The images with their parts painted over from the edges; of a local change only."""
        raise NotImplementedError

    def elsewhere(self, size: tuple[int, int]) -> list[Change]:
        """The same change of other parts of an image of (height, width); none for one of the whole image."""
        return []


@dataclass(frozen=True)
class Place(Change):
    """What is at fixed places.

    Attributes:
        hot: other places that the target looks at, which are no control for these.
    """

    kind = "place"
    local = True
    places: tuple[Box, ...]
    hot: tuple[Box, ...] = ()

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        result = images.copy()
        for box in self.places:
            result[(slice(None), *box.pixels)] = sources[(slice(None), *box.pixels)]
        return result

    def painted(self, images: np.ndarray) -> np.ndarray:
        result = images.copy()
        for box in self.places:
            result[(slice(None), *box.pixels)] = surroundings(images, box)
        return result

    def elsewhere(self, size: tuple[int, int]) -> list[Change]:
        """At the mirrored places, as far from the middle; where these are the same, at one drawn by lot."""
        height, width = size
        mirrors: tuple[Callable[[Box], Box], ...] = (
            lambda box: Box(box.y, width - box.x - box.width, box.height, box.width),
            lambda box: Box(height - box.y - box.height, box.x, box.height, box.width),
            lambda box: Box(height - box.y - box.height, width - box.x - box.width, box.height, box.width),
        )
        found = [tuple(mirror(box) for box in self.places) for mirror in mirrors]
        taken = (*self.places, *self.hot)
        apart = [boxes for boxes in found if not any(box.shared(own) for box in boxes for own in taken)]
        if not apart:
            apart = [tuple(self._drawn(box, size) for box in self.places)]
        return [Place(boxes) for boxes in dict.fromkeys(apart)]

    def _drawn(self, box: Box, size: tuple[int, int]) -> Box:
        """The box of this size, of some drawn by lot, that shares least with the places."""
        height, width = size
        tries = []
        for number in range(16):
            lot = rank_of(f"{box} {number}")
            y, x = lot % (height - box.height + 1), lot // 2**32 % (width - box.width + 1)
            tries.append(Box(y, x, box.height, box.width))
        return min(tries, key=lambda drawn: sum(drawn.shared(own) for own in (*self.places, *self.hot)))


def surroundings(images: np.ndarray, box: Box) -> np.ndarray:
    """What (n, box.height, box.width, channel) would be there if the pixels around the box went on inside.

    Each pixel is the mean of the nearest ones above, below, left and right of the box, those weighing more
    that are nearer.
    """
    _, height, width, _ = images.shape
    rows, columns = box.pixels
    total = np.zeros((len(images), box.height, box.width, images.shape[3]))
    weights = np.zeros((box.height, box.width, 1))
    down = (np.arange(box.height) + 1)[:, None, None]
    across = (np.arange(box.width) + 1)[None, :, None]
    sides = (
        (box.y > 0, lambda: images[:, box.y - 1, None, columns], down),
        (rows.stop < height, lambda: images[:, rows.stop, None, columns], box.height + 1 - down),
        (box.x > 0, lambda: images[:, rows, box.x - 1, None], across),
        (columns.stop < width, lambda: images[:, rows, columns.stop, None], box.width + 1 - across),
    )
    for inside, edge, distance in sides:
        if inside:
            weight = np.broadcast_to(1.0 / distance, weights.shape)
            total += weight * edge()
            weights += weight
    if not weights.any():  # the box is the whole image
        return images.mean(axis=(1, 2), keepdims=True, dtype=np.float64) + np.zeros_like(total)
    return total / weights


@dataclass(frozen=True)
class Moving(Change):
    """What is in a window that lies elsewhere in every image.

    Attributes:
        height, width: of the window.
        seen: for each source, in order and again from the first, where its window is.
    """

    kind = "moving"
    local = True
    height: int
    width: int
    seen: tuple[tuple[int, int], ...]

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        """Into windows drawn by lot, so that no place can be the reason."""
        result = images.copy()
        height, width = images.shape[1] - self.height + 1, images.shape[2] - self.width + 1
        for number, source in enumerate(sources):
            lot = rank_of(f"into {number}")
            rows, columns = self._window(lot % height, lot // 2**32 % width)
            result[number, rows, columns] = source[self._window(*self.seen[number % len(self.seen)])]
        return result

    def painted(self, images: np.ndarray) -> np.ndarray:
        result = images.copy()
        for number in range(len(images)):
            y, x = self.seen[number % len(self.seen)]
            box = Box(y, x, self.height, self.width)
            result[(number, *box.pixels)] = surroundings(images[number : number + 1], box)[0]
        return result

    def elsewhere(self, size: tuple[int, int]) -> list[Change]:
        """Windows of the same images drawn by lot."""
        height, width = size[0] - self.height + 1, size[1] - self.width + 1
        lots = [rank_of(f"from {number}") for number in range(len(self.seen))]
        drawn = tuple((lot % height, lot // 2**32 % width) for lot in lots)
        return [Moving(self.height, self.width, drawn)]

    def _window(self, y: int, x: int) -> tuple[slice, slice]:
        return slice(y, y + self.height), slice(x, x + self.width)


@dataclass(frozen=True)
class Colour(Change):
    """The cast: how the channels' means differ from the brightness, by what is added or by factors."""

    kind = "colour"
    by_factor: bool

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        into, of = limits.unit(images), limits.unit(sources)
        return limits.back(_cast(into, of, self.by_factor))

    def traits(self, images: np.ndarray, limits: Range) -> np.ndarray:
        means = limits.unit(images).mean(axis=(1, 2))
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
class Brightness(Change):
    """The mean, by what is added or by a factor."""

    kind = "brightness"
    by_factor: bool

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        into, of = limits.unit(images), limits.unit(sources)
        own, given = (unit.mean(axis=(1, 2, 3), keepdims=True) for unit in (into, of))
        if self.by_factor:
            return limits.back(into * ((given + SMALL) / (own + SMALL)).clip(*GAINS))
        return limits.back(into + given - own)

    def traits(self, images: np.ndarray, limits: Range) -> np.ndarray:
        return np.asarray(limits.unit(images).mean(axis=(1, 2, 3))[:, None])


@dataclass(frozen=True)
class Contrast(Change):
    """The spread of the values around their mean."""

    kind = "contrast"

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        into, of = limits.unit(images), limits.unit(sources)
        own, given = (unit.std(axis=(1, 2, 3), keepdims=True) + SMALL for unit in (into, of))
        mean = into.mean(axis=(1, 2, 3), keepdims=True)
        return limits.back(mean + (into - mean) * (given / own).clip(*GAINS))

    def traits(self, images: np.ndarray, limits: Range) -> np.ndarray:
        return np.asarray(np.log(limits.unit(images).std(axis=(1, 2, 3))[:, None] + SMALL))


BANDS = (0.12, 0.18, 0.25, 0.35, 0.5, 0.75)
"""Edges of the bands of spatial frequency, in cycles per pixel; below the first is the picture's content."""


@dataclass(frozen=True)
class Blur(Change):
    """How much of the fine detail is missing beside the coarse, band by band of spatial frequency."""

    kind = "blur"

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        own, given = spectrum(limits.unit(images)), spectrum(limits.unit(sources))
        before, after = (relative_bands(part) for part in (own, given))
        for band, gain in zip(bands(images.shape[1:3]), (after / before).T, strict=True):
            own[:, band] *= gain.clip(0, 1)[:, None, None]
        return limits.back(np.fft.ifft2(own, axes=(1, 2)).real)

    def traits(self, images: np.ndarray, limits: Range) -> np.ndarray:
        return np.asarray(np.log(relative_bands(spectrum(limits.unit(images)))).mean(axis=1, keepdims=True))


def bands(size: tuple[int, int]) -> list[np.ndarray]:
    """(height, width) bool each, the waves of every band that has any."""
    frequency = frequencies(size)
    found = [(frequency >= low) & (frequency < high) for low, high in pairwise(BANDS)]
    return [band for band in found if band.any()]


def relative_bands(waves: np.ndarray) -> np.ndarray:
    """(n, band) root mean square amplitude in each band, over that of all coarser waves but the mean."""
    frequency = frequencies(waves.shape[1:3])
    noise = SMALL * np.sqrt(frequency.size)

    def amplitude(band: np.ndarray) -> np.ndarray:
        return np.sqrt((np.abs(waves[:, band]) ** 2).mean(axis=(1, 2))) + noise

    coarse = amplitude((frequency > 0) & (frequency < BANDS[0]))
    return np.stack([amplitude(band) / coarse for band in bands(waves.shape[1:3])], axis=1)


@dataclass(frozen=True)
class Frequency(Change):
    """The few fine waves that sources have most more of: a regular pattern.

    Not all waves: these together are what a texture is.
    """

    kind = "frequency"

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        own, given = spectrum(limits.unit(images)), spectrum(limits.unit(sources))
        before, after = np.abs(own), np.abs(given)
        more = (after.mean(axis=(0, 3)) - before.mean(axis=(0, 3))) * self._fine(images)
        few = more >= np.sort(more, axis=None)[-max(FEW_WAVES, round(FEW * more.size))]
        few &= more > 0
        return limits.back(np.fft.ifft2(np.where(few[None, :, :, None], given, own), axes=(1, 2)).real)

    def traits(self, images: np.ndarray, limits: Range) -> np.ndarray:
        amplitude = np.abs(spectrum(limits.unit(images))).mean(axis=-1)
        return np.asarray(amplitude[:, self._fine(images)])

    def _fine(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(frequencies(images.shape[1:3]) >= BANDS[1])


FEW, FEW_WAVES = 0.01, 4
"""Of all waves, and at least; those of one grating come in pairs."""


def spectrum(unit: np.ndarray) -> np.ndarray:
    """The discrete Fourier transform over height and width of (n, height, width, channel)."""
    return np.asarray(np.fft.fft2(unit, axes=(1, 2)))


def frequencies(size: tuple[int, int]) -> np.ndarray:
    """(height, width), cycles per pixel of each wave of `spectrum`."""
    height, width = size
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])


@dataclass(frozen=True)
class Background(Change):
    """What lies behind the object, in images that have one, where image and source both show it."""

    kind = "background"

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        both = background(limits.unit(images)) & background(limits.unit(sources))
        return np.where(both[..., None], sources, images)

    def traits(self, images: np.ndarray, limits: Range) -> np.ndarray:
        unit = limits.unit(images)
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
    apart = np.abs(unit - median[:, None]).max(axis=-1) > reach[:, None, None]
    thing = np.asarray(_around(apart) > 0.5)
    share = thing.mean(axis=(1, 2))[:, None, None]
    return np.asarray((_around(thing) == 0) & (share > OBJECT[0]) & (share < OBJECT[1]))


def _around(mask: np.ndarray) -> np.ndarray:
    """(n, height, width), the mean of a mask over each pixel and its eight neighbours."""
    padded = np.pad(mask.astype(np.float64), ((0, 0), (1, 1), (1, 1)), mode="edge")
    lines = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((lines[:, :, :-2] + lines[:, :, 1:-1] + lines[:, :, 2:]) / 9)


CHANGES: dict[str, type[Change]] = {
    change.__name__: change
    for change in (
        Place,
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
