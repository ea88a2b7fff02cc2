"""Bare TensorFlow calls in a Keras 2 model, as Keras 3 layers.

Keras 2 turned `x / 127.5`, `x[..., ::-1]` or `tf.nn.relu(x)` on its symbolic tensors into layers of the
classes TFOpLambda and SlicingOpLambda, which Keras 3 does not have. Most such calls scale the image, apply an
activation or join two branches, and Keras 3 has a layer for each of those. A call that has none stays as it
is, and Keras refuses the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

CALLS = ("TFOpLambda", "SlicingOpLambda")
CONSTANT = "_CONSTANT_VALUE"
"""What stands for the layer's name where the first operand is a number."""

Description = tuple[str, dict[str, Any]]
"""A layer's class name and the arguments it is made with."""


@keras.saving.register_keras_serializable(package="augnet")
class ReverseChannels(keras.layers.Layer):
    """RGB to BGR: x[..., ::-1]."""

    def call(self, inputs: Any) -> Any:
        return keras.ops.flip(inputs, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


def without_tensorflow_calls(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keras 2 descriptions of a model's layers, with calls replaced where Keras 3 has a layer for them.

    >>> call = {"class_name": "TFOpLambda", "name": "half", "config": {"name": "half", "function":
    ...         "math.multiply"}, "inbound_nodes": [["image", 0, 0, {"y": 0.5, "name": None}]]}
    >>> without_tensorflow_calls([call])[0]["class_name"]
    'Rescaling'
    """
    return [_layer_for(layer) if layer.get("class_name") in CALLS else layer for layer in layers]


def _layer_for(described: dict[str, Any]) -> dict[str, Any]:
    nodes = described["inbound_nodes"]
    if len(nodes) != 1:  # one layer for each call, unless somebody shares it
        return described
    # Calls of a list of tensors list their nodes, as other layers do.
    sources = nodes[0] if isinstance(nodes[0][0], list) else nodes
    operands = [list(source[:3]) for source in sources]
    arguments = {key: value for key, value in sources[0][3].items() if key != "name"}
    function = described["config"]["function"]
    if _is_tensor(arguments.get("y")):
        operands.append(arguments.pop("y"))
    constant_first = operands[0][0] == CONSTANT
    if constant_first:
        arguments["x"] = operands.pop(0)[2]
    elif len(operands) == 2 and operands[1][0] == CONSTANT:
        arguments["y"] = operands.pop(1)[2]
    make = (JOINS if len(operands) > 1 else SINGLE).get(function)
    found = make(arguments) if make else None
    if found is None:
        return described
    kind, config = found
    common = {key: described["config"][key] for key in ("name", "dtype") if key in described["config"]}
    return {
        "class_name": kind,
        "name": described["name"],
        "config": {**common, **config},
        "inbound_nodes": [[[*operand, {}] for operand in operands]],
    }


def _is_tensor(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def _affine(scale: Any = 1.0, offset: Any = 0.0) -> Description:
    return "Rescaling", {"scale": scale, "offset": offset}


def _each(value: Any, function: Callable[[float], float]) -> Any:
    return [_each(part, function) for part in value] if isinstance(value, list) else function(value)


def _divide(arguments: dict[str, Any]) -> Description | None:
    return _affine(_each(arguments["y"], lambda y: 1 / y)) if "y" in arguments else None


def _multiply(arguments: dict[str, Any]) -> Description:
    return _affine(arguments["y"] if "y" in arguments else arguments["x"])


def _add(arguments: dict[str, Any]) -> Description:
    return _affine(offset=arguments["y"] if "y" in arguments else arguments["x"])


def _subtract(arguments: dict[str, Any]) -> Description:
    if "y" in arguments:
        return _affine(offset=_each(arguments["y"], lambda y: -y))
    return _affine(-1.0, arguments["x"])


def _bias_add(arguments: dict[str, Any]) -> Description | None:
    last = arguments.get("data_format") in (None, "NHWC", "channels_last")
    return _affine(offset=arguments["bias"]) if last and isinstance(arguments["bias"][0], float) else None


def _cast(arguments: dict[str, Any]) -> Description | None:
    return _affine() if arguments.get("dtype") == "float32" else None


def _getitem(arguments: dict[str, Any]) -> Description | None:
    reverse = [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]
    return ("augnet>ReverseChannels", {}) if arguments.get("slice_spec") == reverse else None


def _mean(arguments: dict[str, Any]) -> Description | None:
    if arguments.get("axis") not in ([1, 2], [-3, -2]):
        return None
    return "GlobalAveragePooling2D", {"keepdims": bool(arguments.get("keepdims"))}


def _resize(arguments: dict[str, Any]) -> Description | None:
    if arguments.get("antialias") or arguments.get("preserve_aspect_ratio"):
        return None
    height, width = arguments["size"]
    method = arguments.get("method") or "bilinear"
    return "Resizing", {"height": height, "width": width, "interpolation": method}


def _reshape(arguments: dict[str, Any]) -> Description | None:
    batch, *shape = arguments["shape"]
    return ("Reshape", {"target_shape": shape}) if batch == -1 and -1 not in shape else None


def _activation(name: str) -> Callable[[dict[str, Any]], Description | None]:
    def make(arguments: dict[str, Any]) -> Description | None:
        changed = {key: value for key, value in arguments.items() if value is not None}
        return ("Activation", {"activation": name}) if changed in ({}, {"axis": -1}) else None

    return make


SINGLE: dict[str, Callable[[dict[str, Any]], Description | None]] = {
    "__operators__.add": _add,
    "__operators__.getitem": _getitem,
    "cast": _cast,
    "image.resize": _resize,
    "math.add": _add,
    "math.divide": _divide,
    "math.multiply": _multiply,
    "math.reduce_mean": _mean,
    "math.sigmoid": _activation("sigmoid"),
    "math.subtract": _subtract,
    "math.tanh": _activation("tanh"),
    "math.truediv": _divide,
    "nn.bias_add": _bias_add,
    "nn.gelu": _activation("gelu"),
    "nn.relu": _activation("relu"),
    "nn.relu6": _activation("relu6"),
    "nn.sigmoid": _activation("sigmoid"),
    "nn.silu": _activation("silu"),
    "nn.softmax": _activation("softmax"),
    "nn.tanh": _activation("tanh"),
    "reshape": _reshape,
}
"""Calls of one tensor, by the name that Keras 2 wrote."""

JOINS: dict[str, Callable[[dict[str, Any]], Description | None]] = {
    "__operators__.add": lambda arguments: ("Add", {}),
    "concat": lambda arguments: ("Concatenate", {"axis": arguments["axis"]}),
    "math.add": lambda arguments: ("Add", {}),
    "math.multiply": lambda arguments: ("Multiply", {}),
    "math.subtract": lambda arguments: ("Subtract", {}),
}
"""Calls of several tensors."""
