"""The device: its kind, its memory, its arithmetic."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tensorflow as tf
from tensorflow.python.client import device_lib  # not exported, and the only way to know a GPU's size

from augnet.engine.backends import host

Result = TypeVar("Result")

OutOfMemory = tf.errors.ResourceExhaustedError
"""What the device raises when its memory does not suffice."""

CACHE_BYTES = 16 * 1024**2
"""About the size of a tensor that a CPU's caches still hold."""

MOST_PASSES_AT_ONCE = 16
"""Passes of a loop that run at the same time, at most: each has tensors of its own."""


def device_kind() -> str:
    """ "gpu" when there is one, else "cpu"."""
    return "gpu" if tf.config.list_physical_devices("GPU") else "cpu"


_most_allocated = 0
"""Bytes that tensors have taken at their peak; what TensorFlow has had of a CPU's memory it keeps."""


def free_bytes() -> int:
    """Memory of the device that is not in use."""
    if device_kind() == "cpu":
        return host.free_bytes() + _kept_bytes()
    limits = [
        device.memory_limit for device in device_lib.list_local_devices() if device.device_type == "GPU"
    ]
    return min(limits) - used_bytes()


def used_bytes() -> int:
    """Memory of the device that this process uses; 0 where nothing tells."""
    known = _allocated()
    return host.used_bytes() if known is None else known["current"]


def peak_of(function: Callable[[], Result]) -> tuple[Result, int]:
    """What the function returns, and the most of used_bytes() meanwhile; 0 where nothing tells."""
    if _allocated() is None:
        return host.peak_of(function)
    _kept_bytes()  # notes the peak until now
    tf.config.experimental.reset_memory_stats(_device())
    result = function()
    return result, tf.config.experimental.get_memory_info(_device())["peak"]


def _kept_bytes() -> int:
    """Memory that TensorFlow has had from the system and does not use at the moment, at least."""
    global _most_allocated
    if (known := _allocated()) is None:
        return 0
    _most_allocated = max(_most_allocated, known["peak"])
    return _most_allocated - known["current"]


def _device() -> str:
    return f"{device_kind()}:0".upper()


def _allocated() -> dict[str, int] | None:
    """Bytes of tensors, at the moment and at their peak; None for a CPU's where memory is the system's."""
    try:
        return tf.config.experimental.get_memory_info(_device())
    except ValueError:
        return None


def passes_at_once() -> int:
    """Backward passes of a loop that run, and take memory, at the same time."""
    return 1 if device_kind() == "gpu" else min(os.cpu_count() or 1, MOST_PASSES_AT_ONCE)


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
