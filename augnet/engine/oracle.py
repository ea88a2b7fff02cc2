"""The Keras model as plain TensorFlow differentiates it, made again in float64: what verify.py judges by.

Nothing here is taken from the engine, so a fault of its graph, rules or rewriting cannot be in both.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional  # not exported, and the only way to know one

from augnet.errors import ConfigError, ModelError

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative error of one rounded number."""
WITH_ACTIVATION = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Activation,
)
"""Layers whose `activation` is the last thing that they do."""
AT = re.compile(r"at:\[\s*(\d+)\s*,\s*(\d+)\s*\]")
SEEN_APART = 0.1
"""Outputs of the model and of its remake that differ by this share are not those of one model."""
EXACT = ("Identity", "Maximum", "Minimum", "Relu", "Reshape", "Transpose")
"""Operations that round nothing, whatever the dtype."""
LARGEST = 1e30
NO_FORWARD_MODE = (LookupError, NotImplementedError, TypeError, ValueError, tf.errors.OpError)
"""What TensorFlow raises where an operation has no forward mode, or one of another dtype only."""


@dataclass(frozen=True)
class Oracle:
    """A model as a function, differentiated by tapes.

    Attributes:
        function: images (n, height, width, channel) of `dtype` -> outputs (n, K) of `dtype`.
        program: the same compiled, for images of this shape.
        dtype: "float64", or "float32" for a model that cannot be made again.
        activation: "softmax" or "sigmoid" where one was taken off the end, else None.
        coarse: what computes less exactly than `dtype` inside: operation -> how often.
        rounding: relative error that all of these may bring in together; 0 for none.
        reason: why the model could not be made again, or "".
    """

    function: Callable[[tf.Tensor], tf.Tensor]
    program: Callable[[tuple[int, ...]], Callable[[tf.Tensor], tf.Tensor]]
    dtype: str
    activation: str | None
    coarse: dict[str, int]
    rounding: float
    reason: str = ""

    @property
    def unit(self) -> float:
        """Relative error of an output, as far as it is known beforehand."""
        return max(ROUNDING[self.dtype], self.rounding)

    @property
    def name(self) -> str:
        """The arithmetic in words."""
        if self.reason:
            return f"the model itself in {self.dtype}"
        named = [operation for operation in self.coarse if operation != "Const"]
        return f"the model in {self.dtype}" + (f" but for {', '.join(named)}" if named else "")

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Outputs (n, K) of images (n, height, width, channel), float64."""
        return self.program(images.shape)(tf.constant(images, self.dtype)).numpy().astype(np.float64)

    def rows(self, image: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Rows (output, height, width, channel) of one image, float64, one backward pass each."""
        x = tf.constant(image[None], self.dtype)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(x)
            scores = tf.unstack(self.program(x.shape)(x)[0])
        zero = tf.UnconnectedGradients.ZERO
        rows = [tape.gradient(scores[output], x, unconnected_gradients=zero)[0] for output in outputs]
        return tf.stack(rows).numpy().astype(np.float64)

    def directional(self, image: np.ndarray, directions: np.ndarray) -> np.ndarray | None:
        """J v (direction, K) of one image by forward mode, float64; None where TensorFlow has none."""
        x = tf.constant(np.broadcast_to(image, directions.shape), self.dtype)
        v = tf.constant(directions, self.dtype)
        try:  # not compiled: there TensorFlow takes an operation without forward mode for a constant
            with _no_retracing_warning(), tf.autodiff.ForwardAccumulator(x, v) as forward:
                scores = self.function(x)
        except NO_FORWARD_MODE:
            return None
        found = forward.jvp(scores)
        return None if found is None else found.numpy().astype(np.float64)

    def secants(self, image: np.ndarray, directions: np.ndarray, step: float) -> np.ndarray:
        """Central differences (direction, K) of one image, float64."""
        ahead, behind = (self.outputs(image + sign * step * directions) for sign in (1, -1))
        return (ahead - behind) / (2 * step)


