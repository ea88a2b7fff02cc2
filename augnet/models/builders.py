"""Code that a model needs: modules that register its classes, and functions that build it.

Both run because the configuration names them (`model.modules`, `model.builder`), and only then.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import keras

from augnet.errors import ModelError
from augnet.models.explain import LOADING_ERRORS, first_line
from augnet.models.files import no_module


def import_modules(names: Iterable[str]) -> None:
    """Import the modules that register the model's own layers and functions.

    Args:
        names: as for `import`; a module may lie in the folder that augnet was started in.

    Raises:
        ModelError: a module is not there, or does not import.
    """
    for name in names:
        _import("model.modules", name)


def build_model(builder: str, weights: Path) -> keras.Model:
    """The model that `module:function` returns, with the weights of a file.

    Args:
        builder: the function takes no arguments.
        weights: what `model.save_weights` wrote (.weights.h5, .h5), or a whole .keras file.

    Raises:
        ModelError: no such function, it does not return a Keras model, or the weights are of another one.
    """
    module, _, function = builder.partition(":")
    found: object = _import("model.builder", module)
    for part in function.split("."):
        if not hasattr(found, part):
            raise ModelError(f"model.builder: {module} has no {function!r}; give module:function")
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"model.builder: {builder} is a {type(found).__name__}, not a function")
    try:
        model = found()
    except Exception as error:  # the user's own code; whatever it raises, there is no model
        raise ModelError(f"model.builder: {builder}() failed ({first_line(error)})") from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"model.builder: {builder}() gave a {type(model).__name__}, not a keras.Model")
    try:
        model.load_weights(weights)
    except LOADING_ERRORS as error:
        raise ModelError(
            f"model.path: the weights in {str(weights)!r} are not those of the model that {builder}() builds "
            f"({first_line(error)}); give a .weights.h5 or .h5 file that its save_weights wrote"
        ) from error
    return model


def _import(key: str, name: str) -> ModuleType:
    try:
        with _working_folder_importable():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModelError(no_module(key, name)) from None
        raise ModelError(f"{key}: {name!r} needs the module {error.name!r}; install it") from error
    except Exception as error:  # a module's own code may raise anything
        raise ModelError(f"{key}: importing {name!r} failed ({first_line(error)})") from error


@contextmanager
def _working_folder_importable() -> Iterator[None]:
    """As with `python -m`, after everything that is installed."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
