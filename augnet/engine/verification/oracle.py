"""The Keras model as plain TensorFlow differentiates it, made again in float64: what verify.py judges by.

Nothing here is taken from the engine, so a fault of its graph, rules or rewriting cannot be in both.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.ops import get_gradient_function  # not exported, and the only way to ask

from augnet.engine.verification.remake import Interpolation, before_activation, graph_of, remake
from augnet.errors import ConfigError, ModelError

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative error of one rounded number."""
AT = re.compile(r"at:\[\s*(\d+)\s*,\s*(\d+)\s*\]")
SEEN_APART = 0.1
"""Outputs of the model and of its remake that differ by this share are not those of one model."""
EXACT = ("Identity", "Maximum", "Minimum", "Relu", "Reshape", "Transpose")
"""Operations that round nothing, whatever the dtype."""
LARGEST = 1e30
"""Constants above it only clip."""
CONSTANT = ("OnesLike", "ZerosLike")
"""Operations that need no gradient, as what they give does not depend on what they are given."""


@dataclass(frozen=True)
class Coarse:
    """What is less exact than float64 inside a float64 function.

    Attributes:
        operations: their names.
        results: relative rounding of what operations give, all of them together: noise from image to image.
        constants: the same of constants: they are the same for all images, so differences know none of it.
    """

    operations: tuple[str, ...] = ()
    results: float = 0.0
    constants: float = 0.0

    @property
    def rounding(self) -> float:
        """Of results and constants."""
        return self.results + self.constants


