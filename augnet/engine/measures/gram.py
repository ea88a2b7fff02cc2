"""G = J J^T and the 1-norms of rows, a block of inputs at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from keras import ops

from augnet.engine.backends import backend
from augnet.engine.measures.blocks import fitting, joined, summed
from augnet.engine.selection import taken
from augnet.engine.types import Tensor

MANY = 128
"""From so many rows, and inputs, on G costs as much as its rows: half of it is computed, in float32."""
PARTS = 4
"""Parts of many rows: the tiles of G are products of two of them. More save little, and compile longer."""
FEW_PER_BLOCK = 16
"""Parts of a block that few rows are cut into: in float64 they stay in a core's own cache."""
NOISE = 4e-6
"""Of small eigenvalues of G of products in float32, in units of the rows' mean squared norm: 3e-7 for 1000
rows of MobileNetV2, at most 3e-6 for random rows of low rank (128 to 1000 of 128 to 150,000 inputs)."""
SMALLEST = 1e-35
"""Norm, or largest number, of a row below which it counts as zero: float32 does not hold the inverse."""


def products(
    rows: Tensor, predicted: Tensor | None, exact: bool = False, factors: tuple[Tensor, ...] = ()
) -> tuple[Tensor, Tensor]:
    """G = J J^T and the 1-norms of J_i - J_r, or of J_r alone, of a few images at a time.

    Products of few rows are those of float64, summed over blocks of inputs. Those of many are summed in
    float32 within a block, and in float64 over blocks: an entry of G is then wrong by less than 1e-6 of the
    product of the two norms, a squared distance between row i and another one by about as much of itself, and
    a small eigenvalue by less than `NOISE` of the mean squared norm.

    Args:
        rows: (batch, R, inputs).
        predicted: (batch,) int32, position of row i; None: the rows alone.
        exact: float64 for many rows too.
        factors: of the rows, (batch, R, width) and (batch, width, inputs), where such are known: G of many
            rows is then made of that of the second, which is less work.

    Returns:
        gram (batch, R, R) float64, l1 (batch, R) float64.
    """
    batch, count, size = rows.shape
    if factors and min(count, size) >= MANY:
        return _products_of_factors(rows, predicted, exact, *factors)
    if noise(count, size, exact):
        return _products_of_many(rows, predicted)
    parts = PARTS if min(count, size) >= MANY else 1
    images, width = batch, size
    if size >= count:  # else G is larger than what it is made of, and blocks of it would only be copied
        images = fitting(batch, FEW_PER_BLOCK * count * size)
        width = fitting(size, FEW_PER_BLOCK * images * count)

    def block(part: Tensor, own: Tensor) -> tuple[Tensor, ...]:
        lines, turned = _lines(ops.cast(part, "float64"), parts)
        return *_upper(lines, turned), _l1(part, own)

    *tiles, l1 = _over_blocks(block, rows, _own(rows, predicted), (images, width))
    return _of_tiles(tiles, parts), l1


def _products_of_factors(
    rows: Tensor, predicted: Tensor | None, exact: bool, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor]:
    """See `products`."""
    inner, _ = products(right, None, exact)
    inner = 0.5 * (inner + ops.transpose(inner, (0, 2, 1)))  # to the last digit, or G would be of higher rank
    left = ops.cast(left, "float64")
    gram = ops.matmul(ops.matmul(left, inner), ops.transpose(left, (0, 2, 1)))
    block = backend.fused(lambda part, own: (_l1(part, own),))
    return gram, *_over_blocks(block, rows, _own(rows, predicted))


def _over_blocks(
    function: Callable[..., tuple[Tensor, ...]],
    rows: Tensor,
    own: Tensor,
    sides: tuple[int, int] | None = None,
    of_rows: tuple[Tensor, ...] = (),
) -> tuple[Tensor, ...]:
    """What a function makes of blocks of rows: (batch, ...) float64 each, summed over the inputs.

    Args:
        function: a block (image, R, inputs), row i (image, inputs) and `of_rows` -> tensors (image, ...).
        rows: (batch, R, inputs).
        own: (batch, inputs), row i.
        sides: images and inputs of a block; None: as many as fit.
        of_rows: (batch, R) each.
    """
    batch, count, size = rows.shape
    images = fitting(batch, count * size)
    images, width = sides or (images, fitting(size, images * count))

    def some_images(start: Tensor, length: int) -> tuple[Tensor, ...]:
        given = [ops.slice(part, (start, 0), (length, count)) for part in of_rows]

        def some_inputs(first: Tensor, inputs: int) -> tuple[Tensor, ...]:
            part = ops.slice(rows, (start, 0, first), (length, count, inputs))
            base = ops.slice(own, (start, first), (length, inputs))
            return tuple(ops.cast(tensor, "float64") for tensor in function(part, base, *given))

        return summed(some_inputs, size, width)

    return joined(some_images, batch, images)


def noise(count: int, size: int, exact: bool) -> float:
    """NOISE of G of so many rows of so many inputs; 0.0 where its products are those of float64."""
    return 0.0 if exact or min(count, size) < MANY else NOISE


