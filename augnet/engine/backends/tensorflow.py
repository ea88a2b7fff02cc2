"""All that speaks TensorFlow: tapes, compilation, loops over rows, devices, running out of memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.client import device_lib  # not exported, and the only way to know a GPU's size

from augnet.engine.backends import host_memory as memory

OutOfMemory = tf.errors.ResourceExhaustedError
"""What the device raises when its memory does not suffice."""

Unsupported = (tf.errors.OpError, ValueError, TypeError)
"""What an operation raises for a shape, padding or dtype that its kernel does not know."""

Refused = (tf.errors.OpError, LookupError)
"""What an operation raises for numbers that it does not take, and one whose gradient nobody wrote."""

CACHE_BYTES = 16 * 1024**2
"""About the size of a tensor that a CPU's caches still hold."""

UNROLLED = 4
"""Passes written out one after another; above it they are a loop in the graph, which is traced once."""

MOST_AT_ONCE = 16
"""Passes of a loop that run at the same time, at most: each has tensors of its own."""

WAY_SECONDS = 0.1
"""One way to do an operation is not timed longer than this."""

HOPELESS = 4.0
"""How many times slower a way's first run may be than another's best, to be run again."""

FEW_WEIGHTS = 1024
"""Arrays up to here are constants in every program: XLA wants to know the small ones."""

_light: ContextVar[bool] = ContextVar("light", default=False)
"""Whether the program that is being traced takes its weights as arguments, see compiled."""

Pull = Callable[[Any], Any]
"""Cotangents (row, batch, output) -> rows (row, batch, *input), for as many rows as are given."""


def device_kind() -> str:
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


def free_bytes() -> int:
    """Memory of the device that is not in use."""
    if device_kind() == "cpu":
        return memory.free_bytes()
    limits = [
        device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU"
    ]
    return min(limits) - used_bytes()


def used_bytes() -> int:
    """Memory of the device that this process uses; 0 where the system does not tell."""
    if device_kind() == "cpu":
        return memory.used_bytes()
    return tf.config.experimental.get_memory_info("GPU:0")["current"]


def peak_of(function: Callable[[], Any]) -> tuple[Any, int]:
    """What the function returns, and the most of used_bytes() meanwhile; 0 where the system does not tell."""
    if device_kind() == "cpu":
        return memory.peak_of(function)
    tf.config.experimental.reset_memory_stats("GPU:0")
    made = function()
    return made, tf.config.experimental.get_memory_info("GPU:0")["peak"]


def has_tensor_float_32() -> bool:
    """Whether the device has TensorFloat-32 products: NVIDIA GPUs since Ampere."""
    details = map(tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU"))
    capabilities = [detail.get("compute_capability", (0, 0)) for detail in details]
    return bool(capabilities) and min(capabilities) >= (8, 0)


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Whether float32 products may be made as TensorFloat-32 in this block, which GPUs else do by default.

    TensorFlow has one switch for the whole process; it is put back at the end.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def linearize(function: Callable[[Any], Any], x: Any) -> tuple[Any, Pull]:
    """Outputs (batch, K) at x, and their pull-back by one tape over one forward pass.

    Only the input is watched, so no gradient of a weight is ever computed.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        outputs = function(x)

    def pull(cotangents: Any) -> Any:
        rows = [
            tape.gradient(outputs, x, cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            for cotangent in tf.unstack(cotangents)
        ]
        return tf.stack(rows)

    return outputs, pull


def connected(function: Callable[[Any], Any], images: np.ndarray) -> bool:
    """Whether a gradient flows from the outputs to the images at all."""
    x = tf.constant(images)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        made = function(x)
    return tape.gradient(made, x) is not None


def passes_gradient(
    function: Callable[..., tuple[Any, ...]], tensors: list[Any]
) -> tuple[tuple[Any, ...], list[bool]]:
    """The outputs of a function of several tensors, and whether a gradient flows from them to each tensor."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([tensor for tensor in tensors if tensor.dtype.is_floating])
        outputs = function(*tensors)
    ends = [tensor for tensor in outputs if tensor.dtype.is_floating]
    if not ends:
        return outputs, [False] * len(tensors)
    # Random, as the gradient of a sum is zero for a softmax and a normalization.
    cotangents = [tf.random.stateless_normal(end.shape, (1, 2), dtype=end.dtype) for end in ends]
    made = tape.gradient(ends, tensors, cotangents)
    flows = [part is not None and bool(tf.reduce_any(tf.convert_to_tensor(part) != 0)) for part in made]
    return outputs, flows


def rows_of(pull: Pull, cotangents: Any, chunk: int) -> Any:
    """Rows (row, batch, *input) of all cotangents (row, batch, output), `chunk` rows in each pass.

    Passes are independent, and on a CPU as many run at the same time as there are threads: one pass alone
    leaves threads idle wherever an operation is small. More than a few are a loop in the graph, which is
    traced once.
    """
    count = cotangents.shape[0]
    chunk = min(chunk, count)
    whole = count // chunk if count > UNROLLED * chunk else 0
    parts = [_looped(pull, cotangents[: whole * chunk], chunk)] if whole else []
    parts += [pull(cotangents[i : i + chunk]) for i in range(whole * chunk, count, chunk)]
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)


