"""The Keras model as plain TensorFlow differentiates it, made again in float64: what verify.py judges by.

Nothing here is taken from the engine, so a fault of its graph, rules or rewriting cannot be in both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.ops import get_gradient_function  # not exported, and the only way to ask

from augnet.engine.verification.remake import before_activation, graph_of, remake
from augnet.errors import ModelError

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Largest relative error of one rounded number."""
ZERO = tf.UnconnectedGradients.ZERO
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
        rounding: with that of constants, which are the same for all images, so differences know none of it.
    """

    operations: tuple[str, ...] = ()
    results: float = 0.0
    rounding: float = 0.0


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
            scores = tf.gather(self.program(x.shape)(x)[0], outputs)
        rows = tape.jacobian(scores, x, ZERO, experimental_use_pfor=False)
        return rows[:, 0].numpy().astype(np.float64)

    def directional(self, image: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """J v (direction, K) of one image by forward mode, float64; only where `no_forward_mode` is ""."""
        x = tf.constant(np.broadcast_to(image, directions.shape), self.dtype)
        with tf.autodiff.ForwardAccumulator(x, tf.constant(directions, self.dtype)) as forward:
            scores = self.program(x.shape)(x)
        return forward.jvp(scores, ZERO).numpy().astype(np.float64)

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
    scores, activation = _scores_of(model, output, space, reduce)
    outside, reason = "float64" if dtype == "float64" else "float32", ""
    resizings: dict[int, float] = {}
    try:
        remade, resizings = remake(model, dtype)
        scores_again, activation = _scores_of(remade, output, space, reduce)
        own, again = (f(tf.constant(images[:1], outside)).numpy() for f in (scores, scores_again))
        if np.linalg.norm(own - again) > SEEN_APART * np.linalg.norm(own):
            raise ValueError("made again from its configuration, the model has other outputs")
        scores = scores_again
    except Exception as error:  # a layer may raise anything; then the model itself has to do, and it is said
        first = (str(error).strip().splitlines() or [""])[0]
        outside, reason = "float32", f"{type(error).__name__}: {first[:200]}"

    @cache
    def program(shape: tuple[int, ...]) -> tf.types.experimental.ConcreteFunction:
        return tf.function(scores, autograph=False).get_concrete_function(tf.TensorSpec(shape, outside))

    single, coarse = program((1, *images.shape[1:])), Coarse()
    if reason:
        dtypes = [layer.compute_dtype for layer in model._flatten_layers()]
        own_rounding = max(ROUNDING.get(dtype, 0.0) for dtype in dtypes)
        coarse = Coarse((), own_rounding, own_rounding)
    elif outside == "float64":
        coarse = _coarse_parts(single, resizings)
    missing = _without_forward_mode(scores, single.inputs[0], single.outputs[0])
    return Oracle(program, outside, activation, coarse, missing, reason)


def _scores_of(
    model: keras.Model, output: int | str | None, space: str, reduce: str | None
) -> tuple[Callable[[tf.Tensor], tf.Tensor], str | None]:
    """Images (n, height, width, channel) -> outputs (n, K) of their dtype, and the activation taken off."""
    shape = (
        model.inputs[0].shape if getattr(model, "inputs", None) else model.get_build_config()["input_shape"]
    )
    graph, activation = graph_of(model), None
    if graph is not None:
        end = _chosen(graph.outputs, list(graph.output_names), output)
        end, activation = before_activation(end) if space == "logits" else (end, None)
        model, output = keras.Model(graph.inputs, end), None

    def scores(x: tf.Tensor) -> tf.Tensor:
        found = model(x if len(shape) == 4 else x[..., 0], training=False)
        names = sorted(found) if isinstance(found, dict) else None
        found = keras.tree.flatten(found)
        found = _chosen(found, names or [str(i) for i in range(len(found))], output)
        if reduce in ("mean", "sum"):
            found = {"mean": tf.reduce_mean, "sum": tf.reduce_sum}[reduce](found, (1, 2))
        elif reduce is not None:
            row, column = json.loads(reduce.removeprefix("at:"))
            found = found[:, row, column]
        return tf.cast(tf.reshape(found, (x.shape[0], math.prod(found.shape[1:]))), x.dtype)

    return scores, activation


def _chosen(outputs: list[Any], names: list[str], output: int | str | None) -> Any:
    """The output at this position or of this name; the first by default."""
    place = names.index(output) if output in names else output or 0
    if not isinstance(place, int) or not 0 <= place < len(outputs):
        raise ModelError(f"model.output: no output {output!r}; the model has {', '.join(names)}")
    return outputs[place]


def _coarse_parts(program: tf.types.experimental.ConcreteFunction, resizings: dict[int, float]) -> Coarse:
    """What is less exact than float64 in a float64 program.

    TensorFlow has some operations in float32 only, and some constants (the slope of LeakyRelu), whatever the
    dtype of the tensor that they are used on. Constants that float32 has exactly count for nothing.
    """
    names = {"resizing" for _ in resizings}
    results, constants = 0.0, sum(resizings.values())
    for op in _behind(program.outputs):
        dtypes = {tensor.dtype.base_dtype.name for tensor in op.outputs} & ROUNDING.keys()
        rounding = max((ROUNDING[dtype] for dtype in dtypes - {"float64"}), default=0.0)
        attributes = [value.f for value in op.node_def.attr.values() if value.HasField("f")]
        if op.type == "Const":
            if rounding and not _are_exact(tf.make_ndarray(op.get_attr("value")).flat):
                constants += rounding
        elif rounding and op.type not in EXACT:
            names.add(op.type)
            results += rounding
        elif "float64" in dtypes and not _are_exact(attributes):
            names.add(op.type)
            constants += ROUNDING["float32"]
    return Coarse(tuple(sorted(names)), results, results + constants)


def _without_forward_mode(
    function: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor, scores: tf.Tensor
) -> str:
    """The operation that TensorFlow's forward mode cannot pass in a function of tensors like these, or "".

    Forward mode differentiates the backward pass with respect to the cotangents, so all that these go through
    needs a gradient. TensorFlow says nothing where an operation is registered as having none.
    """

    def backward(x: tf.Tensor, cotangents: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            found = function(x)
        return tape.gradient(found, x, cotangents, unconnected_gradients=ZERO)

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in (images, scores)]
    graph = tf.function(backward, autograph=False).get_concrete_function(*specs)
    passed = {graph.inputs[1].op}
    for op in _behind(graph.outputs):
        if any(tensor.op in passed and _carries(tensor) for tensor in op.inputs):
            passed.add(op)
            if any(map(_carries, op.outputs)) and op.type not in CONSTANT and not _has_gradient(op):
                return str(op.type)
    return ""


def _has_gradient(op: tf.Operation) -> bool:
    """Whether TensorFlow knows one; some operations are registered as having none."""
    try:
        return get_gradient_function(op) is not None
    except LookupError:
        return False


def _behind(tensors: Iterable[tf.Tensor]) -> list[tf.Operation]:
    """The operations that derivatives pass on their way to these tensors of a graph, in order."""
    found = {tensor.op for tensor in tensors}
    operations = next(iter(found)).graph.get_operations()  # in the order in which they were made
    for op in reversed(operations):
        if op in found:
            found |= {tensor.op for tensor in op.inputs if _carries(tensor)}
    return [op for op in operations if op in found]


def _carries(tensor: tf.Tensor) -> bool:
    """Whether derivatives pass a tensor."""
    return bool(tensor.dtype.is_floating or tensor.dtype.is_complex)


def _are_exact(values: Iterable[float]) -> bool:
    """Whether float32 constants are the decimal numbers that were meant: 0.25 is, 0.3 is not."""
    return all(abs(value) > LARGEST or float(str(np.float32(value))) == float(value) for value in values)
