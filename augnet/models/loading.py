"""Load a trained model from any format that Keras and TensorFlow write, and take its fingerprint."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fsspec
import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import augnet.models.augnet  # noqa: F401  (registers AugNet, so that a saved one loads)
from augnet.config import ModelConfig
from augnet.errors import ModelError
from augnet.redact import without_secrets

GRAPH_FILE = "saved_model.pb"
# Operations of a SavedModel that run Python or touch files outside of it while the model is evaluated.
UNSAFE_OPERATIONS = frozenset(
    ["EagerPyFunc", "MatchingFiles", "PyFunc", "PyFuncStateless", "ReadFile", "WriteFile"]
)
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
# Parts of a serialized model that may change between saving and loading, and do not change what it computes.
INCIDENTAL_KEYS = frozenset(["build_config", "compile_config", "saved_model_path", "shared_object_id"])


def load_model(config: ModelConfig) -> keras.Model:
    """The model at `config.path`, in inference form: without optimizer, loss and metrics.

    Formats: a .keras file, a legacy .h5 file, or a SavedModel folder (`model.export(folder)`, or Keras 2's
    `model.save(folder)`), of which the signature `serving_default` is used.

    Args:
        config: `path`, and `safe_mode`: while it is true, a model that carries code is refused. That is a
            Lambda layer with a Python lambda in it, or a SavedModel with operations that run Python or read
            or write files.

    Raises:
        ModelError: no such file, not a model, unsafe, or made of classes that are not known here.
    """
    if "://" in config.path:
        with tempfile.TemporaryDirectory(prefix="augnet-model-") as folder:
            return load_model(config.model_copy(update={"path": _fetched(config.path, Path(folder))}))
    path = _local_path(config.path)
    if (path / GRAPH_FILE).is_file():
        return _load_saved_model(path, config.safe_mode)
    _check_kind(path, config.path)
    try:
        model = keras.saving.load_model(str(path), compile=False, safe_mode=config.safe_mode)
    except LOADING_ERRORS as error:
        raise ModelError(_explain(config.path, error)) from error
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"model.path: {config.path!r} holds a {type(model).__name__}, not a keras.Model; save a model"
        )
    return model


def fingerprint(model: keras.Model) -> str:
    """SHA-256 (hexadecimal) of what the model computes: its architecture with all names, and its weights.

    A model saved twice, or saved and loaded, keeps its fingerprint; a changed weight changes it. For a
    SavedModel the bytes of its graph stand for the architecture.
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


class SavedModelLayer(keras.layers.Layer):
    """A SavedModel as a layer: its signature's inputs by name in, its outputs by name out.

    Its variables are the SavedModel's own; Keras neither trains nor counts them.

    Attributes:
        inputs: name -> tf.TensorSpec.
        variables_inside: the tf.Variables that the signature reads.
    """

    def __init__(self, saved_model_path: str, graph: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.saved_model_path = saved_model_path
        self.graph = graph or hashlib.sha256((Path(saved_model_path) / GRAPH_FILE).read_bytes()).hexdigest()
        self._loaded = tf.saved_model.load(saved_model_path)
        signatures = self._loaded.signatures
        if not signatures:
            raise ModelError(
                f"model.path: {saved_model_path!r} has no signature; write it with model.export(folder)"
            )
        key = "serving_default" if "serving_default" in signatures else sorted(signatures)[0]
        self._function = signatures[key]
        self.inputs = dict(self._function.structured_input_signature[1])
        self.variables_inside = list(self._function.variables)

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return self._function(**inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "saved_model_path": self.saved_model_path, "graph": self.graph}


def _load_saved_model(path: Path, safe_mode: bool) -> keras.Model:
    if safe_mode:
        _refuse_unsafe_operations(path)
    try:
        layer = SavedModelLayer(str(path), name="saved_model")
        inputs = {
            name: keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype.name, name=name)
            for name, spec in layer.inputs.items()
        }
        outputs = layer(inputs)
        first = next(iter(inputs.values()))
        model = keras.Model(
            inputs if len(inputs) > 1 else first,
            outputs if len(outputs) > 1 else next(iter(outputs.values())),
            name="saved_model",
        )
    except LOADING_ERRORS as error:
        raise ModelError(_explain(str(path), error)) from error
    _check_differentiable(model, path)
    return model