def _looped(pull: Pull, cotangents: Any, chunk: int) -> Any:
    steps = cotangents.shape[0] // chunk
    blocks = tf.reshape(cotangents, (steps, chunk, *cotangents.shape[1:]))
    shape: list[int] = []

    def body(step: Any, made: Any) -> tuple[Any, Any]:
        rows = pull(blocks[step])
        shape[:] = rows.shape[1:]
        return step + 1, made.write(step, rows)

    made = tf.TensorArray(cotangents.dtype, size=steps)
    _, made = tf.while_loop(
        lambda step, _: step < steps, body, (tf.constant(0), made), parallel_iterations=passes_at_once()
    )
    return tf.ensure_shape(made.concat(), (cotangents.shape[0], *shape))


def mapped(function: Callable[[Any], Any], count: int) -> Any:
    """What the function makes of 0 .. count - 1, stacked; a few at the same time, as in rows_of."""
    if count == 1:
        return tf.nest.map_structure(lambda tensor: tensor[None], function(0))
    kinds = tf.nest.map_structure(tf.TensorSpec.from_tensor, function(tf.constant(0)))
    return tf.map_fn(
        function, tf.range(count), fn_output_signature=kinds, parallel_iterations=passes_at_once()
    )


def passes_at_once() -> int:
    """Backward passes of a loop that run, and take memory, at the same time."""
    return 1 if device_kind() == "gpu" else min(os.cpu_count() or 1, MOST_AT_ONCE)


def compiled(
    function: Callable[..., Any],
    signature: list[tuple[tuple[int, ...], str]],
    xla: bool = False,
    light: bool = False,
) -> Callable[..., Any]:
    """The function as one program for inputs of exactly these shapes and dtypes.

    Args:
        light: weights are arguments of the program and not constants in it. It is compiled several times
            sooner and runs a few percent slower, as oneDNN then lays the weights out anew at every call.
    """
    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in signature]
    token = _light.set(light)
    try:
        return tf.function(function, autograph=False, jit_compile=xla or None).get_concrete_function(*specs)
    finally:
        _light.reset(token)


