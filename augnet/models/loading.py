"""Load a trained model from any format that Keras and TensorFlow write."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import tempfile
from pathlib import Path
from typing import Any

import keras
from keras.src.applications import convnext, inception_resnet_v2  # not exported

import augnet.models.augnet  # noqa: F401  (registers AugNet, so that a saved one loads)
from augnet.config import ModelConfig
from augnet.errors import ConfigError, ModelError
from augnet.models import keras2
from augnet.models.builders import build_model, import_modules
from augnet.models.control import with_random_weights
from augnet.models.explain import LOADING_ERRORS, carries_code, explain, first_line, unknown_class
from augnet.models.files import GRAPH_FILE, local_model
from augnet.models.fingerprint import fingerprint
from augnet.models.one_image import of_one_image
from augnet.models.saved_model import NO_RULES, SavedModelLayer, as_model, load_saved_model
from augnet.redact import without_secrets
from augnet.storage.addresses import open_address, retried

__all__ = ["fingerprint", "load_model"]

log = logging.getLogger(__name__)

NETWORK_LAYERS = {
    "LayerScale": convnext.LayerScale,
    "StochasticDepth": convnext.StochasticDepth,
    "Custom>CustomScaleLayer": inception_resnet_v2.CustomScaleLayer,
}
"""Layers of keras.applications by the names that Keras 2 gave them, which Keras 3 does not know."""


def load_model(config: ModelConfig) -> keras.Model:
    """The model that the `model` section describes, as a function of one image, for inference.

    Formats: a .keras file or an .h5 file, of Keras 3 or 2; a SavedModel folder (`model.export`, Keras 2's
    `model.save`, `tf.saved_model.save`); or weights, with `model.builder`. docs/how-to/models.md has a table.

    Args:
        config: while its `safe_mode` is true, a model that carries code is refused. That is a Lambda layer
            with a Python lambda in it, or a SavedModel with operations that run Python or read or write
            files. With its `control`, the model has random weights.

    Raises:
        ModelError: no such file, not a model, unsafe, or made of classes that are not known here.
    """
    if "://" in config.path:
        with tempfile.TemporaryDirectory(prefix="augnet-model-") as folder:
            return load_model(config.model_copy(update={"path": _fetched(config.path, Path(folder))}))
    import_modules(config.modules)
    with keras.saving.custom_object_scope(NETWORK_LAYERS):
        model = _load(config, local_model(config))
    if config.control:
        model = with_random_weights(model, config.control_seed)
    return of_one_image(model, config.constants)


def _load(config: ModelConfig, path: Path) -> keras.Model:
    if config.builder:
        return build_model(config.builder, path)
    if (path / GRAPH_FILE).is_file():
        return load_saved_model(path, config.signature, config.safe_mode)
    architecture = keras2.file_architecture(path)
    if architecture is not None:
        return _of_keras2(path, config, architecture)
    try:
        model = keras.saving.load_model(str(path), compile=False, safe_mode=config.safe_mode)
    except LOADING_ERRORS as error:
        raise ModelError(explain(config.path, error)) from error
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"model.path: {config.path!r} holds a {type(model).__name__}, not a keras.Model; save a model"
        )
    return model


def _of_keras2(path: Path, config: ModelConfig, architecture: dict[str, Any]) -> keras.Model:
    """The model in a file of Keras 2: of Keras 3 where it can be, else as tf_keras runs it."""
    if config.safe_mode and keras2.holds_lambda(architecture):
        raise ModelError(carries_code(config.path, "Lambda layer"))
    try:
        model = keras2.build(architecture, config.safe_mode)
        keras2.load_weights(path, model)
    except LOADING_ERRORS as error:
        if importlib.util.find_spec("tf_keras"):
            return _by_tf_keras(path, config, error)
        calls = keras2.calls_left(keras2.modernized(architecture))
        if unknown_class(error) and not calls:
            raise ModelError(explain(config.path, error)) from error
        reason = f"it has no layer for {', '.join(calls)}" if calls else first_line(error)
        raise ModelError(
            f"model.path: {config.path!r} is of Keras 2, and Keras 3 cannot build it ({reason}); install "
            "tf_keras, which runs it as Keras 2 did: pip install 'augnet[legacy]'"
        ) from error
    return model


def _by_tf_keras(path: Path, config: ModelConfig, reason: Exception) -> keras.Model:
    """The model as a signature, which tf_keras writes to a folder for the time of loading."""
    import tf_keras

    with tempfile.TemporaryDirectory(prefix="augnet-model-") as folder:
        try:
            tf_keras.models.load_model(str(path), compile=False, safe_mode=config.safe_mode).export(folder)
        except LOADING_ERRORS as error:
            raise ModelError(explain(config.path, error)) from error
        # What tf_keras writes differs from time to time; the file does not.
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        layer = SavedModelLayer(folder, graph=digest, name="saved_model")
    log.warning(NO_RULES, first_line(reason))
    return as_model(layer, config.path)


def _fetched(address: str, folder: Path) -> str:
    """A local copy, below `folder`, of the model at an address (gs://, s3://): a file or a folder."""
    shown = without_secrets(address)
    try:
        fs, path = open_address(address, "model.path")
        path = path.rstrip("/")
        local = folder / path.rpartition("/")[2]
        retried(fs.get, path, str(local), recursive=bool(retried(fs.isdir, path)))
    except FileNotFoundError:
        raise ModelError(f"model.path: nothing is at {shown!r}; give the address of a model") from None
    except ConfigError as error:
        raise ModelError(str(error)) from None
    except (OSError, ValueError) as error:
        reason = without_secrets(str(error)) or type(error).__name__
        raise ModelError(f"model.path: {shown!r} cannot be fetched: {reason}") from error
    return str(local)
