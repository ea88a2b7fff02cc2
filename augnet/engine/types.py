"""What Python has no narrower type for, by name: where a signature says `Any` alone, it means anything."""

from __future__ import annotations

from typing import Any

Tensor = Any
"""A tensor of whatever backend Keras has; it names no type of its own for them."""

Tensors = Any
"""One tensor, or a tuple, a list or a dictionary of them."""

Op = Any
"""What a model's graph calls: a Keras layer, an operation of keras.ops, a function; they share no class."""


def is_float(dtype: str) -> bool:
    """Whether numbers of this dtype have derivatives."""
    return dtype.startswith(("float", "bfloat"))
