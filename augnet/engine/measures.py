"""What is measured of a batch's Jacobian on the device, so that only small results are copied."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

BLOCK_BYTES = 32 * 1024**2
"""Size of one float64 block of rows while G is summed: out of cache, but small beside the rows."""


def products(rows: Any, predicted: Any) -> tuple[Any, Any]:
    """G = J J^T and the 1-norms of J_i - J_r, summed in float64 over blocks of inputs.

    Args:
        rows: (batch, R, inputs).
        predicted: (batch,) int32, position of row i.

    Returns:
        gram (batch, R, R) float64, l1_from_predicted (batch, R) float64.
    """
    batch, count, size = rows.shape
    width = max(1, min(size, BLOCK_BYTES // (8 * batch * count)))
    steps = size // width

    def block(start: Any, length: int) -> tuple[Any, Any]:
        part = ops.slice(rows, (0, 0, start), (batch, count, length))
        flat = ops.reshape(part, (batch * count, length))
        own = ops.take(flat, ops.arange(batch, dtype="int32") * count + predicted, axis=0)
        wide = ops.cast(part, "float64")
        gram = ops.matmul(wide, ops.transpose(wide, (0, 2, 1)))
        return gram, ops.cast(ops.sum(ops.absolute(part - own[:, None, :]), axis=-1), "float64")

    if steps == 1:
        gram, l1 = block(0, width)
    else:

        def step(i: Any, sums: tuple[Any, Any]) -> tuple[Any, Any]:
            gram, l1 = block(i * width, width)
            return sums[0] + gram, sums[1] + l1

        zeros = (ops.zeros((batch, count, count), "float64"), ops.zeros((batch, count), "float64"))
        gram, l1 = ops.fori_loop(0, steps, step, zeros)
    if size % width:
        more = block(steps * width, size % width)
        gram, l1 = gram + more[0], l1 + more[1]
    return gram, l1


def pooled(images: Any, pool: int) -> tuple[Any, Any]:
    """Blocks of pool x pool pixels.

    Args:
        images: (..., height, width, channel).

    Returns:
        blocks (..., ceil(height / pool), pool, ceil(width / pool), pool, channel), zero beyond the edge, and
        the weights that make their sum a mean over real pixels, (ceil(height / pool), 1, ceil(width / pool),
        1, 1).
    """
    *lead, height, width, channel = images.shape
    rows, columns = math.ceil(height / pool), math.ceil(width / pool)
    pad = [(0, 0)] * len(lead) + [(0, rows * pool - height), (0, columns * pool - width), (0, 0)]
    if any(after for _, after in pad):
        images = ops.pad(images, pad)
    blocks = ops.reshape(images, (*lead, rows, pool, columns, pool, channel))
    sizes = [
        [min(pool, height - y * pool) * min(pool, width - x * pool) for x in range(columns)]
        for y in range(rows)
    ]
    weights = ops.convert_to_tensor([[1 / size for size in line] for line in sizes], dtype=images.dtype)
    return blocks, ops.reshape(weights, (rows, 1, columns, 1, 1))


def block_means(images: Any, pool: int) -> Any:
    """Means (..., ceil(height / pool), ceil(width / pool), channel) over blocks of pixels."""
    if pool == 1:
        return images
    blocks, weights = pooled(images, pool)
    return ops.sum(blocks * weights, axis=(-4, -2))


def block_moments(rows: Any, pool: int) -> tuple[Any, Any, Any, Any]:
    """Mean, variance inside the block, mean magnitude and largest magnitude over blocks of pixels.

    Args:
        rows: (..., height, width, channel).

    Returns:
        four tensors (..., ceil(height / pool), ceil(width / pool), channel); the variance is 0.0 with pool 1.
    """
    if pool == 1:
        return rows, 0.0, ops.absolute(rows), ops.absolute(rows)
    blocks, weights = pooled(rows, pool)
    inside, _ = pooled(ops.ones_like(rows[..., :1]), pool)
    axes = (-4, -2)
    mean = ops.sum(blocks * weights, axis=axes, keepdims=True)
    spread = ops.sum(ops.square((blocks - mean) * inside) * weights, axis=axes)
    size = ops.absolute(blocks)
    mean = ops.squeeze(mean, axis=axes)
    return mean, spread, ops.sum(size * weights, axis=axes), ops.max(size, axis=axes)


def moments_over_batch(rows: Any, weight: Any, finite: Any, pool: int) -> tuple[Any, Any, Any, Any]:
    """Moments of each row's map over the images of the batch.

    Args:
        rows: (batch, R, height, width, channel).
        weight: (batch, R), 1 for a row that counts, 0 for padding and for rows that are not finite.
        finite: (batch, R) bool.

    Returns:
        mean, m2, mean_abs, max_abs, each (R, h, w, channel) float64.
    """
    batch, count = weight.shape
    # The rare rows that are not finite would spoil the sums of the others; the copy is made only then.
    column = ops.reshape(weight, (batch, count, 1, 1, 1))
    rows = ops.cond(ops.all(finite), lambda: rows, lambda: ops.where(column > 0, rows, 0))
    mean, spread, mean_abs, max_abs = block_moments(rows, pool)
    shape = mean.shape[1:]
    share = weight / ops.maximum(ops.sum(weight, axis=0), 1.0)

    def average(values: Any) -> Any:
        """Over the images: a matrix product for each row, which is one pass over the values."""
        turned = ops.reshape(values, (batch, count, -1))
        return ops.reshape(ops.einsum("br,brd->rd", share, turned), shape)

    centre = average(mean)
    total = ops.reshape(ops.sum(weight, axis=0), (count, 1, 1, 1))
    m2 = average(ops.square(mean - centre) + spread) * total
    made = centre, m2, average(mean_abs), ops.max(max_abs * column, axis=0)
    centre, m2, mean_abs, max_abs = (ops.cast(tensor, "float64") for tensor in made)
    return centre, m2, mean_abs, max_abs


def moments_by_group(rows: Any, group: Any, groups: int, pool: int) -> tuple[Any, Any, Any, Any]:
    """Moments of maps gathered by group.

    Args:
        rows: (n, height, width, channel).
        group: (n,) int32; -1 is left out.
        groups: their number.

    Returns:
        mean, m2, mean_abs, max_abs, each (groups, h, w, channel) float64; zero for an empty group.
    """
    mean, spread, mean_abs, max_abs = (ops.cast(part, "float64") for part in block_moments(rows, pool))
    group = ops.where(group < 0, groups, group)  # one group more, thrown away: not every backend drops -1

    def total(values: Any) -> Any:
        return ops.segment_sum(values, group, num_segments=groups + 1)

    count = ops.reshape(ops.maximum(total(ops.ones_like(group, dtype="float64")), 1.0), (-1, 1, 1, 1))
    centre = total(mean) / count
    m2 = total(ops.square(mean - ops.take(centre, group, axis=0)) + spread)
    largest = ops.maximum(ops.segment_max(max_abs, group, num_segments=groups + 1), 0.0)
    return centre[:groups], m2[:groups], (total(mean_abs) / count)[:groups], largest[:groups]


def stored_rows(rows: Any, channels: str, pool: int, dtype: str) -> Any:
    """Rows (..., height, width, channel) as stored: channels reduced, then blocks of pixels, then dtype."""
    if channels == "l2":
        rows = ops.sqrt(ops.sum(ops.square(rows), axis=-1, keepdims=True))
    elif channels == "sum":
        rows = ops.sum(rows, axis=-1, keepdims=True)
    return ops.cast(block_means(rows, pool), dtype)
