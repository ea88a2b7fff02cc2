"""The structure of a model's inputs and outputs, and arrays that fit it."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from augnet.engine.backends import backend
from augnet.engine.types import is_float

Structure = Any
"""One thing, or lists, tuples and dictionaries of things, as Keras nests inputs and outputs."""


def unwrapped(structure: Structure) -> Structure:
    """Without the lists of one that are around it."""
    while isinstance(structure, list | tuple) and len(structure) == 1:
        structure = structure[0]
    return structure


def leaves(structure: Structure, x: Any) -> list[Any] | None:
    """The parts of `x` at the leaves of `structure`, in Keras' order; None where they differ."""
    if isinstance(structure, dict):
        if not isinstance(x, dict) or set(x) != set(structure):
            return None
        pairs = [(structure[key], x[key]) for key in sorted(structure)]
    elif isinstance(structure, list | tuple):
        if not isinstance(x, list | tuple) or len(x) != len(structure):
            return None
        pairs = list(zip(structure, x, strict=True))
    else:
        return None if isinstance(x, dict) else [x]
    parts = [leaves(*pair) for pair in pairs]
    return None if None in parts else [leaf for part in parts for leaf in part or ()]


def arrays_of(model: keras.Model, x: Any) -> list[Any]:
    """`x` as one checked array or tensor per input of the model, in the order of `model.inputs`.

    Raises:
        ValueError: `x` has another structure or shape than the model's inputs, or unequal numbers of samples.
        TypeError: `x` does not hold real numbers.
    """
    specs = model.inputs
    arrays = [_checked(value, spec) for value, spec in zip(_parts(model, x), specs, strict=True)]
    counts = [len(array) for array in arrays]
    if len(set(counts)) > 1:
        raise ValueError(f"AugNet: every input needs the same number of samples, got {counts}")
    return arrays


def _parts(model: keras.Model, x: Any) -> list[Any]:
    names = [spec.name for spec in model.inputs]
    if isinstance(x, dict) and not isinstance(model.input, dict) and set(x) == set(names):
        return [x[name] for name in names]
    if len(names) == 1 and not isinstance(x, dict):
        rank = len(model.inputs[0].shape)
        listed = isinstance(x, list | tuple) and len(x) == 1 and len(getattr(x[0], "shape", ())) == rank
        return [x[0] if listed else x]
    parts = leaves(model.input, x)
    if parts is None:
        expected = keras.tree.pack_sequence_as(model.input, names)
        got = sorted(map(str, x)) if isinstance(x, dict) else type(x).__name__
        got = f"{got} of {len(x)}" if isinstance(x, list | tuple) else got
        raise ValueError(
            f"AugNet: x needs the structure of the model's inputs, {expected}, got {got}; "
            "give one array for each, or a dictionary of arrays by name"
        )
    return parts


def _checked(value: Any, spec: keras.KerasTensor) -> Any:
    """`value` as an array or tensor with the shape that `spec` asks for, its batch axis aside."""
    name = f"input {spec.name!r}"
    if not isinstance(value, np.ndarray):
        try:
            known = keras.ops.is_tensor(value) or hasattr(value, "assign")  # a tensor, or a variable
            value = backend.values_of(value) if known else np.asarray(value)
        except ValueError as error:
            raise ValueError(f"AugNet: {name} is not an array: {error}; make all samples one shape") from None
    if not _is_real(value.dtype):
        raise TypeError(f"AugNet: {name} holds {value.dtype}; give real numbers, which become {spec.dtype}")
    got, wanted = tuple(value.shape), tuple(spec.shape)
    if len(got) != len(wanted) or any(w not in (None, g) for g, w in zip(got[1:], wanted[1:], strict=True)):
        expected = ("batch", *(axis if axis is not None else "any" for axis in wanted[1:]))
        advice = "give an array of that shape"
        if len(got) == len(wanted) - 1 and all(w in (None, g) for g, w in zip(got, wanted[1:], strict=True)):
            advice = "the batch axis is missing: for one sample give x[None]"
        elif 1 in wanted[1:] and math.prod(got[1:]) == math.prod(axis or 0 for axis in wanted[1:]):
            advice = f"reshape it to {(got[0] if got else 1, *wanted[1:])}"
        shape = "(" + ", ".join(map(str, expected)) + ")"
        raise ValueError(f"AugNet: {name} has the shape {shape}, got {got}; {advice}")
    return value


def _is_real(dtype: Any) -> bool:
    """Whether it is a float, an integer or a boolean."""
    try:
        name = keras.backend.standardize_dtype(dtype)
    except ValueError:  # text, objects, and what else Keras has no name for
        return False
    return is_float(name) or name == "bool" or name.startswith(("int", "uint"))
