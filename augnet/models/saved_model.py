"""SavedModel folders: run by one of their signatures, or as the Keras model they were saved from."""

from __future__ import annotations

import gc
import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from augnet.errors import ModelError
from augnet.models import keras2
from augnet.models.explain import LOADING_ERRORS, explain, first_line
from augnet.models.files import GRAPH_FILE
from augnet.models.integer_inputs import let_floats_in

log = logging.getLogger(__name__)

DEFAULT_SIGNATURE = "serving_default"
# Operations of a SavedModel that run Python or touch files outside of it while the model is evaluated.
UNSAFE_OPERATIONS = frozenset(
    ["EagerPyFunc", "MatchingFiles", "PyFunc", "PyFuncStateless", "ReadFile", "WriteFile"]
)
NO_RULES = "model: run by its signature, without derivative rules: no Keras 3 model computes the same (%s)"
PROBES = 2
"""Images of noise on which a converted model is compared with the signature."""
OPEN_AXIS = 96
"""Height and width of those images where the model leaves them open: enough for five halvings."""
SAME = 1e-4
"""Largest difference between the two, as a share of the largest output: float32 rounding in another order."""


def load_saved_model(folder: Path, signature: str | None, safe_mode: bool) -> keras.Model:
    """The model in a SavedModel folder.

    What Keras 2 saved becomes a Keras 3 model, with a graph of layers, if that gives the same outputs on
    noise. Anything else is one layer, which runs the signature.

    Args:
        folder: holds `saved_model.pb`.
        signature: to run, by name; None: the Keras model, else `serving_default`, else the only signature.
        safe_mode: refuse operations that run Python, or read or write files.

    Raises:
        ModelError: damaged, unsafe, without such a signature, or without a gradient.
    """
    message = read_message(folder)
    if safe_mode:
        _refuse_unsafe_operations(folder, message)
    try:
        layer = SavedModelLayer(str(folder), signature, name="saved_model")
    except LOADING_ERRORS as error:
        raise ModelError(explain(str(folder), error)) from error
    converted = _converted(folder, message, layer, safe_mode) if signature is None else None
    return as_model(layer, str(folder)) if converted is None else converted


class SavedModelLayer(keras.layers.Layer):
    """A SavedModel as a layer: its signature's inputs by name in, its outputs by name out.

    Its variables are the SavedModel's own; Keras neither trains nor counts them. Inputs that were declared as
    integers may be given as floats, where the model casts them itself.

    Args:
        saved_model_path: the folder.
        signature: its name; None: `serving_default`, or the only one.
        graph: digest of what the model computes, weights aside; None: of the graph's file.

    Attributes:
        inputs: name -> tf.TensorSpec, as declared.
        taken: the same, of floats where the model casts its integers.
        saved: the object that tf.saved_model.load gave.
        variables_inside: the tf.Variables that the signature reads.
    """

    def __init__(
        self, saved_model_path: str, signature: str | None = None, graph: str | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        folder = Path(saved_model_path)
        self.saved_model_path = saved_model_path
        self.graph = graph or hashlib.sha256((folder / GRAPH_FILE).read_bytes()).hexdigest()
        self.saved, declared = _load(folder)
        self.signature = _choose_signature(folder, self.saved.signatures, signature)
        self._function = self.saved.signatures[self.signature]
        self.taken = dict(self._function.structured_input_signature[1])
        integers = declared.get(self.signature, {})
        self.inputs = {
            name: tf.TensorSpec(spec.shape, integers.get(name, spec.dtype), spec.name)
            for name, spec in self.taken.items()
        }
        self.variables_inside = list(self._function.variables)

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        given = {
            name: tf.cast(inputs[name], spec.dtype) if self.inputs[name].dtype.is_integer else inputs[name]
            for name, spec in self.taken.items()
        }
        return self._function(**given)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("saved_model_path", "signature", "graph")}
        return {**super().get_config(), **own}