def fused(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function of one tensor as an XLA program inside the program it is called from."""
    return tf.function(function, autograph=False, jit_compile=True)


def run_rows(program: Callable[..., Any], images: np.ndarray) -> Any:
    """Outputs and rows of a program of one tensor, on the host."""
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), program(tf.constant(images)))


def rows_seconds(program: Callable[..., Any], images: np.ndarray, stop: float = 1.0) -> float:
    """Shortest time of a program that has run before; no more repeats once `stop` seconds are spent."""
    x = tf.constant(images)
    best, spent = float("inf"), 0.0
    while spent < stop:
        start = time.perf_counter()
        wait(program(x))
        taken = time.perf_counter() - start
        best, spent = min(best, taken), spent + max(taken, stop / 10)
    return best


def run(program: Callable[..., Any], arrays: list[np.ndarray], dtypes: list[str]) -> Any:
    """The program's results on the host; on a CPU its own memory, which may not be written to.

    Raises:
        OutOfMemory: the device's memory does not suffice.
    """
    made = program(*(tf.convert_to_tensor(array, dtype) for array, dtype in zip(arrays, dtypes, strict=True)))
    return tf.nest.map_structure(np.asarray, made)


# What the rules need beyond keras.ops.


def constant(array: np.ndarray, dtype: Any) -> Any:
    """The array as a constant of the program, in this dtype; see compiled."""
    if np.size(array) <= FEW_WEIGHTS or not _light.get():
        return tf.constant(np.asarray(array), dtype=dtype)
    with tf.init_scope():  # an eager tensor, which a program takes as an argument
        return tf.constant(np.asarray(array), dtype=dtype)


def values_of(variable: Any) -> np.ndarray:
    """A variable's values; on a CPU its own memory, not a copy."""
    return np.asarray(tf.convert_to_tensor(variable))


def conv2d(x: Any, kernel: Any, strides: tuple[int, int], padding: Any, dilation: tuple[int, int]) -> Any:
    return tf.nn.conv2d(
        x, kernel, list(strides), _padding(padding, x, kernel, strides, dilation), dilations=dilation
    )


def bias_add(x: Any, bias: Any) -> Any:
    return tf.nn.bias_add(x, bias)


def _padding(padding: Any, x: Any, kernel: Any, strides: Any, dilation: Any) -> Any:
    """TensorFlow's word for the padding where it has one, which is faster, else the zeros per axis."""
    if isinstance(padding, str):
        return padding.upper()
    if not any(map(any, padding)):
        return "VALID"
    same = []
    for size, width, stride, dilate in zip(x.shape[1:3], kernel.shape[:2], strides, dilation, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilate + 1 - size, 0)
        same.append((total // 2, total - total // 2))
    if tuple(same) == tuple(map(tuple, padding)):
        return "SAME"
    return [[0, 0], list(padding[0]), list(padding[1]), [0, 0]]


def conv2d_input_gradient(g: Any, kernel: Any, shape: tuple[int, ...], strides: Any, pads: Any) -> Any:
    padding = _padding(pads, tf.TensorSpec(shape), kernel, strides, (1, 1))
    return tf.nn.conv2d_transpose(g, kernel, shape, list(strides), padding)


def depthwise(x: Any, kernel: Any, strides: tuple[int, int], padding: Any, dilation: tuple[int, int]) -> Any:
    padding = _padding(padding, x, kernel, strides, dilation)
    if not isinstance(padding, str):
        x, padding = tf.pad(x, padding), "VALID"
    return tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], padding, dilations=dilation)


def depthwise_input_gradient(g: Any, kernel: Any, shape: tuple[int, ...], strides: Any, pads: Any) -> Any:
    padding = _padding(pads, tf.TensorSpec(shape), kernel, strides, (1, 1))
    if isinstance(padding, str):
        return tf.nn.depthwise_conv2d_backprop_input(shape, kernel, g, [1, *strides, 1], padding)
    (top, bottom), (left, right) = pads
    wide = (shape[0], shape[1] + top + bottom, shape[2] + left + right, shape[3])
    made = tf.nn.depthwise_conv2d_backprop_input(wide, kernel, g, [1, *strides, 1], "VALID")
    return made[:, top : top + shape[1], left : left + shape[2]]


def depth_to_space(x: Any, tile: tuple[int, int]) -> Any:
    """(n, height, width, tile height * tile width * channel) -> (n, height * .., width * .., channel).

    By a transposition, which on a CPU takes a quarter of the time of tf.nn.depth_to_space.
    """
    n, height, width, depth = x.shape
    rows, columns = tile
    lines = tf.reshape(x, (n * height, width, rows, depth // rows))
    turned = tf.transpose(lines, (0, 2, 1, 3))
    return tf.reshape(turned, (n, height * rows, width * columns, depth // (rows * columns)))


def max_pool_with_argmax(x: Any, size: Any, strides: Any, padding: str) -> tuple[Any, Any]:
    return tf.nn.max_pool_with_argmax(x, list(size), list(strides), padding.upper())


def taken(x: Any, argmax: Any) -> Any:
    """Elements of x (batch, ...) at the flat positions per image that max_pool_with_argmax gives."""
    flat = tf.reshape(x, (x.shape[0], -1))
    made = tf.gather(flat, tf.reshape(argmax, (x.shape[0], -1)), batch_dims=1)
    return tf.reshape(made, argmax.shape)


def max_pool_gradient(g: Any, argmax: Any, x: Any, size: Any, strides: Any, padding: str) -> Any:
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


def average_pool_gradient(g: Any, shape: tuple[int, ...], size: Any, strides: Any, padding: str) -> Any:
    return tf.raw_ops.AvgPoolGrad(
        orig_input_shape=list(shape),
        grad=g,
        ksize=[1, *size, 1],
        strides=[1, *strides, 1],
        padding=padding.upper(),
    )


def elementwise_slope(function: Callable[[Any], Any], x: Any) -> tuple[Any, Any]:
    """A function of one element: its values at x, and its slope there."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        made = function(x)
    return made, tape.gradient(made, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def transposed(function: Callable[[Any], Any], shape: tuple[int, ...], g: Any) -> Any:
    """The transpose of a linear function of a tensor of this shape, applied to g."""
    zeros = tf.zeros(shape, g.dtype)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(zeros)
        made = function(zeros)
    return tape.gradient(made, zeros, g)


def linearize_call(
    function: Callable[..., tuple[Any, ...]], tensors: list[Any]
) -> tuple[tuple[Any, ...], Any]:
    """Any function of several tensors, by a tape: its outputs, and a pull-back of cotangents one row at a
    time.

    The pull-back takes a list of (row, batch, ...) or None per output and gives one, or None, per input.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        outputs = function(*tensors)

    def pull(cotangents: list[Any]) -> list[Any]:
        known = [i for i, cotangent in enumerate(cotangents) if cotangent is not None]
        rows = [tf.unstack(cotangents[i]) for i in known]
        targets = [outputs[i] for i in known]
        made = [tape.gradient(targets, tensors, list(row)) for row in zip(*rows, strict=True)]
        return [None if column[0] is None else tf.stack(column) for column in zip(*made, strict=True)]

    return outputs, pull


def seconds(
    function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any, known: float = float("inf")
) -> float:
    """Shortest of a few times of a compiled function of one tensor; may be called while a program is traced.

    Args:
        known: the shortest time of another way; one that is far slower at its first run is not run again.
    """
    with tf.init_scope():
        x = tf.random.normal(shape, dtype=dtype)
        program = compiled(function, [(shape, dtype)])
        best, spent = float("inf"), 0.0
        for run in range(6):
            start = time.perf_counter()
            wait(program(x))
            taken = time.perf_counter() - start
            if run == 0:  # it prepares what the others use
                if taken > max(HOPELESS * known, WAY_SECONDS):
                    return taken
                continue
            best, spent = min(best, taken), spent + taken
            if spent > WAY_SECONDS:
                break
    return best


def wait(tensors: Any) -> None:
    """Until the device has made the tensors."""
    for tensor in tf.nest.flatten(tensors):
        tensor[(0,) * tensor.shape.rank].numpy()


def shapes_of(graph: Any, shape: tuple[int, ...], dtype: Any) -> dict[Any, tuple[int, ...]]:
    """Every value's shape without the batch, for images of this shape; traced, not run."""
    made: dict[Any, tuple[int, ...]] = {}

    def trace(x: Any) -> Any:
        tensors = graph.run({graph.input: x})
        made.update({value: tuple(tensor.shape[1:]) for value, tensor in tensors.items()})
        return tensors[graph.output]

    compiled(trace, [((2, *shape), dtype)], light=True)
    return made