@dataclass(frozen=True)
class Oracle:
    """A model as a function, differentiated by tapes.

    Attributes:
        program: for images of this shape, compiled: images (n, height, width, channel) of `dtype` -> outputs
            (n, K) of `dtype`.
        dtype: "float64", or "float32" for a model that cannot be made again.
        activation: "softmax" or "sigmoid" where one was taken off the end, else None.
        coarse: what computes less exactly than `dtype` inside.
        no_forward_mode: an operation of TensorFlow's that has no forward mode, or "".
        reason: why the model could not be made again, or "".
    """

    program: Callable[[tuple[int, ...]], Callable[[tf.Tensor], tf.Tensor]]
    dtype: str
    activation: str | None
    coarse: Coarse
    no_forward_mode: str
    reason: str = ""

    @property
    def unit(self) -> float:
        """Relative noise of an output, as far as it is known beforehand."""
        return max(ROUNDING[self.dtype], self.coarse.results)

    @property
    def name(self) -> str:
        """The arithmetic in words."""
        if self.reason:
            own = next(dtype for dtype, unit in ROUNDING.items() if unit >= self.unit)
            return f"the model itself in {own}"
        named = ", ".join(self.coarse.operations)
        return f"the model in {self.dtype}" + (f" but for {named}" if named else "")

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

    def directional(self, image: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """J v (direction, K) of one image by forward mode, float64; only where `no_forward_mode` is ""."""
        x = tf.constant(np.broadcast_to(image, directions.shape), self.dtype)
        with tf.autodiff.ForwardAccumulator(x, tf.constant(directions, self.dtype)) as forward:
            scores = self.program(x.shape)(x)
        found: np.ndarray = forward.jvp(scores, unconnected_gradients=tf.UnconnectedGradients.ZERO).numpy()
        return found.astype(np.float64)

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
    resizings: list[Interpolation] = []
    remade: keras.Model = model
    try:
        with _no_retracing_warning():
            remade, resizings = remake(model, dtype)
            _refuse_another(model, remade, images[:1].astype(outside), outside)
    except Exception as error:  # a layer may raise anything; then the model itself has to do, and it is said
        first = (str(error).strip().splitlines() or [""])[0]
        remade, outside, reason = model, "float32", f"{type(error).__name__}: {first[:200]}"
    activation = None
    graph = graph_of(remade)
    if graph is not None:
        end = _chosen(graph.outputs, list(graph.output_names), output)
        logits, activation = before_activation(end) if space == "logits" else (end, None)
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

    single = program((1, *images.shape[1:]))
    if outside == "float64":
        parts = _coarse_parts(single, resizings)
    else:
        parts = Coarse(results=_own_rounding(remade)) if reason else Coarse()
    missing = _without_forward_mode(function, single.inputs[0], single.outputs[0])
    return Oracle(program, outside, activation, parts, missing, reason)


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


def _refuse_another(model: keras.Model, remade: keras.Model, image: np.ndarray, dtype: str) -> None:
    """Raises ValueError where a layer's configuration does not say all that the layer does."""
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
    """The output at this position or of this name; the first by default."""
    place = names.index(output) if output in names else output or 0
    if not isinstance(place, int) or not 0 <= place < len(outputs):
        raise ModelError(f"model.output: no output {output!r}; the model has {', '.join(names)}")
    return outputs[place]


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


def _coarse_parts(program: Any, resizings: list[Interpolation]) -> Coarse:
    """What is less exact than float64 in a float64 program.

    TensorFlow has some operations in float32 only, and some constants (the slope of LeakyRelu), whatever the
    dtype of the tensor that they are used on. Constants that float32 has exactly count for nothing.
    """
    names = {"resizing" for layer in resizings if layer.rounding}
    results, constants = 0.0, sum(layer.rounding for layer in resizings)
    for op in _reached([tensor.op for tensor in program.outputs], lambda op: [x.op for x in op.inputs]):
        dtypes = {tensor.dtype.base_dtype.name for tensor in op.outputs}
        coarse = [ROUNDING[dtype] for dtype in dtypes & (ROUNDING.keys() - {"float64"})]
        attributes = [value.f for value in op.node_def.attr.values() if value.HasField("f")]
        if op.type == "Const":
            if coarse and not all(map(_is_exact, tf.make_ndarray(op.get_attr("value")).flat)):
                constants += max(coarse)
        elif coarse and op.type not in EXACT:
            names.add(op.type)
            results += max(coarse)
        elif "float64" in dtypes and not all(map(_is_exact, attributes)):
            names.add(op.type)
            constants += ROUNDING["float32"]
    return Coarse(tuple(sorted(names)), results, constants)


def _without_forward_mode(function: Callable[[tf.Tensor], tf.Tensor], images: Any, scores: Any) -> str:
    """The operation that TensorFlow's forward mode cannot pass in a function of tensors like these, or "".

    Forward mode differentiates the backward pass with respect to the cotangents, so all that these go through
    needs a gradient. TensorFlow says nothing where an operation is registered as having none.
    """

    def backward(x: tf.Tensor, cotangents: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            found = function(x)
        return tape.gradient(found, x, cotangents, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in (images, scores)]
    with _no_retracing_warning():
        graph = tf.function(backward, autograph=False).get_concrete_function(*specs)
    needed = _reached([tensor.op for tensor in graph.outputs], lambda op: [x.op for x in op.inputs])
    names = {op.name for op in needed}

    def users(op: Any) -> list[Any]:
        floats = [tensor for tensor in op.outputs if tensor.dtype.is_floating]
        return [user for tensor in floats for user in tensor.consumers() if user.name in names]

    cotangents = graph.inputs[1].op
    for op in _reached([cotangents], users):
        is_float = any(tensor.dtype.is_floating for tensor in op.outputs)
        if op is not cotangents and is_float and op.type not in CONSTANT and not _has_gradient(op):
            return str(op.type)
    return ""


def _has_gradient(op: Any) -> bool:
    """Whether TensorFlow knows one; some operations are registered as having none."""
    try:
        return get_gradient_function(op) is not None
    except LookupError:
        return False


def _reached(start: Iterable[Any], neighbours: Callable[[Any], Iterable[Any]]) -> list[Any]:
    """Operations of a graph that lie on a way from these."""
    waiting, found = list(start), {}
    while waiting:
        op = waiting.pop()
        if op.name not in found:
            found[op.name] = op
            waiting += neighbours(op)
    return list(found.values())


def _is_exact(value: float) -> bool:
    """Whether a float32 constant is the decimal number that was meant: 0.25 is, 0.3 is not."""
    return abs(value) > LARGEST or float(str(np.float32(value))) == float(value)


def _own_rounding(model: keras.Model) -> float:
    """Of the coarsest arithmetic that a layer of the model computes in."""
    return max(ROUNDING.get(layer.compute_dtype, 0.0) for layer in model._flatten_layers())