def read_message(folder: Path) -> Any:
    """The SavedModel message of a folder.

    Raises:
        ModelError: the file is damaged.
    """
    message = saved_model_pb2.SavedModel()
    try:
        message.ParseFromString((folder / GRAPH_FILE).read_bytes())
    except Exception as error:  # protobuf's DecodeError has no stable public home
        raise ModelError(f"model.path: {str(folder / GRAPH_FILE)!r} is damaged: {error}") from error
    return message


def _load(folder: Path) -> tuple[Any, dict[str, dict[str, tf.DType]]]:
    """tf.saved_model.load of the folder, with floats let in and without what its optimizer remembers.

    An optimizer of Keras 2 tells TensorFlow of its slot variables, and TensorFlow then asks the object that
    it restores for `add_slot`, which only the optimizer's own class has. So those entries are left out.

    Returns:
        The object, and what let_floats_in changed.
    """
    message = read_message(folder)
    declared = let_floats_in(message)
    nodes = [node for part in message.meta_graphs for node in part.object_graph_def.nodes]
    if not declared and not any(node.slot_variables for node in nodes):
        return tf.saved_model.load(str(folder)), declared
    for node in nodes:
        node.ClearField("slot_variables")
    with tempfile.TemporaryDirectory(prefix="augnet-model-") as name:
        (Path(name) / GRAPH_FILE).write_bytes(message.SerializeToString())
        for part in ("variables", "assets"):
            if (folder / part).is_dir():
                (Path(name) / part).symlink_to((folder / part).resolve(), target_is_directory=True)
        with _silent_about_slots():
            return tf.saved_model.load(name), declared