def _check_differentiable(model: keras.Model, path: Path) -> None:
    """Trace, and not run, the gradient: TensorFlow finds out only then."""
    specs = [tf.TensorSpec(spec.shape, spec.dtype) for spec in model.inputs]

    def gradient(tensors: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            outputs = keras.tree.flatten(model(keras.tree.pack_sequence_as(model.input, tensors)))
        return tape.gradient([y for y in outputs if y.dtype.is_floating], tensors)

    found: Any = None
    reason = "no output depends on an input by steps that have one"
    if any(spec.dtype.is_floating for spec in specs):
        try:
            found = tf.function(gradient, autograph=False).get_concrete_function(specs).structured_outputs
        except (LookupError, RuntimeError, TypeError, ValueError, tf.errors.OpError) as error:
            reason = _first_line(error)
    else:
        reason = f"its inputs are {', '.join(spec.dtype.name for spec in specs)}, and only floats have one"
    if found is None or all(part is None for part in found):
        raise ModelError(
            f"model.path: the SavedModel {str(path)!r} has no gradient ({reason}); "
            "save the model itself as a .keras file"
        )


def _refuse_unsafe_operations(path: Path) -> None:
    proto = saved_model_pb2.SavedModel()
    try:
        proto.ParseFromString((path / GRAPH_FILE).read_bytes())
    except Exception as error:  # protobuf's DecodeError has no stable public home
        raise ModelError(f"model.path: {str(path / GRAPH_FILE)!r} is damaged: {error}") from error
    found = {
        node.op
        for part in proto.meta_graphs
        for nodes in (part.graph_def.node, *(f.node_def for f in part.graph_def.library.function))
        for node in nodes
    } & UNSAFE_OPERATIONS
    if found:
        raise ModelError(
            f"model.path: the SavedModel {str(path)!r} contains {', '.join(sorted(found))}, which run code "
            "or touch files; set model.safe_mode: false only for models you trust"
        )


def _fetched(address: str, folder: Path) -> str:
    """A local copy, below `folder`, of the model at an address (gs://, s3://): a file or a folder."""
    shown = without_secrets(address)
    try:
        fs, path = fsspec.core.url_to_fs(address)
        local = folder / path.rstrip("/").rpartition("/")[2]
        fs.get(path.rstrip("/"), str(local), recursive=bool(fs.isdir(path)))
    except FileNotFoundError:
        raise ModelError(f"model.path: nothing is at {shown!r}; give the address of a model") from None
    except (ImportError, OSError, ValueError) as error:
        reason = without_secrets(str(error)) or type(error).__name__
        raise ModelError(f"model.path: {shown!r} cannot be fetched: {reason}") from error
    return str(local)


def _local_path(path: str) -> Path:
    """The file or folder to read."""
    local = Path(path).expanduser()
    if not local.exists():
        raise ModelError(
            f"model.path: {path!r} does not exist; give a .keras file, an .h5 file or a SavedModel folder"
        )
    return local


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
    elif path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(
            f"model.path: {given!r} is not a .keras file (no zip archive): damaged, or another format under "
            "that name; an HDF5 file needs the ending .h5"
        )


def _explain(path: str, error: BaseException) -> str:
    text = str(error)
    if isinstance(error, ModelError):
        return text
    if "safe_mode" in text or "unsafe_deserialization" in text:
        layer = re.search(r"a `(\w+)`", text)
        return (
            f"model.path: {path!r} carries code ({layer[1] if layer else 'Lambda'} layer), which loading "
            "would run; set model.safe_mode: false only for models you trust"
        )
    missing = re.search(r"(?:Could not locate \w+|Unknown \w+:?) '(\w+(?:>\w+)?)'", text)
    if missing:
        return (
            f"model.path: {path!r} uses {missing[1]!r}, a class or function of your own; import the module "
            "that registers it (keras.saving.register_keras_serializable) before loading, or write the model "
            "with model.export(folder) and give that folder"
        )
    if "No model config" in text or path.endswith(".weights.h5"):
        return f"model.path: {path!r} holds weights only; save the whole model with model.save('model.keras')"
    return f"model.path: cannot load {path!r}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


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
