"""Ways to put one property of some images into others, and what leaves all else alike to compare it with.

Each is a `Change`: `put` gives every image its source's property, and `elsewhere` lists changes that do as
much to an image without that property, its matched controls. Images are (n, height, width, channel) of the
model's own input, and `Range` says what values they may take.

Those of the whole image are in `properties`. A new kind of finding is a class and its line in
`candidates.candidates_of`:

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import cycle
from typing import ClassVar

import numpy as np

from augnet.statistics.sample import rank_of


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels of the model input."""

    y: int
    x: int
    height: int
    width: int

    @classmethod
    def around(cls, boxes: Sequence[Box]) -> Box:
        """The smallest box that holds all of these."""
        y, x = min(box.y for box in boxes), min(box.x for box in boxes)
        bottom = max(box.y + box.height for box in boxes)
        right = max(box.x + box.width for box in boxes)
        return cls(y, x, bottom - y, right - x)

    @property
    def area(self) -> int:
        """In pixels."""
        return self.height * self.width

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def at_least(self, side: int, size: tuple[int, int]) -> Box:
        """The box, grown around its middle where a side is shorter, inside an image of (height, width)."""
        height, width = max(self.height, side), max(self.width, side)
        y = min(max(0, self.y + self.height // 2 - height // 2), size[0] - height)
        x = min(max(0, self.x + self.width // 2 - width // 2), size[1] - width)
        return Box(y, x, height, width)

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
        """The images with their values in [0, 1], float32."""
        span = np.where(self.high > self.low, self.high - self.low, 1)
        # As rows of pixels: NumPy takes five times as long for axes as short as the channels'.
        low, span = (np.tile(part, (images.shape[2], 1)).astype(np.float32) for part in (self.low, span))
        unit = images - low
        unit /= span
        return unit

    def back(self, unit: np.ndarray) -> np.ndarray:
        """Images of values in [0, 1], cut to those; float32."""
        return (unit.clip(0, 1) * (self.high - self.low) + self.low).astype(np.float32)


class Change(ABC):
    """One property that images can get from others.

    Attributes:
        kind: of finding, see docs/FINDINGS.md.
        local: whether it is one of some pixels, and not a `Property` of the whole image.
        both_ways: whether it is also asked what taking it from images does.
        by_nature: times the smallest effect that counts, which it must have: what classes differ in by nature
            has more.
    """

    kind: ClassVar[str]
    local: ClassVar[bool] = False
    both_ways: ClassVar[bool] = False
    by_nature: ClassVar[float] = 1.0
    places: tuple[Box, ...] = ()

    @abstractmethod
    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        """The images, each with the property of its source; both (n, height, width, channel)."""

    def take(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        """The images, each without the property, as its source is; of a change that is asked both ways."""
        return self.put(images, sources, limits)

    def after(self, pairs: int) -> Change:
        """The change of the images and sources that follow the first so many."""
        return self

    def least(self, min_effect: float, size: tuple[int, int]) -> float:
        """The effect from which on it is a finding, in images of (height, width)."""
        return self.by_nature * min_effect

    def painted(self, images: np.ndarray) -> np.ndarray:
        """The images with their parts painted over from the edges; of a local change asked both ways."""
        raise NotImplementedError

    def elsewhere(self, size: tuple[int, int]) -> list[Change]:
        """The same change of other parts of an image of (height, width); none for one of the whole image."""
        return []


LARGE, LARGE_BY_NATURE = 0.05, 1.2
"""Part of the image from which on places hold parts of objects, and the `Change.by_nature` of such."""


@dataclass(frozen=True)
class Place(Change):
    """What is at fixed places.

    Attributes:
        hot: other places that the target looks at, which are no control for these.
    """

    kind = "place"
    local = True
    both_ways = True
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

    def least(self, min_effect: float, size: tuple[int, int]) -> float:
        """More where it is large enough to hold a part of an object."""
        large = sum(box.area for box in self.places) > LARGE * size[0] * size[1]
        return (LARGE_BY_NATURE if large else self.by_nature) * min_effect

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
            apart = [tuple(drawn(box, taken, size) for box in self.places)]
        return [Place(boxes) for boxes in dict.fromkeys(apart)]


@dataclass(frozen=True)
class Mark(Place):
    """What was laid over images at one place; it is put into others with what shows through it.

    To take it away would take what lies under it too, which an image may need: that is not asked.
    """

    both_ways = False


@lru_cache(1024)
def drawn(box: Box, taken: tuple[Box, ...], size: tuple[int, int], seed: int = 0) -> Box:
    """Of some boxes as large as this one, drawn by lot, the one that shares least with those taken."""
    height, width = size
    tries = []
    for number in range(16 * seed, 16 * (seed + 1)):
        lot = rank_of(f"{box} {number}")
        y, x = lot % (height - box.height + 1), lot // 2**32 % (width - box.width + 1)
        tries.append(Box(y, x, box.height, box.width))
    return min(tries, key=lambda one: sum(one.shared(other) for other in taken))


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
    both_ways = True
    height: int
    width: int
    seen: tuple[tuple[int, int], ...]

    def put(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        """Into windows drawn by lot, so that no place can be the reason."""
        result = images.copy()
        height, width = images.shape[1] - self.height + 1, images.shape[2] - self.width + 1
        for number, (source, box) in enumerate(zip(sources, self._seen(), strict=False)):
            lot = rank_of(f"into {number}")
            rows, columns = self._window(lot % height, lot // 2**32 % width).pixels
            result[number, rows, columns] = source[box.pixels]
        return result

    def take(self, images: np.ndarray, sources: np.ndarray, limits: Range) -> np.ndarray:
        result = images.copy()
        for image, source, box in zip(result, sources, self._seen(), strict=False):
            image[box.pixels] = source[box.pixels]
        return result

    def painted(self, images: np.ndarray) -> np.ndarray:
        result = images.copy()
        for number, box in zip(range(len(images)), self._seen(), strict=False):
            result[(number, *box.pixels)] = surroundings(images[number, None], box)[0]
        return result

    def after(self, pairs: int) -> Change:
        first = pairs % len(self.seen)
        return replace(self, seen=self.seen[first:] + self.seen[:first])

    def elsewhere(self, size: tuple[int, int]) -> list[Change]:
        """Other windows of the same images, drawn by lot."""
        boxes = [self._window(y, x) for y, x in self.seen]
        others = [drawn(box, (box,), size, number) for number, box in enumerate(boxes)]
        return [replace(self, seen=tuple((box.y, box.x) for box in others))]

    def _seen(self) -> Iterator[Box]:
        return cycle(self._window(y, x) for y, x in self.seen)

    def _window(self, y: int, x: int) -> Box:
        return Box(y, x, self.height, self.width)
