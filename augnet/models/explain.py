"""Why a model cannot be loaded, in words that say what to do."""

from __future__ import annotations

import re
import zipfile

import tensorflow as tf

from augnet.errors import ModelError

# What Keras raises for files that are damaged, foreign, unsafe or in need of code that is not there.
LOADING_ERRORS = (
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    tf.errors.OpError,
)


def explain(path: str, error: BaseException) -> str:
    """The message for a model at `path` that raised one of LOADING_ERRORS when it was loaded."""
    text = str(error)
    if isinstance(error, ModelError):
        return text
    if "safe_mode" in text or "unsafe_deserialization" in text:
        layer = re.search(r"a `(\w+)`", text)
        return carries_code(path, f"{layer[1] if layer else 'Lambda'} layer")
    missing = unknown_class(error)
    if missing:
        return (
            f"model.path: {path!r} uses {missing!r}, a class or function of your own; name the Python module "
            "that registers it (keras.saving.register_keras_serializable) in model.modules, or write the "
            "model with model.export(folder) and give that folder"
        )
    if "No model config" in text or path.endswith(".weights.h5"):
        return (
            f"model.path: {path!r} holds weights only; save the whole model with model.save('model.keras'), "
            "or name the function that builds it, as model.builder: module:function"
        )
    advice = "; if the file is whole, save the model as a .keras file" if path.endswith(".h5") else ""
    return f"model.path: cannot load {path!r}: {first_line(error)}{advice}"


def carries_code(path: str, what: str) -> str:
    """The message for a model that is refused in safe mode."""
    return (
        f"model.path: {path!r} carries code ({what}), which loading would run; set model.safe_mode: false "
        "only for models you trust"
    )


def unknown_class(error: BaseException) -> str:
    """The class or function that Keras looked for and did not find; "" for other errors."""
    missing = re.search(r"(?:Could not locate \w+|Unknown \w+:?) '([\w.]+(?:>\w+)?)'", str(error))
    return missing[1] if missing else ""


def first_line(error: BaseException) -> str:
    """An error as one line: its class and the beginning of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
