"""The identity of a model: a digest of all that decides what it computes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from augnet.models.saved_model import SavedModelLayer

# Parts of a serialized model that may change between saving and loading, and do not change what it computes.
INCIDENTAL_KEYS = frozenset(["build_config", "compile_config", "saved_model_path", "shared_object_id"])


def fingerprint(model: keras.Model) -> str:
    """SHA-256 (hexadecimal) of what the model computes: its architecture with all names, and its weights.

    A model saved twice, or saved and loaded, keeps its fingerprint; a changed weight changes it. For a
    signature of a SavedModel the bytes of its graph stand for the architecture.
    """
    digest = hashlib.sha256()
    architecture: Any
    try:
        architecture = _essential(keras.saving.serialize_keras_object(model))
    except NotImplementedError:  # a subclassed model without get_config
        architecture = [f"{type(model).__module__}.{type(model).__qualname__}", model.name]
    digest.update(json.dumps(architecture, sort_keys=True, default=_plain).encode())
    for name, value in _weights(model):
        array = np.ascontiguousarray(value)
        digest.update(f"\n{name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _essential(config: Any) -> Any:
    if isinstance(config, dict):
        return {str(key): _essential(part) for key, part in config.items() if key not in INCIDENTAL_KEYS}
    if isinstance(config, list | tuple):
        return [_essential(part) for part in config]
    return config


def _plain(value: Any) -> Any:
    """JSON for what custom layers put into their configs. Never `repr`: it may hold an address."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _weights(model: keras.Model) -> Iterable[tuple[str, np.ndarray]]:
    for weight in model.weights:
        yield weight.name, keras.ops.convert_to_numpy(weight)
    for layer in model.layers:
        if isinstance(layer, SavedModelLayer):
            for variable in sorted(layer.variables_inside, key=lambda v: v.name):
                yield variable.name, variable.numpy()
