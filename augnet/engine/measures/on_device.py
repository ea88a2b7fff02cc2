"""What is measured of a batch's Jacobian on the device, so that only small results are copied."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from keras import ops

from augnet.engine.backends import backend
from augnet.engine.batch import RESOLUTION, pool_to
from augnet.engine.measures.blocks import fitting, joined
from augnet.engine.selection import taken
from augnet.engine.types import Tensor

FUSED_IMAGES = 8
"""Images that one program takes in, reading each once: more gain little and compile longer."""
ATTRIBUTION_CELLS = 64
"""Along a side of a map of attributions, at most: one pixel each up to images of this size."""


def pooled(images: Tensor, pool: int) -> tuple[Tensor, Tensor]:
    """Blocks of pool x pool pixels.

    Args:
        images: (..., height, width, channel).

    Returns:
        blocks (..., ceil(height / pool), pool, ceil(width / pool), pool, channel), zero beyond the edge, and
        the number of real pixels in each, (ceil(height / pool), ceil(width / pool), 1).
    """
    *lead, height, width, channel = images.shape
    rows, columns = math.ceil(height / pool), math.ceil(width / pool)
    pad = [(0, 0)] * len(lead) + [(0, rows * pool - height), (0, columns * pool - width), (0, 0)]
    if any(after for _, after in pad):
        images = ops.pad(images, pad)
    blocks = ops.reshape(images, (*lead, rows, pool, columns, pool, channel))
    sizes = [
        [[min(pool, height - y * pool) * min(pool, width - x * pool)] for x in range(columns)]
        for y in range(rows)
    ]
    return blocks, ops.convert_to_tensor(sizes, dtype=images.dtype)


def _over_blocks(reduce: Callable[..., Tensor], blocks: Tensor) -> Tensor:
    """The reduction of every block (..., rows, pool, columns, pool, channel): its lines, then its columns."""
    _, pool, columns, _, channel = blocks.shape[-5:]
    lines = reduce(ops.reshape(blocks, (-1, pool, columns * pool * channel)), axis=1)
    return _over_columns(reduce, lines, blocks.shape)


def _over_columns(reduce: Callable[..., Tensor], lines: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The reduction of blocks of this shape, of what their lines were reduced to."""
    *lead, rows, pool, columns, _, channel = shape
    made = reduce(ops.reshape(lines, (-1, pool, channel)), axis=1)
    return ops.reshape(made, (*lead, rows, columns, channel))


