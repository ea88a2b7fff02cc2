"""The compiled Jacobian of a functional Keras model: what AugNet runs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Rows of the first call's check that samples do not influence each other. A layer that mixes samples mixes
# them in every output behind it, so a few rows are enough.
CHECKED_ROWS = 8


class Program:
    """The compiled Jacobian of one model: one trace serves every batch size and every choice of rows.

    One forward pass on a tape, then one backward pass per row in a loop. The trace refers to the model's
    variables, so it sees what training changes. It is an object of its own, which neither Keras nor
    TensorFlow tracks, so that a model with a program is saved, exported and pickled like one without.
    """

    def __init__(self, model: keras.Model):
        self._inputs, self._outputs = model.inputs, model.outputs

        def jacobian(inputs: list[Any], rows: list[Any], share: Any) -> Any:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(inputs)
                outputs = keras.tree.flatten(model(fill(model.input, iter(inputs)), training=False))
                flat = [tf.reshape(output, (tf.shape(output)[0], -1)) for output in outputs]
            finite = tf.ones_like(share, tf.bool)
            for tensor in inputs:
                finite &= tf.reduce_all(tf.math.is_finite(tf.reshape(tensor, (tf.shape(tensor)[0], -1))), 1)
            blocks = [_rows(tape, inputs, y, r, share, finite) for y, r in zip(flat, rows, strict=True)]
            return blocks, [tf.shape(output) for output in outputs]

        signature = [
            # A batch size in keras.Input is no rule for Keras (a Sequential keeps that of its first call).
            [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in model.inputs],
            [tf.TensorSpec((None,), tf.int32) for _ in model.outputs],
            tf.TensorSpec((None,), tf.float32),
        ]
        # Traced here, not at the first call: TensorFlow warns when it sees many functions traced by calls.
        function = tf.function(jacobian, input_signature=signature, autograph=False)
        self._function = function.get_concrete_function()

    def __call__(
        self, arrays: list[Any], rows: np.ndarray | None = None, share: np.ndarray | None = None
    ) -> tuple[list[list[Any]], list[tuple[int, ...]]]:
        """The Jacobian of one batch.

        Args:
            arrays: (batch, inputs...) per input.
            rows: numbers of the values of every flattened output; None for all.
            share: (batch,) how much each sample's outputs count; None for 1.

        Returns:
            (batch, rows, inputs...) per output and input, and the shape (batch, ...) of every output.
        """
        inputs = [
            tf.cast(tf.convert_to_tensor(array), spec.dtype)
            for array, spec in zip(arrays, self._inputs, strict=True)
        ]
        numbers = tf.constant([] if rows is None else rows, tf.int32)
        share = np.ones(len(inputs[0]), np.float32) if share is None else share
        blocks, shapes = self._function(inputs, [numbers] * len(self._outputs), tf.constant(share))
        return blocks, [tuple(shape.numpy().tolist()) for shape in shapes]

    def refuse_mixed_samples(self, arrays: list[Any]) -> None:
        """Raise where an output of the first sample depends on the input of another.

        It runs the program itself on copies of one sample, so it costs no second trace.
        """
        size = self._inputs[0].shape[0] or 2
        copies = [np.repeat(np.asarray(array[:1]), size, axis=0) for array in arrays]
        totals = [math.prod(axis or 1 for axis in spec.shape[1:]) for spec in self._outputs]
        rows = np.linspace(0, min(totals) - 1, min(CHECKED_ROWS, *totals)).astype(np.int32)
        blocks, _ = self(copies, rows, np.eye(size, dtype=np.float32)[0])
        # NaN compares as False, and says nothing about mixing.
        if any(np.any(np.abs(block.numpy()[1:]) > 0) for by_input in blocks for block in by_input):
            raise ValueError(
                "AugNet: this model mixes the samples of a batch: an output of one depends on the input of "
                "another, even in inference mode, so that no sample has a Jacobian of its own; take out the "
                "layer that mixes them"
            )


def _rows(tape: Any, inputs: list[Any], flat: Any, rows: Any, share: Any, finite: Any) -> list[Any]:
    """Rows (batch, row, inputs...) of `flat` (batch, K) by each input; all K where `rows` is empty."""
    total = tf.shape(flat)[1]
    rows = tf.cond(tf.size(rows) > 0, lambda: rows, lambda: tf.range(total))
    share = tf.cast(share, flat.dtype)[:, None]

    def one(row: Any) -> list[Any]:
        cotangent = share * tf.one_hot(row, total, dtype=flat.dtype)
        gradients = tape.gradient(flat, inputs, cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [
            tf.where(tf.reshape(finite, [-1] + [1] * (len(g.shape) - 1)), g, tf.constant(math.nan, g.dtype))
            for g in gradients
        ]

    kinds = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    stacks = tf.map_fn(one, rows, fn_output_signature=kinds, parallel_iterations=1)
    return [tf.transpose(stack, [1, 0, *range(2, len(stack.shape))]) for stack in stacks]


def fill(struct: Any, values: Iterator[Any]) -> Any:
    """`struct` with its tensors replaced by `values`, in Keras' order: dictionaries by sorted key."""
    if isinstance(struct, dict):
        filled = {key: fill(struct[key], values) for key in sorted(struct)}
        return {key: filled[key] for key in struct}
    if isinstance(struct, list | tuple):
        return type(struct)([fill(part, values) for part in struct])
    return next(values)