def make_oracle(
    model: keras.Model,
    images: np.ndarray,
    *,
    output: int | str | None = None,
    space: str = "logits",
    reduce: str | None = None,
    dtype: str = "float64",
) -> Oracle:
    """The model made again in another arithmetic, or as it is where that cannot be done.

    Args:
        model: as loaded; it is left as it is.
        images: (n, height, width, channel); the remake has to give the model's outputs on the first.
        output: which of several outputs, by position or name.
        space: "logits" takes a final softmax or sigmoid off; "model" leaves it.
        reduce: for outputs with height and width, one number per channel: mean | sum | at:[y,x].
        dtype: "float64", or "float32" and "mixed_bfloat16", whose images and outputs are float32.

    Raises:
        ModelError: no such output.
    """
    outside, reason = "float64" if dtype == "float64" else "float32", ""
    remade: keras.Model = model
    try:
        with _no_retracing_warning():
            remade = _remade(model, dtype, {})
            _refuse_another(model, remade, images[:1].astype(outside), outside)
    except Exception as error:  # a layer may raise anything; then the model itself has to do, and it is said
        first = (str(error).strip().splitlines() or [""])[0]
        remade, outside, reason = model, "float32", f"{type(error).__name__}: {first[:200]}"
    activation = None
    graph = _graph_of(remade)
    if graph is not None:
        end = _chosen(graph.outputs, list(graph.output_names), output)
        logits, activation = _before_activation(end) if space == "logits" else (end, None)
        logits_model = keras.Model(graph.inputs, logits)

        def call(x: Any) -> Any:
            return logits_model(x, training=False)

    else:

        def call(x: Any) -> Any:
            found = remade(x, training=False)
            names = list(found) if isinstance(found, dict) else None
            found = keras.tree.flatten(found)
            return _chosen(found, names or [str(i) for i in range(len(found))], output)

    with_channels = _takes_channels(remade)

    def function(x: tf.Tensor) -> tf.Tensor:
        scores = call(x if with_channels else x[..., 0])
        if reduce is not None:
            scores = _reduced(scores, reduce)
        return tf.cast(tf.reshape(scores, (x.shape[0], math.prod(scores.shape[1:]))), outside)

    @cache
    def program(shape: tuple[int, ...]) -> Any:
        with _no_retracing_warning():
            traced = tf.function(function, autograph=False)
            return traced.get_concrete_function(tf.TensorSpec(shape, outside))

    coarse: dict[str, int] = {}
    rounding = _own_rounding(remade) if reason else 0.0
    if outside == "float64":
        coarse, rounding = _coarse_parts(program((1, *images.shape[1:])))
    return Oracle(function, program, outside, activation, coarse, rounding, reason)


@contextmanager
def _no_retracing_warning() -> Iterator[None]:
    """Keras traces each grouped convolution anew, of which TensorFlow warns whoever calls the model."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _graph_of(model: Any) -> Functional | None:
    """The graph of layers that is all that the model's call does; None where the call is its own code."""
    if isinstance(model, keras.Sequential):
        return model._functional if type(model).call is keras.Sequential.call else None
    return model if isinstance(model, Functional) and type(model).call is Functional.call else None


def _remade(model: keras.Model, dtype: str, done: dict[int, Any]) -> keras.Model:
    """A model of the same layers, nested ones too, in this dtype, with copies of the weights."""
    graph = _graph_of(model)
    if graph is None:
        raise TypeError(f"{type(model).__name__} has a call of its own")
    outside = "float64" if dtype == "float64" else "float32"

    def again(op: Any) -> Any:
        if id(op) not in done:
            done[id(op)] = _remade(op, dtype, done) if isinstance(op, keras.Model) else _op_again(op, dtype)
        return done[id(op)]

    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=outside if _is_float(x.dtype) else x.dtype),
        graph.input,
    )
    if isinstance(model, keras.Sequential):
        remade = keras.Sequential([inputs, *map(again, model.layers)])
    else:
        remade = keras.models.clone_model(model, inputs, again)
    for layer in model.layers:
        if id(layer) in done and not isinstance(layer, keras.Model):
            _copy_weights(layer, done[id(layer)])
    return remade


