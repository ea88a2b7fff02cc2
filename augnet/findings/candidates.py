"""What may be leaned on, to be tried: where gradients or pixels stand out, and what is at no place at all.

These say where to look, and interventions what is so: candidates are many and cheap, and a wrong one costs
some forward passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from augnet.engine.batch import pool_to
from augnet.findings.interventions import Box, Change, Mark, Moving, Place
from augnet.findings.marks import place_of_mark
from augnet.findings.properties import (
    Background,
    Blur,
    Brightness,
    Colour,
    Contrast,
    Frequency,
)
from augnet.findings.windows import LARGEST, SIXTEENTHS, summed, window_shape, window_shapes, window_shares

SHOWING = 3
"""A property is looked for in a third of the images, those that show it most: others may lack it."""
FEWEST_SHOWING = 20
PLACES = 4
"""Candidates for a place of each target."""
OVERLAP = 0.5
"""Of two candidates, in shares of what they cover together: from here on they are one."""
EVEN = 0.25
"""Weight of an even share in what is expected: it keeps places that nobody looks at from standing out."""
HOT = 0.3
"""Of the hottest cell, from which on a cell is part of a hot region."""
REGIONS = 4
"""Hot regions that are looked at together, at most."""
STANDS_OUT = 2.0
"""Score from which on an output is said to look at a place, though nothing depends on it."""


@dataclass(frozen=True)
class Candidate:
    """A change that may make images one output's.

    Attributes:
        donors: numbers of the target's images that show it most, the clearest first; empty: not known yet.
        shares: the part of the sensitivity of each donor that lies there.
        score: how far it stands out among the targets' gradients; 0 where no gradient told of it.
    """

    change: Change
    donors: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    score: float = 0.0


def candidates_of(
    shares: Mapping[int, np.ndarray],
    greys: Mapping[int, tuple[np.ndarray, np.ndarray]],
    size: tuple[int, int],
    channels: int,
) -> dict[int, list[Candidate]]:
    """What to try for each target.

    Args:
        shares: target -> (n, rows, columns), where in each of its images its sensitivity lies, see
            `statistics.sample.Sampled`.
        greys: target -> its images (n, rows, columns) and those of others (m, rows, columns), see there.
        size: height and width of the images.
        channels: of the images.
    """
    # In the order of preference: what is blurred, or has a pattern, has another contrast too, and a pattern
    # lies in the background as well.
    everywhere: list[Change] = [Colour(False), Colour(True)] if channels > 1 else []
    everywhere += [Brightness(False), Brightness(True)]
    everywhere += [Blur(), Frequency(), Contrast(), Background()] if min(size) > 1 else [Contrast()]
    anywhere = [Candidate(change) for change in everywhere]
    places = find_places(shares, size)
    return {
        target: [*places[target], *marks(*greys[target], maps, size), *moving(maps, size), *anywhere]
        for target, maps in shares.items()
    }


def find_places(shares: Mapping[int, np.ndarray], size: tuple[int, int]) -> dict[int, list[Candidate]]:
    """The places of each target that stand out, and the hot regions of each together as one more.

    A place's score is the share of the target's sensitivity there, over the images that show it most, less
    the median of the other targets' shares there, in units of how these differ from each other.
    """
    if not shares:
        return {}
    targets = sorted(shares)
    scored: dict[int, list[tuple[float, Box]]] = {target: [] for target in targets}
    grid = shares[targets[0]].shape[1:]
    hot: dict[int, tuple[Box, ...]] = {}
    sums = {target: summed(maps) for target, maps in shares.items()}
    for shape in sorted({(1, 1), *window_shapes(grid)}):
        even = shape[0] * shape[1] / (grid[0] * grid[1])
        seen = np.stack([_shown_most(window_shares(sums[target], shape)) for target in targets])
        for number, target in enumerate(targets):
            others = np.delete(seen, number, axis=0) if len(seen) > 1 else np.full_like(seen, even)
            median = np.median(others, axis=0)
            spread = np.abs(others - median).mean(axis=0)
            score = (seen[number] - median) / (spread + EVEN * even + 0.02)
            if shape == (1, 1):
                regions = hot_regions(seen[number] - median)
                hot[target] = tuple(_in_pixels(*region, grid, size) for region in regions)
                continue
            best = np.unravel_index(score.argmax(), score.shape)
            box = _in_pixels(int(best[0]), int(best[1]), *shape, grid, size)
            scored[target].append((float(score[best]), box))
    return {target: _distinct(scored[target], hot[target], shares[target], size) for target in targets}


def hot_regions(excess: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Where a map (rows, columns) is hot: first row, first column, rows and columns of each region.

    Hot is what has at least HOT of the hottest cell; cells that touch, if only at a corner, are one region.
    The REGIONS that hold most come first.
    """
    hot = excess >= HOT * excess.max()
    found = []
    for start in zip(*np.nonzero(hot), strict=True):
        cells, waiting = [], [start] if hot[start] else []
        while waiting:
            y, x = waiting.pop()
            if 0 <= y < hot.shape[0] and 0 <= x < hot.shape[1] and hot[y, x]:
                hot[y, x] = False
                cells.append((y, x))
                waiting += [(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        if cells:
            rows, columns = np.array(cells).T
            mass = float(excess[rows, columns].sum())
            top, left = int(rows.min()), int(columns.min())
            found.append((mass, (top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1)))
    return [region for _, region in sorted(found, key=lambda entry: (-entry[0], entry[1]))[:REGIONS]]


def _distinct(
    scored: Sequence[tuple[float, Box]], hot: Sequence[Box], shares: np.ndarray, size: tuple[int, int]
) -> list[Candidate]:
    kept: list[tuple[float, tuple[Box, ...]]] = []
    for score, box in sorted(scored, key=lambda entry: (-entry[0], entry[1].area)):
        if all(_overlap(box, other[0]) < OVERLAP for _, other in kept):
            kept.append((score, (box,)))
    del kept[PLACES:]
    # Of a mark, often no more than a piece is hot: each is taken for part of something as thick as the best.
    best = kept[0][1][0]
    hot = [box.at_least(min(best.height, best.width), size) for box in hot]
    small = [box for box in hot if _is_small(box, size)]
    together = [_as_one(small[:count], size) for count in (1, 2, len(small)) if small]
    for boxes in dict.fromkeys(together):
        if all(boxes != other for _, other in kept):
            kept.append((kept[0][0], boxes))
    found = []
    for score, boxes in kept:
        held = _held(shares, boxes, size)
        donors = np.argsort(-held, kind="stable")[: shown_by(len(held))]
        shown = tuple(held[donors].tolist())
        found.append(Candidate(Place(boxes, tuple(hot)), tuple(donors.tolist()), shown, score))
    return found


def _as_one(boxes: Sequence[Box], size: tuple[int, int]) -> tuple[Box, ...]:
    """The boxes, or the small one that holds them all: gradients are patchy."""
    around = Box.around(boxes)
    return (around,) if _is_small(around, size) else tuple(boxes)


def _is_small(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box is about as small as the largest window: a larger one holds the object itself."""
    return box.area <= (LARGEST / 16) ** 2 * size[0] * size[1]


def _overlap(one: Box, other: Box) -> float:
    shared = one.shared(other)
    return shared / (one.area + other.area - shared)


def _held(shares: np.ndarray, boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """(n,), the part of each image's sensitivity in the boxes, had each as much as the one that has least."""
    cells = np.array(shares.shape[1:]) / size
    held = []
    for box in boxes:
        y, x = int(box.y * cells[0]), int(box.x * cells[1])
        bottom = max(y + 1, round((box.y + box.height) * cells[0]))
        right = max(x + 1, round((box.x + box.width) * cells[1]))
        held.append(shares[:, y:bottom, x:right].sum(axis=(1, 2), dtype=np.float64))
    total = shares.sum(axis=(1, 2), dtype=np.float64)
    return np.asarray(len(held) * np.min(held, axis=0) / total)


def marks(own: np.ndarray, others: np.ndarray, shares: np.ndarray, size: tuple[int, int]) -> list[Candidate]:
    """The place of a mark over a target's images, from those that show it most; none where there is none."""
    window = place_of_mark(own, others)
    if window is None:
        return []
    row, column, rows, columns = window
    box = _in_pixels(row, column, rows, columns, own.shape[1:], size)
    inside = slice(None), slice(row, row + rows), slice(column, column + columns)
    donors = clearest(*(images[inside].reshape(len(images), -1) for images in (own, others)))
    held = _held(shares, [box], size)
    return [Candidate(Mark((box,)), donors, tuple(held[list(donors)].tolist()))]


def clearest(own: np.ndarray, others: np.ndarray) -> tuple[int, ...]:
    """Those of the target's images that show most of what tells them from others, by traits (n, m), (k, m).

    An image whose traits are NaN can show nothing.
    """
    able = [np.isfinite(traits).all(axis=1) for traits in (own, others)]
    if not all(map(np.any, able)):
        return ()
    have, lack = (traits[k].astype(np.float64) for traits, k in zip((own, others), able, strict=True))
    spread = have.std(axis=0) + lack.std(axis=0)
    apart = (have.mean(axis=0) - lack.mean(axis=0)) / np.where(spread > 0, spread, 1) ** 2
    score = np.where(able[0], own @ apart, -np.inf)
    return tuple(np.argsort(-score, kind="stable")[: shown_by(int(able[0].sum()))].tolist())


def shown_by(count: int) -> int:
    """How many of so many images count as those that show a property most."""
    return min(count, max(FEWEST_SHOWING, count // SHOWING))


def _shown_most(windows: np.ndarray) -> np.ndarray:
    """(...), the mean over the images (n, ...) that show each window most."""
    third = shown_by(len(windows))
    return np.asarray(np.partition(windows, len(windows) - third, axis=0)[-third:].mean(axis=0))


def moving(shares: np.ndarray, size: tuple[int, int]) -> list[Candidate]:
    """Windows of two sizes around the hottest part of each image, from the images where it is hottest."""
    found = []
    grid, sums = shares.shape[1:], summed(shares)
    for sixteenths in SIXTEENTHS[1::2]:
        shape = window_shape(sixteenths, grid)
        windows = window_shares(sums, shape)
        flat = windows.reshape(len(windows), -1)
        donors = np.argsort(-flat.max(axis=1), kind="stable")[: shown_by(len(flat))]
        boxes = [
            _in_pixels(int(y), int(x), *shape, grid, size)
            for y, x in zip(*np.unravel_index(flat[donors].argmax(axis=1), windows.shape[1:]), strict=True)
        ]
        seen = tuple((box.y, box.x) for box in boxes)
        change = Moving(boxes[0].height, boxes[0].width, seen)
        shown = tuple(flat[donors].max(axis=1).tolist())
        found.append(Candidate(change, tuple(donors.tolist()), shown))
    return found


def _in_pixels(
    row: int, column: int, rows: int, columns: int, grid: tuple[int, ...], size: tuple[int, int]
) -> Box:
    """The window as pixels of an image of (height, width)."""
    pool = pool_to(max(grid), *size)
    y, x = row * pool, column * pool
    bottom, right = min(size[0], y + rows * pool), min(size[1], x + columns * pool)
    return Box(y, x, bottom - y, right - x)