@contextmanager
def _silent_about_slots() -> Iterator[None]:
    """TensorFlow warns of every value of a checkpoint that is left unread, once its reader is collected."""

    def wanted(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return not ("unrestored values" in text or ("checkpoint" in text and "optimizer" in text))

    logger = tf.get_logger()
    logger.addFilter(wanted)
    try:
        yield
        gc.collect()
    finally:
        logger.removeFilter(wanted)


def _choose_signature(folder: Path, signatures: Any, chosen: str | None) -> str:
    if not signatures:
        raise ModelError(
            f"model.path: {str(folder)!r} has no signature; write it with model.export(folder), or with "
            "tf.saved_model.save(module, folder, signatures=module.call)"
        )
    listed = "; ".join(_signature_text(name, function) for name, function in sorted(signatures.items()))
    if chosen is not None:
        if chosen not in signatures:
            raise ModelError(f"model.signature: no signature {chosen!r}; the model has {listed}")
        return chosen
    if DEFAULT_SIGNATURE in signatures:
        return DEFAULT_SIGNATURE
    if len(signatures) > 1:
        raise ModelError(f"model.signature: choose one of the model's {len(signatures)}: {listed}")
    return next(iter(signatures))


def _signature_text(name: str, function: Any) -> str:
    sides = function.structured_input_signature[1], function.structured_outputs
    takes, gives = (", ".join(f"{key} {tuple(spec.shape)}" for key, spec in side.items()) for side in sides)
    return f"{name}: {takes} -> {gives}"


def as_model(layer: SavedModelLayer, path: str) -> keras.Model:
    """A Keras model that runs a signature.

    Args:
        layer: of the signature.
        path: of the model, for errors.

    Raises:
        ModelError: the signature has no gradient, or inputs without a shape.
    """
    try:
        model = _around(layer)
    except LOADING_ERRORS as error:
        raise ModelError(explain(path, error)) from error
    _check_differentiable(layer, path)
    return model


def _around(layer: SavedModelLayer) -> keras.Model:
    inputs = {
        name: keras.Input(batch_shape=_batch_shape(spec), dtype=spec.dtype.name, name=name)
        for name, spec in layer.inputs.items()
    }
    outputs = layer(inputs)
    if len(outputs) > 1:  # an output of a Keras model is called what the layer that makes it is called
        outputs = {
            name: keras.layers.Identity(name=name.replace("/", "_"), dtype=made.dtype)(made)
            for name, made in outputs.items()
        }
    return keras.Model(
        inputs if len(inputs) > 1 else next(iter(inputs.values())),
        outputs if len(outputs) > 1 else next(iter(outputs.values())),
        name="saved_model",
    )


def _batch_shape(spec: Any) -> tuple[int | None, ...]:
    if spec.shape.rank is None:
        raise ModelError(
            f"model.path: the signature's input {spec.name!r} has no shape; save it with an input_signature"
        )
    return tuple(spec.shape)


def _converted(folder: Path, message: Any, layer: SavedModelLayer, safe_mode: bool) -> keras.Model | None:
    """The Keras 3 model, or None where there is none that computes what the signature does."""
    architecture = keras2.saved_architecture(folder, message)
    if architecture is None:
        return None
    try:
        model = keras2.build(architecture, safe_mode)
        keras2.copy_weights(layer.saved, model)
        difference = _difference(layer, model)
    except LOADING_ERRORS as error:
        reason = first_line(error)
    else:
        if difference <= SAME:
            log.info("model: converted from Keras 2; outputs differ by %.0e on noise", difference)
            return model
        reason = f"its outputs then differ by {difference:.0e} of the largest"
    log.warning(NO_RULES, reason)
    return None


def _difference(layer: SavedModelLayer, model: keras.Model) -> float:
    """Largest difference between the signature's outputs and the model's, as a share of the largest."""
    rng, found = np.random.default_rng(0), []
    for size in (1, 255):
        given = {name: _noise(spec, rng, size) for name, spec in layer.inputs.items()}
        expected = layer(given)
        names = [tensor.name for tensor in model.inputs]
        ordered = [given[name] for name in names] if set(names) == set(given) else list(given.values())
        made = keras.tree.flatten(model(keras.tree.pack_sequence_as(model.input, ordered), training=False))
        by_name = dict(zip(model.output_names, made, strict=True))
        pairs = [(expected[name], by_name[name]) for name in expected] if len(made) > 1 else None
        for a, b in pairs or [(next(iter(expected.values())), made[0])]:
            a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
            if a.shape != b.shape:
                raise ValueError(f"an output has the shape {b.shape[1:]} instead of {a.shape[1:]}")
            found.append(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
    return float(max(found))  # a NaN is not at most SAME


def _noise(spec: Any, rng: np.random.Generator, size: float) -> Any:
    batch, *shape = spec.shape
    numbers = rng.uniform(0, size, (batch or PROBES, *(axis or OPEN_AXIS for axis in shape)))
    return tf.cast(tf.constant(numbers), spec.dtype)


def _check_differentiable(layer: SavedModelLayer, path: str) -> None:
    """Trace, and not run, the gradient: TensorFlow finds out only then."""

    def gradient(inputs: dict[str, Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer.call(inputs)
        return tape.gradient([y for y in outputs.values() if y.dtype.is_floating], list(inputs.values()))

    found: Any = None
    reason = "no output depends on an input by steps that have one"
    if any(spec.dtype.is_floating for spec in layer.taken.values()):
        try:
            traced = tf.function(gradient, autograph=False).get_concrete_function(layer.taken)
            found = traced.structured_outputs
        except (LookupError, RuntimeError, TypeError, ValueError, tf.errors.OpError) as error:
            reason = first_line(error)
    else:
        types = ", ".join(spec.dtype.name for spec in layer.taken.values())
        reason = f"its inputs are {types}, and it does more with them than casting them to floats"
    if found is None or all(part is None for part in found):
        raise ModelError(
            f"model.path: the SavedModel {path!r} has no gradient ({reason}); "
            "save the model itself as a .keras file"
        )


def _refuse_unsafe_operations(folder: Path, message: Any) -> None:
    found = {
        node.op
        for part in message.meta_graphs
        for nodes in (part.graph_def.node, *(f.node_def for f in part.graph_def.library.function))
        for node in nodes
    } & UNSAFE_OPERATIONS
    if found:
        raise ModelError(
            f"model.path: the SavedModel {str(folder)!r} contains {', '.join(sorted(found))}, which run code "
            "or touch files; set model.safe_mode: false only for models you trust"
        )