def _op_again(op: Any, dtype: str) -> Any:
    """A layer, or an operation of keras.ops, made again from its configuration."""
    if isinstance(op, keras.layers.Lambda):  # its configuration holds bytecode, which loading refuses
        return keras.layers.Lambda(op.function, arguments=op.arguments, dtype=dtype, name=op.name)
    if isinstance(op, keras.layers.Layer):
        return type(op).from_config(_with_dtype(op.get_config(), dtype))
    if _is_float(str(getattr(op, "dtype", ""))):
        inside = dtype.removeprefix("mixed_")
        return type(op).from_config(_with_dtype(op.get_config(), inside))
    return op  # without weights and dtype there is nothing to make again


def _with_dtype(config: Any, dtype: str) -> Any:
    """The configuration with every floating-point dtype and policy in it replaced, nested layers' too."""
    if isinstance(config, dict):
        if config.get("class_name") == "QuantizedDTypePolicy":
            raise TypeError("a quantized layer has no float64")
        return {
            key: dtype if key == "dtype" and _is_float_policy(value) else _with_dtype(value, dtype)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_with_dtype(item, dtype) for item in config)
    return config


def _is_float_policy(value: Any) -> bool:
    name = value.get("config", {}).get("name", "") if isinstance(value, dict) else value
    return isinstance(name, str) and _is_float(name.removeprefix("mixed_"))


def _is_float(dtype: str) -> bool:
    return dtype in ROUNDING


def _copy_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """By the layers' own way of saving, as some derive more from what they load (Normalization does)."""
    for inner, copy in zip(source._flatten_layers(), target._flatten_layers(), strict=True):
        store: dict[str, Any] = {}
        inner.save_own_variables(store)
        copy.load_own_variables({key: _widened(value) for key, value in store.items()})


def _widened(variable: Any) -> np.ndarray:
    """A variable's values, float64 where they are floats: NumPy's own types, which every layer loads."""
    array: np.ndarray = keras.ops.convert_to_numpy(variable)
    return array.astype(np.float64) if _is_float(array.dtype.name) else array


def _refuse_another(model: keras.Model, remade: keras.Model, image: np.ndarray, dtype: str) -> None:
    image = image if _takes_channels(model) else image[..., 0]
    pairs = zip(
        keras.tree.flatten(model(tf.constant(image, model.inputs[0].dtype), training=False)),
        keras.tree.flatten(remade(tf.constant(image, dtype), training=False)),
        strict=True,
    )
    for ours, theirs in pairs:
        ours, theirs = tf.cast(ours, tf.float64).numpy(), tf.cast(theirs, tf.float64).numpy()
        if np.linalg.norm(ours - theirs) > SEEN_APART * np.linalg.norm(ours):
            raise ValueError("made again from its configuration, the model has other outputs")


def _takes_channels(model: keras.Model) -> bool:
    """Whether the model takes (n, height, width, channel), or (n, height, width) of one channel."""
    if getattr(model, "inputs", None):
        return len(keras.tree.flatten(model.inputs)[0].shape) == 4
    return len((model.get_build_config() or {})["input_shape"]) == 4


def _chosen(outputs: list[Any], names: list[str], output: int | str | None) -> Any:
    place = names.index(output) if output in names else output or 0
    if not isinstance(place, int) or not 0 <= place < len(outputs):
        raise ModelError(f"model.output: no output {output!r}; the model has {', '.join(names)}")
    return outputs[place]


