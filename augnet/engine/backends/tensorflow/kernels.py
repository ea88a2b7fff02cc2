"""Convolutions and pooling, and their gradients, where keras.ops has no such operation or a slower one."""

from __future__ import annotations

import tensorflow as tf

from augnet.engine.padding import Padding, Pair, resolved_pads
from augnet.engine.types import Tensor


def conv2d(x: Tensor, kernel: Tensor, strides: Pair, padding: Padding, dilation: Pair) -> Tensor:
    return tf.nn.conv2d(
        x, kernel, list(strides), _padding(padding, x, kernel, strides, dilation), dilations=dilation
    )


def bias_add(x: Tensor, bias: Tensor) -> Tensor:
    return tf.nn.bias_add(x, bias)


def _padding(
    padding: Padding, x: Tensor, kernel: Tensor, strides: Pair, dilation: Pair
) -> str | list[list[int]]:
    """TensorFlow's word for the padding where it has one, which is faster, else the zeros per axis."""
    if isinstance(padding, str):
        return padding.upper()
    if not any(map(any, padding)):
        return "VALID"
    same = resolved_pads("same", x.shape[1:3], kernel.shape[:2], strides, dilation)
    if same == tuple(map(tuple, padding)):
        return "SAME"
    return [[0, 0], list(padding[0]), list(padding[1]), [0, 0]]


def conv2d_input_gradient(
    g: Tensor, kernel: Tensor, shape: tuple[int, ...], strides: Pair, pads: Padding
) -> Tensor:
    padding = _padding(pads, tf.TensorSpec(shape), kernel, strides, (1, 1))
    return tf.nn.conv2d_transpose(g, kernel, shape, list(strides), padding)


def depthwise(x: Tensor, kernel: Tensor, strides: Pair, padding: Padding, dilation: Pair) -> Tensor:
    resolved = _padding(padding, x, kernel, strides, dilation)
    if not isinstance(resolved, str):
        x, resolved = tf.pad(x, resolved), "VALID"
    return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], resolved, dilations=dilation)


def depthwise_input_gradient(
    g: Tensor, kernel: Tensor, shape: tuple[int, ...], strides: Pair, pads: Padding
) -> Tensor:
    padding = _padding(pads, tf.TensorSpec(shape), kernel, strides, (1, 1))
    if isinstance(padding, str) or isinstance(pads, str):
        return tf.nn.depthwise_conv2d_backprop_input(shape, kernel, g, [1, *strides, 1], padding)
    (top, bottom), (left, right) = pads
    wide = (shape[0], shape[1] + top + bottom, shape[2] + left + right, shape[3])
    made = tf.nn.depthwise_conv2d_backprop_input(wide, kernel, g, [1, *strides, 1], "VALID")
    return made[:, top : top + shape[1], left : left + shape[2]]


def depth_to_space(x: Tensor, tile: Pair) -> Tensor:
    """(n, height, width, tile height * tile width * channel) -> (n, height * .., width * .., channel).

    By a transposition, which on a CPU takes a quarter of the time of tf.nn.depth_to_space.
    """
    n, height, width, depth = x.shape
    rows, columns = tile
    lines = tf.reshape(x, (n * height, width, rows, depth // rows))
    turned = tf.transpose(lines, (0, 2, 1, 3))
    return tf.reshape(turned, (n, height * rows, width * columns, depth // (rows * columns)))


def max_pool_with_argmax(x: Tensor, size: Pair, strides: Pair, padding: str) -> tuple[Tensor, Tensor]:
    return tf.nn.max_pool_with_argmax(x, list(size), list(strides), padding.upper())


def elements_at(x: Tensor, positions: Tensor) -> Tensor:
    """Elements of x (batch, ...) at flat positions (batch, ...) of each image; shaped as these.

    In one operation, where Keras' take_along_axis is 35.
    """
    flat = tf.reshape(x, (x.shape[0], -1))
    made = tf.gather(flat, tf.reshape(positions, (x.shape[0], -1)), batch_dims=1)
    return tf.reshape(made, positions.shape)


def max_pool_gradient(
    g: Tensor, argmax: Tensor, x: Tensor, size: Pair, strides: Pair, padding: str
) -> Tensor:
    """Cotangents (row, batch, ...) put back where the maxima were; argmax (batch, ...) serves all rows."""
    count = g.shape[0]
    # The operation reads only the shape of its input.
    made = tf.raw_ops.MaxPoolGradWithArgmax(
        input=x if count == 1 else tf.zeros((count * x.shape[0], *x.shape[1:]), x.dtype),
        grad=tf.reshape(g, (count * x.shape[0], *g.shape[2:])),
        argmax=tf.tile(argmax, (count, 1, 1, 1)),
        ksize=[1, *size, 1],
        strides=[1, *strides, 1],
        padding=padding.upper(),
    )
    return tf.reshape(made, (count, *x.shape))


def average_pool_gradient(
    g: Tensor, shape: tuple[int, ...], size: Pair, strides: Pair, padding: str
) -> Tensor:
    return tf.raw_ops.AvgPoolGrad(
        orig_input_shape=list(shape),
        grad=g,
        ksize=[1, *size, 1],
        strides=[1, *strides, 1],
        padding=padding.upper(),
    )