def nearest_rival(gram: Tensor, scores: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """The row whose boundary with the predicted one is nearest, by |f_i - f_r| / ||J_i - J_r||.

    Args:
        gram: (batch, R, R) float64.
        scores: (batch, R), the output of each row.
        place: (batch,) int32, of row i.

    Returns:
        its position (batch,) int32, the first of equals, and whether there is one, (batch,) bool.
    """
    count = gram.shape[1]
    scores = ops.cast(scores, gram.dtype)
    at = place[:, None]
    squared = ops.diagonal(gram, axis1=1, axis2=2)
    both = backend.elements_at(squared, at) + squared
    apart = both - 2.0 * taken(ops.reshape(gram, (-1, count)), place)
    gap = ops.absolute(backend.elements_at(scores, at) - scores)
    usable = ops.logical_and(apart > RESOLUTION * both, ops.arange(count, dtype="int32") != at)
    distance = ops.where(usable, gap / ops.sqrt(ops.where(usable, apart, 1.0)), math.inf)
    return ops.cast(ops.argmin(distance, axis=1), "int32"), ops.any(usable, axis=1)


def of_two_rows(own: Tensor, rival: Tensor, images: Tensor, pool: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of predicted rows and rivals: magnitude (batch, height, width) float32, <x, J_i> (batch,) float64,
    and `views`.

    Args:
        own, rival: (batch, height, width, channel).
        images: the same.
        pool: of the views.
    """
    magnitude = ops.cast(ops.sqrt(ops.sum(ops.square(own), axis=-1)), "float32")
    dot = ops.sum(ops.cast(own, "float64") * ops.cast(images, "float64"), axis=(1, 2, 3))
    return magnitude, dot, views(own, rival, pool)


def views(own: Tensor, rival: Tensor, pool: int) -> Tensor:
    """See `engine.batch.VIEWS`: (batch, view, h, w) float32 of rows (batch, height, width, channel)."""
    summed = [ops.sum(row, axis=-1) for row in (own, rival)]
    norms = [ops.sqrt(ops.sum(ops.square(row), axis=-1)) for row in (own, rival, own - rival)]
    stacked = ops.cast(ops.stack([*summed, *norms], axis=-1), "float32")
    return ops.transpose(block_means(stacked, pool), (0, 3, 1, 2))


def block_means(images: Tensor, pool: int) -> Tensor:
    """Means (..., ceil(height / pool), ceil(width / pool), channel) over blocks of pixels."""
    if pool == 1:
        return images
    blocks, sizes = pooled(images, pool)
    return _over_blocks(ops.sum, blocks) / sizes


def block_moments(rows: Tensor, pool: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, variance inside the block, mean magnitude and largest magnitude over blocks of pixels.

    Args:
        rows: (..., height, width, channel).

    Returns:
        four tensors (..., ceil(height / pool), ceil(width / pool), channel); the variance is 0.0 with pool 1.
    """
    if pool == 1:
        return rows, 0.0, ops.absolute(rows), ops.absolute(rows)
    blocks, sizes = pooled(rows, pool)
    width, _, channel = blocks.shape[-3:]
    lines = ops.reshape(blocks, (-1, pool, width * pool * channel))
    over_columns = partial(_over_columns, shape=blocks.shape)

    total, magnitudes, largest = backend.fused(_of_lines)(lines)
    mean = over_columns(ops.sum, total) / sizes
    centre = ops.repeat(ops.reshape(mean, (-1, width, 1, channel)), pool, axis=2)
    squares = backend.fused(_squares)(lines, ops.reshape(centre, (-1, lines.shape[2])))
    beyond = pool**2 - sizes  # zeros behind the edge, which are the mean apart
    spread = ops.maximum(over_columns(ops.sum, squares) - beyond * ops.square(mean), 0.0) / sizes
    return mean, spread, over_columns(ops.sum, magnitudes) / sizes, over_columns(ops.max, largest)


def _of_lines(lines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums (n, width) over the lines (n, line, width) of blocks, of magnitudes too, and the largest."""
    magnitude = ops.absolute(lines)
    return ops.sum(lines, axis=1), ops.sum(magnitude, axis=1), ops.max(magnitude, axis=1)


def _squares(lines: Tensor, centre: Tensor) -> Tensor:
    """Sums (n, width) over lines (n, line, width) of squared deviations from (n, width)."""
    return ops.sum(ops.square(lines - centre[:, None]), axis=1)


def moments_over_batch(
    rows: Tensor, weight: Tensor, finite: Tensor, pool: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Moments of each row's map over the images of the batch.

    Args:
        rows: (batch, R, height, width, channel).
        weight: (batch, R), 1 for a row that counts, 0 for rows that are not finite, and for padding, which
            repeats an image.
        finite: (batch, R) bool.

    Returns:
        mean, m2, mean_abs, max_abs, each (R, h, w, channel) of the rows' type.
    """
    batch, count = rows.shape[:2]
    # The rare rows that are not finite would spoil the sums of the others; the copy is made only then.
    column = ops.reshape(weight, (batch, count, 1, 1, 1))
    rows = ops.cond(ops.all(finite), lambda: rows, lambda: ops.where(column > 0, rows, 0))
    images = ops.max(weight, axis=1)
    totals = ops.reshape(ops.sum(weight, axis=0), (count, 1, 1, 1))
    zeros = ops.sum(images) - totals  # a row that was set to zero takes part as one

    def some_outputs(start: Tensor, length: int) -> tuple[Tensor, ...]:
        part = ops.slice(rows, (0, start, 0, 0, 0), (batch, length, *rows.shape[2:]))
        mean, spread, mean_abs, max_abs = block_moments(part, pool)

        def summed_up(values: Tensor) -> Tensor:
            flat = ops.reshape(values, (batch, -1))
            return ops.reshape(ops.matmul(images[None], flat), values.shape[1:])

        apart = mean - mean[:1]
        squares = summed_up(ops.square(apart) + spread)
        return mean[0], summed_up(apart), squares, summed_up(mean_abs), ops.max(max_abs, axis=0)

    fit = fitting(count, batch * math.prod(rows.shape[2:]))
    sums = _sums(rows, images) if pool == 1 else joined(some_outputs, count, fit)
    return backend.fused(_moments)(totals, zeros, *sums)


def _moments(
    totals: Tensor,
    zeros: Tensor,
    shift: Tensor,
    total: Tensor,
    squares: Tensor,
    magnitudes: Tensor,
    largest: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `_sums` gives as moments, as many of the rows summed being zeros that do not count."""
    total, squares = total + zeros * shift, squares - zeros * ops.square(shift)
    totals = ops.maximum(totals, 1.0)
    m2 = ops.maximum(squares - ops.square(total) / totals, 0.0)
    return shift + total / totals, m2, magnitudes / totals, largest


def _sums(rows: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """Over the images: the first one's rows, sums of deviations from them, of their squares and of
    magnitudes, and the largest magnitude. A deviation from one of them loses no digits, and takes one pass.

    Args:
        rows: (batch, R, height, width, channel).
        weights: (batch,).
    """

    def add(some: Tensor, weights: Tensor, shift: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
        total, squares, magnitudes, largest = sums
        for image, weight in zip(ops.unstack(some), ops.unstack(weights), strict=True):
            apart, magnitude = image - shift, ops.absolute(image)
            total = total + weight * apart
            squares = squares + weight * ops.square(apart)
            magnitudes = magnitudes + weight * magnitude
            largest = ops.maximum(largest, magnitude)
        return total, squares, magnitudes, largest

    flat = ops.reshape(rows, (rows.shape[0], -1))  # a loop over one axis is faster than one over four
    batch, size = flat.shape
    program = backend.fused(add)

    def add_some(first: Tensor, count: int, sums: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        some = ops.slice(flat, (first, 0), (count, size)), ops.slice(weights, (first,), (count,))
        return program(*some, flat[0], *sums)

    sums = (ops.zeros_like(flat[0]),) * 4
    fused = min(batch, FUSED_IMAGES)
    if batch // fused > 1:  # a loop in the program, which is traced once
        sums = ops.fori_loop(0, batch // fused, lambda step, sums: add_some(step * fused, fused, sums), sums)
    else:
        sums = add_some(0, fused, sums)
    if rest := batch % fused:
        sums = add_some(batch - rest, rest, sums)
    return tuple(ops.reshape(part, rows.shape[1:]) for part in (flat[0], *sums))


def moments_by_group(rows: Tensor, group: Tensor, groups: int, pool: int) -> tuple[Tensor, ...]:
    """Moments of maps gathered by group.

    Args:
        rows: (n, height, width, channel).
        group: (n,) int32; -1 is left out.
        groups: their number.

    Returns:
        mean, m2, mean_abs, max_abs, each (groups, h, w, channel) of the rows' type; zero for an empty group.
    """
    mean, spread, mean_abs, max_abs = (ops.cast(part, "float64") for part in block_moments(rows, pool))
    group = ops.where(group < 0, groups, group)  # one group more, thrown away: not every backend drops -1

    def total(values: Tensor) -> Tensor:
        return ops.segment_sum(values, group, num_segments=groups + 1)

    count = ops.reshape(ops.maximum(total(ops.ones_like(group, dtype="float64")), 1.0), (-1, 1, 1, 1))
    centre = total(mean) / count
    m2 = total(ops.square(mean - ops.take(centre, group, axis=0)) + spread)
    largest = ops.maximum(ops.segment_max(max_abs, group, num_segments=groups + 1), 0.0)
    found = (centre, m2, total(mean_abs) / count, largest)
    return tuple(ops.cast(part[:groups], rows.dtype) for part in found)


def attributions(rows: Tensor, images: Tensor) -> Tensor:
    """Maps (batch, A, height, width) of |row x (image - its mean)|, over blocks of pixels of large images.

    To first order it is what the pixels' differences from the image's mean colour add to the row's output.

    Args:
        rows: (batch, A, height, width, channel).
        images: (batch, height, width, channel).
    """
    contrast = images - ops.mean(images, axis=(1, 2), keepdims=True)
    added = ops.square(rows * ops.cast(contrast, rows.dtype)[:, None])
    maps = ops.sqrt(ops.sum(added, axis=-1, keepdims=True))
    pool = pool_to(ATTRIBUTION_CELLS, *images.shape[1:3])
    return ops.cast(block_means(maps, pool)[..., 0], "float32")


def stored_rows(rows: Tensor, channels: str, pool: int, dtype: str) -> Tensor:
    """Rows (..., height, width, channel) as stored: channels reduced, then blocks of pixels, then dtype."""
    if channels == "l2":
        rows = ops.sqrt(ops.sum(ops.square(rows), axis=-1, keepdims=True))
    elif channels == "sum":
        rows = ops.sum(rows, axis=-1, keepdims=True)
    return ops.cast(block_means(rows, pool), dtype)
