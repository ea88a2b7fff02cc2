"""A Keras model made again in another dtype, and the end of a model before its last softmax or sigmoid.

By Keras' own means alone: configurations, weights and symbolic tensors.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf
from keras.src.models.functional import Functional  # not exported, and the only way to know one

from augnet.engine.types import Op

WITH_ACTIVATION = keras.layers.Dense | keras.layers.Conv1D | keras.layers.Conv2D | keras.layers.Activation
"""Layers whose `activation` is the last thing that they do."""


def graph_of(model: Op) -> Functional | None:
    """The graph of layers that is all that the model's call does; None where the call is its own code."""
    if isinstance(model, keras.Sequential):
        return model._functional if type(model).call is keras.Sequential.call else None
    return model if isinstance(model, Functional) and type(model).call is Functional.call else None


def remake(model: keras.Model, dtype: str) -> tuple[keras.Model, dict[int, float]]:
    """A model of the same layers in this dtype with copies of the weights.

    Returns:
        The model; and once it was called, the rounding of each layer that resizes, by its id.

    Raises:
        TypeError: a subclassed model.
        Exception: whatever a layer raises that cannot be made again.
    """
    cache: dict[int, Any] = {}  # clone_model's, of the nested models too
    copied: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
    roundings: dict[int, float] = {}

    def again(op: Op) -> Op:
        if isinstance(op, keras.Model):
            return model_again(op)
        if dtype == "float64" and _resizes(op):
            return _resizing(_in_dtype(op, "float32"), roundings)
        copy = _in_dtype(op, dtype)
        if isinstance(op, keras.layers.Layer):
            copied.append((op, copy))
        return copy

    def model_again(model: keras.Model) -> keras.Model:
        graph = graph_of(model)
        if graph is None:
            raise TypeError(f"{type(model).__name__} has a call of its own")
        outside = dtype if dtype == "float64" else "float32"
        inputs = keras.tree.map_structure(
            lambda x: keras.Input(batch_shape=x.shape, dtype=outside if _is_float(x.dtype) else x.dtype),
            graph.input,
        )
        return keras.models.clone_model(model, inputs, again, cache=cache)

    remade = model_again(model)
    for layer, copy in copied:
        _copy_weights(layer, copy)
    return remade, roundings


def _resizes(op: Op) -> bool:
    """Whether it resizes, and nothing else (padding)."""
    named = type(op).__name__ in ("Resize", "Resizing", "UpSampling2D")
    return named and op.data_format == "channels_last" and not getattr(op, "pad_to_aspect_ratio", False)


def _resizing(resize: Op, roundings: dict[int, float]) -> keras.layers.Layer:
    """Resizing in float64, which TensorFlow has in float32 only, and without a forward mode.

    An image is resized by a product with a matrix along each axis; `resize` gives them, in float32.
    """

    def product(images: tf.Tensor) -> tf.Tensor:
        height, width = images.shape[1:3]
        if not height or not width:  # while the graph is built
            return tf.cast(resize(tf.cast(images, "float32")), images.dtype)
        with tf.init_scope():
            down = resize(tf.repeat(tf.eye(height)[:, :, None, None], width, axis=2))[:, :, 0, 0].numpy()
            across = resize(tf.repeat(tf.eye(width)[:, None, :, None], height, axis=1))[:, 0, :, 0].numpy()
        if resize.interpolation != "nearest":
            roundings[id(resize)] = 2.0**-24 * max(height, width)  # of a position along an axis, in pixels
        return tf.einsum("hi,nhwc,wj->nijc", down.astype("float64"), images, across.astype("float64"))

    return keras.layers.Lambda(product, dtype="float64", name=resize.name)


def _in_dtype(op: Op, dtype: str) -> Op:
    """A layer, or an operation of keras.ops, made again from its configuration; itself if it has no float."""
    if isinstance(op, keras.layers.Lambda):  # its configuration holds bytecode, which loading refuses
        return keras.layers.Lambda(op.function, arguments=op.arguments, dtype=dtype, name=op.name)
    if isinstance(op, keras.layers.Layer):
        return type(op).from_config(_with_dtype(op.get_config(), dtype))
    if _is_float(getattr(op, "dtype", None)):  # an operation has no policy
        return type(op).from_config(_with_dtype(op.get_config(), dtype.removeprefix("mixed_")))
    return op


def _with_dtype(config: Any, dtype: str) -> Any:
    """The configuration with every floating-point dtype and policy in it replaced, nested layers' too."""
    if isinstance(config, list | tuple):
        return type(config)(_with_dtype(item, dtype) for item in config)
    if isinstance(config, dict):
        return {
            key: dtype if key == "dtype" and _is_float(value) else _with_dtype(value, dtype)
            for key, value in config.items()
        }
    return config


def _is_float(dtype: Any) -> bool:
    """Whether a dtype, or the policy that a configuration describes, is of floats."""
    name = dtype["config"].get("name") if isinstance(dtype, dict) else dtype
    return isinstance(name, str) and name.removeprefix("mixed_").startswith(("float", "bfloat"))


def _copy_weights(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """By the layers' own way of saving, as some derive more from what they load (Normalization does)."""
    for inner, copy in zip(source._flatten_layers(), target._flatten_layers(), strict=True):
        store: dict[str, Any] = {}
        inner.save_own_variables(store)
        copy.load_own_variables(store)


def before_activation(end: keras.KerasTensor) -> tuple[keras.KerasTensor, str | None]:
    """The symbolic tensor before the softmax or sigmoid that makes this one, and which it was.

    What only moves numbers, or does nothing at inference, may follow the activation; outputs are flattened
    anyway. A softmax over a part of the outputs is left.
    """
    tensor = end
    while True:
        op, place, _ = tensor._keras_history
        sources = op._inbound_nodes[place].input_tensors
        kind = _kind(op, len(tensor.shape)) if len(sources) == 1 else None
        if kind != "moves":
            break
        tensor = sources[0]
    nested = graph_of(op)
    if nested is not None and len(nested.outputs) == 1:
        inner, kind = before_activation(nested.outputs[0])
        return (keras.Model(nested.inputs, inner)(sources[0]), kind) if kind else (end, None)
    whole = tensor.shape == end.shape or math.prod(n or 1 for n in end.shape[1:]) == tensor.shape[-1]
    if kind is None or not whole:
        return end, None
    if not isinstance(op, WITH_ACTIVATION):
        return sources[0], kind
    bare = type(op).from_config({**op.get_config(), "activation": None, "name": f"{op.name}_logits"})
    bare.trainable = op.trainable
    logits = bare(sources[0])
    _copy_weights(op, bare)
    return logits, kind


def _kind(op: Op, rank: int) -> str | None:
    """ "softmax" over the last axis or "sigmoid" as the last thing the operation does, "moves", or None."""
    name = type(op).__name__.lower()  # of layers and of operations, which Keras does not export
    if isinstance(op, WITH_ACTIVATION):
        name = op.activation.__name__
        if name == "linear" and isinstance(op, keras.layers.Activation):
            return "moves"
    elif name in ("cast", "dropout", "flatten", "identity", "reshape"):
        return "moves"
    is_last = name == "sigmoid" or (name == "softmax" and getattr(op, "axis", -1) in (-1, rank - 1))
    return name if is_last else None
