"""Where a model lies, and what kind of file it is, told without loading it or TensorFlow."""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import h5py

from augnet.config import ModelConfig
from augnet.errors import ModelError, did_you_mean, did_you_mean_path

GRAPH_FILE = "saved_model.pb"
"""What makes a folder a SavedModel."""

KINDS = "a .keras file, an .h5 file or a SavedModel folder"


def local_model(config: ModelConfig) -> Path:
    """The file or folder to load.

    Raises:
        ModelError: nothing is there, or it is no model by its name and first bytes.
    """
    path = Path(config.path).expanduser()
    if not path.exists():
        raise ModelError(
            f"model.path: {config.path!r} does not exist; give {KINDS}{did_you_mean_path(str(path))}"
        )
    if config.builder or (path / GRAPH_FILE).is_file():
        return path
    if config.signature:
        raise ModelError(
            f"model.signature: {config.path!r} is no SavedModel folder, so it has none; leave the key out"
        )
    _check_kind(path, config.path)
    return path


def find_module(key: str, name: str) -> None:
    """Look for a module without running any of its code.

    Args:
        key: of the configuration, for the message.
        name: as for `import`; it may lie in the folder that augnet was started in.

    Raises:
        ModelError: its outermost package is neither installed nor in that folder.
    """
    top, here = name.partition(".")[0], os.getcwd()
    found = top in sys.modules or Path(here, top).is_dir() or Path(here, f"{top}.py").is_file()
    if not found and importlib.util.find_spec(top) is None:
        raise ModelError(no_module(key, name))


def no_module(key: str, name: str) -> str:
    """The message for a module that is not there."""
    beside = (Path(entry).stem for entry in sorted(os.listdir()) if entry.endswith(".py"))
    return (
        f"{key}: there is no module {name!r} in {os.getcwd()!r} or among the installed packages; install it, "
        f"or start augnet in its folder{did_you_mean(name, beside)}"
    )


def find_constants(constants: Iterable[tuple[str, object]]) -> None:
    """Raise ModelError where a value of `model.constants` is a file that does not exist."""
    for name, value in constants:
        if isinstance(value, str) and "://" not in value and not Path(value).expanduser().exists():
            raise ModelError(
                f"model.constants: {name}: {value!r} does not exist; give a number, a list or a .npy file"
                f"{did_you_mean_path(value)}"
            )


def _check_kind(path: Path, given: str) -> None:
    """Say what is wrong with a path that Keras would only call unsupported."""
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"model.path: the folder {given!r} has no {GRAPH_FILE}; give a SavedModel folder, or a "
                ".keras or .h5 file"
            )
    elif path.suffix not in (".keras", ".h5", ".hdf5"):
        raise ModelError(
            f"model.path: {given!r} ends in {path.suffix or 'nothing'!r}; give a .keras file, an .h5 file or "
            "a SavedModel folder"
        )
    elif path.suffix != ".keras" and not h5py.is_hdf5(path):
        raise ModelError(
            f"model.path: {given!r} is not an HDF5 file: damaged, or another format under that name"
        )
    elif path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(
            f"model.path: {given!r} is not a .keras file (no zip archive): damaged, or another format under "
            "that name; an HDF5 file needs the ending .h5"
        )
