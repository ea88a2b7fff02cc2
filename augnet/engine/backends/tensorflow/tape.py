"""The tape: one forward pass of any function, and as many backward passes as rows are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

Unsupported = (tf.errors.OpError, ValueError, TypeError)
"""What an operation raises for a shape, padding or dtype that its kernel does not know."""

Refused = (tf.errors.OpError, LookupError)
"""What an operation raises for numbers that it does not take, and one whose gradient nobody wrote."""

Rows = list[tf.Tensor | None]
"""(row, batch, ...) for each of several tensors; None for zero."""


def linearize(
    function: Callable[..., Sequence[tf.Tensor]], inputs: Sequence[tf.Tensor], vectorized: bool = False
) -> tuple[tuple[tf.Tensor, ...], Callable[..., Rows]]:
    """The outputs of a function of several tensors, and its vector-Jacobian product for many rows.

    Only the inputs are watched, so no gradient of a weight is ever computed.

    Args:
        vectorized: all rows in one backward pass, which TensorFlow makes of the pass for one row. An
            operation for which it cannot raises one of `Unsupported`. Otherwise one pass per row.

    Returns:
        The outputs; and cotangents (row, batch, *output) or None per output -> (row, batch, *input) or None
        per input.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
        outputs = tuple(function(*inputs))

    def vjp(*cotangents: tf.Tensor | None) -> Rows:
        ends = [output for output, rows in zip(outputs, cotangents, strict=True) if rows is not None]
        given = [rows for rows in cotangents if rows is not None]

        def one(row: Sequence[tf.Tensor]) -> Rows:
            return tape.gradient(ends, list(inputs), list(row))

        if not vectorized:
            found = [one(row) for row in zip(*map(tf.unstack, given), strict=True)]
            return [None if rows[0] is None else tf.stack(rows) for rows in zip(*found, strict=True)]
        flows: list[bool] = []

        def connected(row: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            found = one(row)
            flows[:] = [part is not None for part in found]
            return [part for part in found if part is not None]

        parts = iter(tf.vectorized_map(connected, given, fallback_to_while_loop=False))
        return [next(parts) if flow else None for flow in flows]

    return outputs, vjp


def passes_gradient(
    function: Callable[..., Sequence[tf.Tensor]], inputs: Sequence[tf.Tensor]
) -> tuple[tuple[tf.Tensor, ...], list[bool]]:
    """The outputs of a function of several tensors, and whether a gradient flows from them to each input."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([tensor for tensor in inputs if tensor.dtype.is_floating])
        outputs = tuple(function(*inputs))
    ends = [tensor for tensor in outputs if tensor.dtype.is_floating]
    if not ends:
        return outputs, [False] * len(inputs)
    # Random, as the gradient of a sum is zero for a softmax and a normalization.
    cotangents = [tf.random.stateless_normal(end.shape, (1, 2), dtype=end.dtype) for end in ends]
    gradients = tape.gradient(ends, list(inputs), cotangents)
    return outputs, [
        part is not None and bool(tf.reduce_any(tf.convert_to_tensor(part) != 0)) for part in gradients
    ]


def elementwise_slope(
    function: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A function of one element at a time: its values at x, and its slope there."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        values = function(x)
    return values, tape.gradient(values, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def transposed(function: Callable[[tf.Tensor], tf.Tensor], shape: tuple[int, ...], g: tf.Tensor) -> tf.Tensor:
    """The transpose of a linear function of a tensor of this shape, applied to g."""
    zeros = tf.zeros(shape, g.dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(zeros)
        values = function(zeros)
    return tape.gradient(values, zeros, g)
