"""A Keras model made again in another dtype, and a model without its last softmax or sigmoid.

By Keras' own means alone: configurations, weights and symbolic tensors.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.models.functional import Functional  # not exported, and the only way to know one

WITH_ACTIVATION = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Activation,
)
"""Layers whose `activation` is the last thing that they do."""
FLOATS = ("float64", "float32", "float16", "bfloat16")
INTERPOLATION = 1e-5
"""A resizing that differs by less from products with two matrices is one."""


def graph_of(model: Any) -> Functional | None:
    """The graph of layers that is all that the model's call does; None where the call is its own code."""
    if isinstance(model, keras.Sequential):
        return model._functional if type(model).call is keras.Sequential.call else None
    return model if isinstance(model, Functional) and type(model).call is Functional.call else None


def remake(model: keras.Model, dtype: str) -> tuple[keras.Model, list[Interpolation]]:
    """A model of the same layers in this dtype with copies of the weights, and its layers that resize.

    Raises:
        TypeError: a subclassed or a quantized model.
        Exception: whatever a layer raises that cannot be made again.
    """
    done: dict[int, Any] = {}
    remade = _model_again(model, dtype, done)
    return remade, [op for op in done.values() if isinstance(op, Interpolation)]


class Interpolation(keras.layers.Layer):
    """Resizing in the dtype of the images, which TensorFlow has in float32 only, and without a forward mode.

    Images are resized by a product with a matrix along each axis, which the layer itself gives in float32. A
    layer that is something else beside (padding) is called as it is.
    """

    def __init__(self, resize: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self._resize = resize
        self.rounding = 0.0  # of positions along an axis, in pixels, once it was called and is a product

    def call(self, images: tf.Tensor) -> tf.Tensor:
        height, width = images.shape[1:3]
        with tf.init_scope():
            matrices = self._matrices(height, width) if height and width else None
        if matrices is None:
            return tf.cast(self._resize(tf.cast(images, "float32")), images.dtype)
        self.rounding = 2.0**-24 * max(height, width)
        rows, columns = (tf.constant(matrix, images.dtype) for matrix in matrices)
        return tf.einsum("ih,nhwc,jw->nijc", rows, images, columns)

    def _matrices(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(new height, height) and (new width, width), as far as they say all; else None."""
        down, across = np.eye(height, dtype=np.float32), np.eye(width, dtype=np.float32)
        rows = self._resized(np.repeat(down[:, :, None], width, axis=2))[:, :, 0].T
        columns = self._resized(np.repeat(across[:, None, :], height, axis=1))[:, 0, :].T
        noise = np.random.default_rng(0).normal(size=(1, height, width)).astype(np.float32)
        error = np.abs(rows @ noise[0] @ columns.T - self._resized(noise)[0]).max()
        return (rows, columns) if error < INTERPOLATION * np.abs(noise).max() else None

    def _resized(self, images: np.ndarray) -> np.ndarray:
        """Images (n, height, width)."""
        found: np.ndarray = keras.ops.convert_to_numpy(self._resize(tf.constant(images[..., None])))
        return found[..., 0]


def _interpolates(op: Any) -> bool:
    if isinstance(op, keras.layers.UpSampling2D):
        return bool(op.interpolation != "nearest") and op.data_format == "channels_last"
    return type(op).__name__ in ("Resize", "Resizing") and op.data_format == "channels_last"


def _model_again(model: keras.Model, dtype: str, done: dict[int, Any]) -> keras.Model:
    """Nested models are made again too; `done` has what was, by the id of the original."""
    graph = graph_of(model)
    if graph is None:
        raise TypeError(f"{type(model).__name__} has a call of its own")
    outside = "float64" if dtype == "float64" else "float32"

    def again(op: Any) -> Any:
        if id(op) not in done:
            is_model = isinstance(op, keras.Model)
            done[id(op)] = _model_again(op, dtype, done) if is_model else _op_again(op, dtype)
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
        if id(layer) in done and not isinstance(done[id(layer)], keras.Model | Interpolation):
            _copy_weights(layer, done[id(layer)])
    return remade


def _op_again(op: Any, dtype: str) -> Any:
    """A layer, or an operation of keras.ops, made again from its configuration."""
    if dtype == "float64" and _interpolates(op):
        return Interpolation(op, name=op.name, dtype=dtype)
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
    return dtype in FLOATS


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


def before_activation(tensor: Any) -> tuple[Any, str | None]:
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
    nested = graph_of(op)
    if nested is not None and len(nested.outputs) == 1:
        inner, kind = before_activation(nested.outputs[0])
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