def _before_activation(tensor: Any) -> tuple[Any, str | None]:
    """The symbolic tensor before the softmax or sigmoid that makes this one, and which it was.

    What only moves numbers, or does nothing at inference, may follow the activation; outputs are flattened
    anyway. A softmax over a part of the outputs is left.
    """
    end = tensor
    while True:
        op, place, _ = tensor._keras_history
        sources = op._inbound_nodes[place].input_tensors
        if len(sources) != 1:
            return end, None
        if not _only_moves(op):
            break
        tensor = sources[0]
    source = sources[0]
    nested = _graph_of(op)
    if nested is not None and len(nested.outputs) == 1:
        inner, kind = _before_activation(nested.outputs[0])
        return (keras.Model(nested.inputs, inner)(source), kind) if kind else (end, None)
    kind = _activation(op, len(tensor.shape))
    apart = tensor.shape != end.shape and math.prod(n or 1 for n in end.shape[1:]) != tensor.shape[-1]
    if kind is None or apart:
        return end, None
    if not isinstance(op, WITH_ACTIVATION) or isinstance(op, keras.layers.Activation):
        return source, kind
    bare = type(op).from_config({**op.get_config(), "activation": None, "name": f"{op.name}_logits"})
    bare.trainable = op.trainable
    logits = bare(source)
    _copy_weights(op, bare)
    return logits, kind


def _activation(op: Any, rank: int) -> str | None:
    """ "softmax" over the last axis or "sigmoid" where that is the last thing the operation does."""
    if isinstance(op, WITH_ACTIVATION):
        known = {keras.activations.softmax: "softmax", keras.activations.sigmoid: "sigmoid"}
        return known.get(op.activation)
    if type(op).__name__ == "Softmax":
        return "softmax" if op.axis in (-1, rank - 1) else None
    return "sigmoid" if type(op).__name__ == "Sigmoid" else None


def _only_moves(op: Any) -> bool:
    if isinstance(op, keras.layers.Activation):
        return op.activation is keras.activations.linear
    return type(op).__name__ in ("Cast", "Dropout", "Flatten", "Identity", "Reshape")


def _reduced(scores: tf.Tensor, reduce: str) -> tf.Tensor:
    """Outputs (n, height, width, channel) -> (n, channel)."""
    if reduce == "mean":
        return tf.reduce_mean(scores, (1, 2))
    if reduce == "sum":
        return tf.reduce_sum(scores, (1, 2))
    place = AT.fullmatch(reduce)
    if place is None:
        raise ConfigError(f"jacobian.reduce: {reduce!r} is not mean, sum or at:[y,x]")
    return scores[:, int(place[1]), int(place[2])]


def _coarse_parts(program: Any) -> tuple[dict[str, int], float]:
    """What is less exact than float64 in a float64 program, and the rounding of all of it together.

    TensorFlow has some operations in float32 only (ResizeBilinear), and some constants (the slope of
    LeakyRelu), whatever the dtype of the tensor they are used on. Constants that float32 has exactly count
    for nothing.
    """
    waiting, seen, found = [tensor.op for tensor in program.outputs], set(), Counter[str]()
    rounding = 0.0
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        waiting += [tensor.op for tensor in op.inputs]
        dtypes = {tensor.dtype.base_dtype.name for tensor in op.outputs}
        units = [ROUNDING[dtype] for dtype in dtypes & (ROUNDING.keys() - {"float64"})]
        if op.type == "Const" and units and all(map(_is_exact, tf.make_ndarray(op.get_attr("value")).flat)):
            continue
        if "float64" in dtypes and any(
            attribute.HasField("f") and not _is_exact(attribute.f) for attribute in op.node_def.attr.values()
        ):
            units.append(ROUNDING["float32"])
        if units and op.type not in EXACT:
            found[op.type] += 1
            rounding += max(units)
    return dict(sorted(found.items())), rounding


def _is_exact(value: float) -> bool:
    """Whether a float32 constant is the decimal number that was meant: 0.25 is, 0.3 is not.

    A float's largest value, by which results are clipped, is as good as exact.
    """
    return abs(value) > LARGEST or float(str(np.float32(value))) == float(value)


def _own_rounding(model: keras.Model) -> float:
    """Of the coarsest arithmetic that a layer of the model computes in."""
    return max(ROUNDING.get(layer.compute_dtype, 0.0) for layer in model._flatten_layers())
