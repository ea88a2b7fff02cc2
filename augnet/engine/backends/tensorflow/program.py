"""Compiled programs: constants, loops over rows, and what a run of them takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

from augnet.engine.backends.tensorflow.device import passes_at_once
from augnet.engine.types import Tensor, Tensors

Program = Callable[..., Tensors]
"""A function that was compiled for tensors of fixed shapes. What it returns is up to whoever wrote it."""

Signature = Sequence[tuple[tuple[int, ...], str]]
"""Shape and dtype of each argument."""

UNROLLED = 4
"""Passes written out one after another; above it they are a loop in the graph, which is traced once."""

FEW_WEIGHTS = 1024
"""Arrays up to here are constants in every program: XLA wants to know the small ones."""

_weights_as_arguments: ContextVar[bool] = ContextVar("weights_as_arguments", default=False)
"""Whether the program that is being traced takes its weights as arguments, see compiled."""


def compiled(
    function: Callable[..., Tensors],
    signature: Signature,
    xla: bool = False,
    weights_as_arguments: bool = False,
) -> Program:
    """The function as one program for inputs of exactly these shapes and dtypes.

    Args:
        xla: compiled by XLA as a whole.
        weights_as_arguments: the arrays of `constant` are arguments of the program and not parts of it. It is
            compiled several times sooner and runs a few percent slower, as oneDNN then lays the weights out
            anew at every call.
    """
    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in signature]
    token = _weights_as_arguments.set(weights_as_arguments)
    try:
        return tf.function(function, autograph=False, jit_compile=xla or None).get_concrete_function(*specs)
    finally:
        _weights_as_arguments.reset(token)


def fused(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
    """The function of tensors as an XLA program inside the program it is called from."""
    return tf.function(function, autograph=False, jit_compile=True)


def run(program: Program, arrays: Sequence[Any], dtypes: Sequence[str]) -> Tensors:
    """The program's results for these arrays or tensors, in its own structure; they stay on the device.

    Raises:
        OutOfMemory: the device's memory does not suffice.
    """
    return program(*(to_device(array, dtype) for array, dtype in zip(arrays, dtypes, strict=True)))


def to_host(tensors: Tensors) -> Any:
    """NumPy arrays in the tensors' structure; on a CPU their own memory, which may not be written to."""
    return tf.nest.map_structure(np.asarray, tensors)


def to_device(array: Any, dtype: str) -> tf.Tensor:
    """An array or tensor as a tensor of this dtype, cast where it is of another one."""
    return tf.cast(tf.convert_to_tensor(array), dtype)


def numpy_dtype(name: str) -> np.dtype:
    """NumPy's dtype of this name; bfloat16 too."""
    return tf.as_dtype(name).as_numpy_dtype


def is_eager() -> bool:
    """Whether operations are run, and not traced into a program."""
    return tf.executing_eagerly()


def constant(array: np.ndarray, dtype: Any) -> tf.Tensor:
    """The array as a constant of the program that is being traced, or as an argument of it; see compiled."""
    if np.size(array) <= FEW_WEIGHTS or not _weights_as_arguments.get():
        return tf.constant(np.asarray(array), dtype=dtype)
    with tf.init_scope():  # an eager tensor, which a program takes as an argument
        return tf.constant(np.asarray(array), dtype=dtype)


def values_of(variable: Any) -> np.ndarray:
    """The values of a Keras variable or a tensor; on a CPU its own memory, not a copy."""
    return np.asarray(tf.convert_to_tensor(variable))


def rows_of(
    vjp: Callable[[Tensor], Tensor], cotangents: Tensor, chunk: int, unrolled: int = UNROLLED
) -> Tensor:
    """Rows (row, batch, *input) of all cotangents (row, batch, output), `chunk` rows in each pass.

    Passes are independent, and on a CPU as many run at the same time as there are threads: one pass alone
    leaves threads idle wherever an operation is small. More than `unrolled` are a loop in the graph.
    """
    count = cotangents.shape[0]
    chunk = min(chunk, count)
    looped = count > unrolled * chunk and not tf.executing_eagerly()
    whole = count // chunk if looped else 0
    parts = [_looped(vjp, cotangents[: whole * chunk], chunk)] if whole else []
    parts += [vjp(cotangents[i : i + chunk]) for i in range(whole * chunk, count, chunk)]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def _looped(vjp: Callable[[Tensor], Tensor], cotangents: Tensor, chunk: int) -> Tensor:
    steps = cotangents.shape[0] // chunk
    blocks = tf.reshape(cotangents, (steps, chunk, *cotangents.shape[1:]))
    shape: list[int] = []

    def body(step: Tensor, stack: Tensor) -> tuple[Tensor, Tensor]:
        rows = vjp(blocks[step])
        shape[:] = rows.shape[1:]
        return step + 1, stack.write(step, rows)

    stack = tf.TensorArray(cotangents.dtype, size=steps)
    _, stack = tf.while_loop(
        lambda step, _: step < steps, body, (tf.constant(0), stack), parallel_iterations=passes_at_once()
    )
    return tf.ensure_shape(stack.concat(), (cotangents.shape[0], *shape))


def mapped(function: Callable[[Tensor], Tensors], count: int) -> Tensors:
    """What the function returns for 0 .. count - 1, stacked; a few at the same time, as in rows_of."""
    if count == 1:
        return tf.nest.map_structure(lambda tensor: tensor[None], function(0))
    kinds = tf.nest.map_structure(tf.TensorSpec.from_tensor, function(tf.constant(0)))
    return tf.map_fn(
        function, tf.range(count), fn_output_signature=kinds, parallel_iterations=passes_at_once()
    )


def summed(function: Callable[[Tensor], Tensors], count: int) -> Tensors:
    """The sum of what the function returns for 0 .. count - 1, in this order; a few at the same time.

    Unlike the sum of what `mapped` gives, it holds only a few of them at a time.
    """
    if count == 1:
        return function(0)

    def body(step: Tensor, sums: Tensors) -> tuple[Tensor, Tensors]:
        return step + 1, tf.nest.map_structure(tf.add, sums, function(step))

    none = tf.nest.map_structure(tf.zeros_like, function(tf.constant(0)))
    return tf.while_loop(
        lambda step, _: step < count, body, (tf.constant(0), none), parallel_iterations=passes_at_once()
    )[1]


def seconds(program: Program, tensors: Sequence[tf.Tensor], stop: float) -> float:
    """Shortest time of a program that has run before; no more repeats once `stop` seconds are spent."""
    best, spent = float("inf"), 0.0
    while spent < stop:
        start = time.perf_counter()
        wait(program(*tensors))
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + max(taken, stop / 10)
    return best


def wait(tensors: Tensors) -> None:
    """Until the device has computed the tensors."""
    for tensor in tf.nest.flatten(tensors):
        tensor[(0,) * tensor.shape.rank].numpy()
