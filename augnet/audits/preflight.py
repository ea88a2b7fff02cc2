"""What can be known to be wrong with an audit before TensorFlow and the model are loaded, in a second."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from augnet.audits.identity import config_identity, refuse_changes, refuse_other_files, refuse_parts
from augnet.audits.labels import read_classes, read_names
from augnet.config import APPLICATIONS, Config, ImagesConfig, ModelConfig, PreprocessConfig
from augnet.errors import ConfigError, did_you_mean
from augnet.models.files import find_constants, find_module, local_model
from augnet.sources import open_source
from augnet.sources.files import Files
from augnet.storage import names
from augnet.storage.files import OutputFolder


def mistakes_in(parts: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the paths and names in valid parts of a configuration, a line for each.

    Args:
        parts: sections, and keys of the top, by name; those that are not there are not looked at.
    """
    checks: dict[str, tuple[Callable[[Any], None], ...]] = {
        "model": (_check_model, _check_modules, _check_builder, _check_constants),
        "images": (_check_images, _check_classes),
        "preprocess": (_check_application,),
        "output": (_check_output,),
    }
    for name, part in parts.items():
        for check in checks.get(name, ()):
            try:
                check(part)
            except ConfigError as error:
                yield str(error)


def refuse_other_audit(config: Config) -> None:
    """Raise ConfigError where the output folder holds another configuration's audit, or parts."""
    folder = OutputFolder(config.output)
    if not folder.is_local:
        return
    refuse_parts(folder)
    if folder.exists(names.RUN):
        earlier = folder.read_sealed(names.RUN).get("identity", {}).get("config")
        if earlier:  # else it is of another version, as is found when it is read as a whole
            refuse_changes(folder, earlier, config_identity(read_classes(config)))


def _check_model(model: ModelConfig) -> None:
    if "://" not in model.path:
        local_model(model)


def _check_modules(model: ModelConfig) -> None:
    for name in model.modules:
        find_module("model.modules", name)


def _check_builder(model: ModelConfig) -> None:
    if model.builder:
        find_module("model.builder", model.builder.partition(":")[0])


def _check_constants(model: ModelConfig) -> None:
    find_constants(model.constants.items())


def _check_images(images: ImagesConfig) -> None:
    """As far as the first image."""
    if not Files(images.path).is_local:
        return  # whether it answers is seen when it is listed
    next(open_source(images.model_copy(update={"limit": None})).list())  # a sample would list them all


def _check_classes(images: ImagesConfig) -> None:
    if isinstance(images.classes, str) and "://" not in images.classes:
        read_names(images.classes)


def _check_application(preprocess: PreprocessConfig) -> None:
    """By the folders of Keras, which takes seconds to import."""
    keras = importlib.util.find_spec("keras")
    if isinstance(preprocess.scale, str) and preprocess.scale.startswith(APPLICATIONS) and keras:
        folder = Path(next(iter(keras.submodule_search_locations or ())), "applications")
        known = sorted(f"{APPLICATIONS}{path.parent.name}" for path in folder.glob("*/__init__.py"))
        if known and preprocess.scale not in known:
            listed = ", ".join(name.removeprefix(APPLICATIONS) for name in known)
            raise ConfigError(
                f"preprocess.scale: no module {preprocess.scale!r}; keras.applications has {listed}"
                f"{did_you_mean(preprocess.scale, known)}"
            )


def _check_output(output: str) -> None:
    folder = OutputFolder(output)
    if folder.is_local:
        folder.refuse_unwritable()
        refuse_other_files(folder)