def _products_of_many(rows: Tensor, predicted: Tensor | None) -> tuple[Tensor, Tensor]:
    """See `products`.

    Rows are scaled, as squares of small gradients would vanish in float32. What a row has of row i is taken
    off before its products are made, and put back in float64: else the small distance between two long rows
    would be lost in rounding.
    """
    inverse, own = _inverse_scale(rows), _own(rows, predicted)
    weight = ops.zeros_like(inverse)
    if predicted is not None:
        finite = ops.all(ops.isfinite(own), axis=1, keepdims=True)
        own = ops.where(finite, own, 0.0)
        own_inverse = backend.elements_at(inverse, predicted[:, None])
        weight = own_inverse * _along(rows, predicted, inverse, own * own_inverse)
    fused = backend.fused(_prepared)

    def block(*given: Tensor) -> tuple[Tensor, ...]:
        lines, turned, l1 = fused(*given)
        return *_upper(lines, turned), l1

    *tiles, l1 = _over_blocks(block, rows, own, of_rows=(inverse, weight))
    gram = _of_tiles(tiles, PARTS)
    if predicted is not None:
        along = ops.cast(weight, "float64") / ops.cast(own_inverse, "float64")
        gram = _put_back(gram, along, predicted)
    scale = 1.0 / ops.cast(inverse, "float64")
    return gram * scale[:, :, None] * scale[:, None, :], l1


def _own(rows: Tensor, predicted: Tensor | None) -> Tensor:
    """Row i of each image, (batch, inputs); zeros where there is none."""
    if predicted is None:
        return ops.zeros((rows.shape[0], rows.shape[2]), rows.dtype)
    return taken(ops.reshape(rows, (-1, rows.shape[2])), predicted)


def _l1(part: Tensor, own: Tensor) -> Tensor:
    """1-norms (image, R) of J_i - J_r, of a block (image, R, inputs) and row i (image, inputs)."""
    return ops.sum(ops.absolute(part - own[:, None, :]), axis=-1)


def _inverse_scale(rows: Tensor) -> Tensor:
    """(batch, R): one over the largest magnitude of each row, and 1 for one that is zero or not finite."""
    largest = ops.maximum(ops.max(rows, axis=-1), -ops.min(rows, axis=-1))  # no copy of the magnitudes
    usable = ops.logical_and(ops.isfinite(largest), largest > SMALLEST)
    return ops.where(usable, 1.0 / ops.where(usable, largest, 1.0), 1.0)


def _along(rows: Tensor, predicted: Tensor, inverse: Tensor, own: Tensor) -> Tensor:
    """How much of row i, scaled (batch, inputs), each scaled row has: (batch, R); 0 for itself."""
    squared = ops.sum(ops.square(own), axis=-1, keepdims=True)
    share = ops.matmul(rows, own[:, :, None])[:, :, 0] * inverse / squared
    others = ops.arange(rows.shape[1], dtype="int32") != predicted[:, None]
    return ops.where(ops.logical_and(ops.isfinite(share), others), share, 0.0)


def _put_back(gram: Tensor, along: Tensor, predicted: Tensor) -> Tensor:
    """G of rows, of that of rows from which so much of row i was taken: (batch, R, R), (batch, R) float64."""
    beside = taken(ops.reshape(gram, (-1, gram.shape[1])), predicted)  # products with row i
    beside = ops.where(ops.isfinite(beside), beside, 0.0)
    squared = backend.elements_at(beside, predicted[:, None])
    gram = gram + along[:, :, None] * beside[:, None, :]
    return gram + (beside + squared * along)[:, :, None] * along[:, None, :]


def _prepared(
    part: Tensor, own: Tensor, inverse: Tensor, weight: Tensor
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """What products of a block (image, R, inputs) are made of, and 1-norms (image, R) of J_i - J_r.

    Args:
        own: (image, inputs), row i.
        inverse: (image, R), what rows are scaled by.
        weight: (image, R), what is taken off of row i.
    """
    l1 = _l1(part, own)
    rows = part * inverse[:, :, None] - weight[:, :, None] * own[:, None, :]
    return *_lines(rows, PARTS), l1


def _lines(rows: Tensor, parts: int) -> tuple[list[Tensor], list[Tensor]]:
    """Rows (image, R, inputs) in so many parts, and the transpose of each."""
    edges = [rows.shape[1] * part // parts for part in range(parts + 1)]
    lines = [rows[:, first:last] for first, last in pairwise(edges)]
    return lines, [ops.transpose(line, (0, 2, 1)) for line in lines]


def _upper(lines: list[Tensor], turned: list[Tensor]) -> list[Tensor]:
    """The tiles of the upper half of G: products of each part with itself and those behind it."""
    return [ops.matmul(line, other) for i, line in enumerate(lines) for other in turned[i:]]


def _of_tiles(tiles: list[Tensor], parts: int) -> Tensor:
    """G (image, R, R) of its upper half."""
    upper = iter(tiles)
    lines: list[list[Tensor]] = [[] for _ in range(parts)]
    for i, line in enumerate(lines):
        line += [ops.transpose(lines[j][i], (0, 2, 1)) for j in range(i)]
        line += [next(upper) for _ in range(i, parts)]
    return ops.concatenate([ops.concatenate(line, axis=2) for line in lines], axis=1)
