"""Keras layers and operations as rules, which share saved tensors between all cotangents.

Only what a layer certainly means is lowered; every other layer stays what it is and is differentiated by a
tape. Weights are copied into the rules: an audit's model does not change while it is audited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras.src.applications.convnext import LayerScale  # neither of them is exported
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from augnet.engine.backends import backend
from augnet.engine.graph.final_activation import WithoutActivation
from augnet.engine.graph.graph import Cast, Graph, Inference, Node, Shapes, Value
from augnet.engine.graph.linearize import function_of
from augnet.engine.rules.attention import Attention, LayerNorm, Softmax
from augnet.engine.rules.casting import Convert
from augnet.engine.rules.combining import Add, Concatenate, Multiply
from augnet.engine.rules.convolution import Convolution, Depthwise, Grouped, Transposed
from augnet.engine.rules.elementwise import Clip, Elementwise
from augnet.engine.rules.linear import Affine, Dense, Linear
from augnet.engine.rules.pooling import AveragePool, GlobalAverage, GlobalMax, MaxPool
from augnet.engine.rules.shaping import Pad, Permute, Reshape
from augnet.engine.rules.upsampling import Upsample

Lowered = list[Node] | None
layers = keras.layers
SMOOTH = tuple(
    getattr(keras.activations, name)
    for name in [
        "elu",
        "exponential",
        "gelu",
        "hard_sigmoid",
        "hard_silu",
        "mish",
        "relu6",
        "selu",
        "sigmoid",
        "silu",
        "softplus",
        "softsign",
        "tanh",
        "celu",
        "log_sigmoid",
        "hard_tanh",
        "squareplus",
    ]
    if hasattr(keras.activations, name)
)
"""Keras' activations that act on one element at a time, beside relu."""


def with_rules(graph: Graph, shapes: Shapes) -> Graph:
    """The graph with rules in place of the layers that have them.

    Args:
        shapes: every value's shape without the batch.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        made = _lower(node, shapes)
        nodes.extend([node] if made is None else made)
    return Graph(graph.input, graph.output, nodes)


def _lower(node: Node, shapes: Shapes) -> Lowered:
    op = node.op
    linear_end = isinstance(op, WithoutActivation)
    layer = op.layer if isinstance(op, Inference | WithoutActivation) else op
    if isinstance(op, Cast):
        kinds = {node.inputs[0].dtype, op.dtype}
        if not all(dtype.startswith(("float", "bfloat")) for dtype in kinds):
            return None
        return chain(node, [] if len(kinds) == 1 else [Convert(op.dtype)], shapes)
    if len(node.outputs) != 1:
        return None
    if isinstance(layer, layers.Layer):
        if type(layer).__module__.split(".")[0] != "keras" or getattr(layer, "quantization_mode", None):
            return None  # someone's own layer, or weights that are not what they seem
        if getattr(layer, "lora_enabled", False) or getattr(layer, "data_format", None) == "channels_first":
            return None
        if isinstance(layer, layers.Wrapper):
            return None
        rule = LAYERS.get(type(layer))
        given = {name for name, value in node.kwargs.items() if value is not None}
        if rule is None or given - {"training", "value", "query", "key"}:
            return None
        steps = rule(layer, node, shapes)
        if steps is None:
            return None
        if isinstance(steps, list) and steps and isinstance(steps[0], Node):
            return steps
        activation = (
            getattr(layer, "activation", None) if type(layer) in ACTIVATED and not linear_end else None
        )
        if activation is not None:
            ending = activation_rule(activation)
            if ending is None:
                return None
            steps = [*steps, *ending]
        return chain(node, steps, shapes)
    return _lower_operation(node, layer, shapes)


def chain(node: Node, steps: list[Any], shapes: Shapes) -> list[Node]:
    """Nodes of one input each, one after the other, from the node's first input to its output."""
    if not steps:
        steps = [Affine(None, None)]
    given: tuple[Value, ...] = node.inputs
    made = []
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        value = node.outputs[0] if last else Value((), node.outputs[0].dtype, f"{node.name}_{i}")
        made.append(Node(step, given, {}, (value,), node.name))
        given = (value,)
    return made


def activation_rule(function: Any) -> list[Any] | None:
    """The rule of an activation function; [] for none, None where there is no rule."""
    if function is keras.activations.linear:
        return []
    if function is keras.activations.relu:
        return [Clip()]
    if function is keras.activations.relu6:
        return [Clip(0.0, 6.0)]
    if function is keras.activations.softmax:
        return [Softmax()]
    return [Elementwise(function)] if function in SMOOTH else None


def weights_of(variable: Any) -> np.ndarray:
    return backend.values_of(variable).copy()


def _bias(layer: Any) -> np.ndarray | None:
    return weights_of(layer.bias) if layer.use_bias else None


def _dense(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [Dense(weights_of(layer.kernel), _bias(layer))]


def _conv(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    kernel, bias = weights_of(layer.kernel), _bias(layer)
    window = layer.strides, layer.padding, layer.dilation_rate
    if layer.groups == 1:
        return [Convolution(kernel, bias, *window)]
    if kernel.shape[2] == 1:  # a channel in each group
        return [Depthwise(kernel.reshape(*kernel.shape[:2], layer.groups, -1), bias, *window)]
    kernels = np.split(kernel, layer.groups, axis=-1)
    biases = [None] * layer.groups if bias is None else np.split(bias, layer.groups)
    parts = (Convolution(part, own, *window) for part, own in zip(kernels, biases, strict=True))
    return [Grouped(tuple(parts))]


def _conv_transpose(layer: Any, node: Node, shapes: Shapes) -> list[Any] | None:
    if layer.output_padding is not None or tuple(layer.dilation_rate) != (1, 1):
        return None
    shape = shapes[node.outputs[0]]
    return [Transposed(weights_of(layer.kernel), _bias(layer), tuple(layer.strides), layer.padding, shape)]


def _depthwise(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [
        Depthwise(weights_of(layer.kernel), _bias(layer), layer.strides, layer.padding, layer.dilation_rate)
    ]


def _separable(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    first = Depthwise(
        weights_of(layer.depthwise_kernel), None, layer.strides, layer.padding, layer.dilation_rate
    )
    return [first, Convolution(weights_of(layer.pointwise_kernel), _bias(layer))]


def _batch_norm(layer: Any, node: Node, shapes: Shapes) -> list[Any] | None:
    if layer.axis not in (-1, len(shapes[node.inputs[0]])) or getattr(layer, "renorm", False):
        return None
    wide = np.float64
    scale = 1 / np.sqrt(weights_of(layer.moving_variance).astype(wide) + layer.epsilon)
    if layer.scale:
        scale = scale * weights_of(layer.gamma)
    shift = -weights_of(layer.moving_mean).astype(wide) * scale
    return [Affine(scale, shift + weights_of(layer.beta) if layer.center else shift)]


def _rescaling(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    # As Keras rounds them, which is to float32 even in a float64 model.
    scale, offset = (
        backend.values_of(keras.ops.cast(part, "float64")) for part in (layer.scale, layer.offset)
    )
    return [Affine(scale, offset)]


def _normalization(layer: Any, node: Node, shapes: Shapes) -> list[Any] | None:
    mean, variance = (
        array.reshape(array.shape[1:]).astype(np.float64)
        for array in (weights_of(layer.mean), weights_of(layer.variance))
    )
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return [Affine(deviation, mean)] if layer.invert else [Affine(1 / deviation, -mean / deviation)]


def _layer_scale(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [Affine(weights_of(layer.gamma), None)]


def _relu(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    if layer.threshold:
        return [Elementwise(layer)]
    top = None if layer.max_value is None else float(layer.max_value)
    slope = float(layer.negative_slope or 0)
    return [Elementwise(layer)] if slope and top is not None else [Clip(slope, top)]


def _elementwise(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [Elementwise(layer)]


def _leaky_relu(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [Clip(float(layer.negative_slope))]


def _activation(layer: Any, node: Node, shapes: Shapes) -> list[Any] | None:
    return activation_rule(layer.activation)


def _softmax(layer: Any, node: Node, shapes: Shapes) -> list[Any] | None:
    return [Softmax()] if layer.axis in (-1, len(shapes[node.inputs[0]])) and len(node.inputs) == 1 else None


def _max_pool(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [MaxPool(tuple(layer.pool_size), tuple(layer.strides), layer.padding)]


def _average_pool(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [AveragePool(tuple(layer.pool_size), tuple(layer.strides), layer.padding)]


def _global_average(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [GlobalAverage(bool(layer.keepdims), len(shapes[node.inputs[0]]) - 1)]


def _reshape(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [Reshape(shapes[node.outputs[0]])]


def _permute(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [Permute(tuple(layer.dims))]


def _zero_padding(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [Pad(tuple(layer.padding[0]), tuple(layer.padding[1]))]


def _cropping(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    (top, bottom), (left, right) = layer.cropping
    return [Pad((-top, -bottom), (-left, -right))]


def _global_max(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [GlobalMax(bool(layer.keepdims))]


def _upsampling(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return [Upsample(tuple(layer.size)) if layer.interpolation == "nearest" else Linear(layer)]


def _identity(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return []


def _layer_norm(layer: Any, node: Node, shapes: Shapes) -> list[Any] | None:
    rank = len(shapes[node.inputs[0]])
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if axes not in ([-1], [rank]) or getattr(layer, "rms_scaling", False):
        return None
    scale = weights_of(layer.gamma) if layer.scale else None
    return [LayerNorm(scale, weights_of(layer.beta) if layer.center else None, layer.epsilon)]


def _add(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return _combined(node, Add((1,) * len(node.inputs)))


def _subtract(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    return _combined(node, Add((1, -1)))


def _scaled_add(layer: Any, node: Node, shapes: Shapes) -> list[Node]:
    first, second = node.inputs
    scaled = Value((), second.dtype, f"{node.name}_scaled")
    scale = Affine(np.asarray(layer.scale, np.float64), None)
    return [
        Node(scale, (second,), {}, (scaled,), node.name),
        Node(Add((1, 1)), (first, scaled), {}, node.outputs, node.name),
    ]


def _average(layer: Any, node: Node, shapes: Shapes) -> list[Node]:
    total = Value((), node.outputs[0].dtype, f"{node.name}_total")
    share = Affine(np.asarray(1 / len(node.inputs)), None)
    return [
        Node(Add((1,) * len(node.inputs)), node.inputs, {}, (total,), node.name),
        Node(share, (total,), {}, node.outputs, node.name),
    ]


def _multiply(layer: Any, node: Node, shapes: Shapes) -> list[Any] | None:
    return _combined(node, Multiply()) if len(node.inputs) == 2 else None


def _concatenate(layer: Any, node: Node, shapes: Shapes) -> list[Any]:
    rank = len(shapes[node.inputs[0]]) + 1
    return _combined(node, Concatenate(layer.axis % rank))


def _combined(node: Node, op: Any) -> list[Node]:
    return [Node(op, node.inputs, {}, node.outputs, node.name)]


def _attention(layer: Any, node: Node, shapes: Shapes) -> list[Node] | None:
    """Query, key and value by dense layers, attention by its rule, and a dense layer over the heads."""
    given = node.inputs
    named: dict[str, Any] = dict(zip(("query", "value", "key"), node.args, strict=False)) | node.kwargs
    if len(given) not in (2, 3) or not all(isinstance(named.get(name), Value) for name in ("query", "value")):
        return None
    query, value = named["query"], named["value"]
    key: Value = named["key"] if isinstance(named.get("key"), Value) else value
    if any(len(shapes[part]) != 2 for part in (query, key, value)) or layer._output_shape is not None:
        return None
    if (
        getattr(layer, "_use_gate", False)
        or getattr(layer, "_sliding_window", None)
        or layer._attention_axes != (1,)
    ):
        return None
    nodes: list[Node] = []

    def dense(part: Value, projection: Any, name: str) -> Value:
        kernel = weights_of(projection.kernel)
        bias = None if projection.bias is None else weights_of(projection.bias).reshape(-1)
        made = Value((), node.outputs[0].dtype, f"{node.name}_{name}")
        nodes.append(
            Node(
                Dense(kernel.reshape(kernel.shape[0], -1), bias), (part,), {}, (made,), f"{node.name}_{name}"
            )
        )
        return made

    q = dense(query, layer._query_dense, "query")
    k = dense(key, layer._key_dense, "key")
    v = dense(value, layer._value_dense, "value")
    mixed = Value((), node.outputs[0].dtype, f"{node.name}_mixed")
    scale = 1 / float(layer._key_dim) ** 0.5
    nodes.append(Node(Attention(layer._num_heads, scale), (q, k, v), {}, (mixed,), node.name))
    out = layer._output_dense
    kernel = weights_of(out.kernel)
    bias = None if out.bias is None else weights_of(out.bias)
    nodes.append(
        Node(
            Dense(kernel.reshape(-1, kernel.shape[-1]), bias),
            (mixed,),
            {},
            node.outputs,
            f"{node.name}_output",
        )
    )
    return nodes


LAYERS: dict[type, Callable[[Any, Node, Shapes], Any]] = {
    layers.Dense: _dense,
    layers.Conv2D: _conv,
    layers.Conv2DTranspose: _conv_transpose,
    layers.DepthwiseConv2D: _depthwise,
    layers.SeparableConv2D: _separable,
    layers.BatchNormalization: _batch_norm,
    layers.Rescaling: _rescaling,
    layers.Normalization: _normalization,
    layers.ReLU: _relu,
    layers.LeakyReLU: _leaky_relu,
    layers.ELU: _elementwise,
    layers.PReLU: _elementwise,
    layers.Activation: _activation,
    layers.Softmax: _softmax,
    layers.MaxPooling2D: _max_pool,
    layers.AveragePooling2D: _average_pool,
    layers.GlobalAveragePooling1D: _global_average,
    layers.GlobalAveragePooling2D: _global_average,
    layers.GlobalMaxPooling2D: _global_max,
    layers.Reshape: _reshape,
    layers.Flatten: _reshape,
    layers.Permute: _permute,
    layers.ZeroPadding2D: _zero_padding,
    layers.Cropping2D: _cropping,
    layers.UpSampling2D: _upsampling,
    layers.Dropout: _identity,
    layers.SpatialDropout2D: _identity,
    layers.GaussianNoise: _identity,
    layers.GaussianDropout: _identity,
    layers.AlphaDropout: _identity,
    layers.ActivityRegularization: _identity,
    layers.Identity: _identity,
    layers.LayerNormalization: _layer_norm,
    LayerScale: _layer_scale,
    layers.Add: _add,
    layers.Average: _average,
    CustomScaleLayer: _scaled_add,
    layers.Subtract: _subtract,
    layers.Multiply: _multiply,
    layers.Concatenate: _concatenate,
    layers.MultiHeadAttention: _attention,
}
ACTIVATED = (
    layers.Dense,
    layers.Conv2D,
    layers.Conv2DTranspose,
    layers.DepthwiseConv2D,
    layers.SeparableConv2D,
)


def _lower_operation(node: Node, op: Any, shapes: Shapes) -> Lowered:
    """Keras operations, such as x + y and keras.ops.relu(x)."""
    if type(op).__module__.split(".")[0] != "keras":
        return None
    name, values = type(op).__name__, node.inputs
    if name in OPERATIONS and len(values) == 1 and not node.kwargs and len(node.args) == 1:
        function = OPERATIONS[name]
        return chain(node, activation_rule(function) or [], shapes)
    if (
        name in ("Add", "Subtract", "Multiply", "TrueDivide", "Divide")
        and len(node.args) == 2
        and not node.kwargs
    ):
        left, right = node.args
        if len(values) == 2:
            if name in ("Add", "Subtract"):
                return _combined(node, Add((1, 1 if name == "Add" else -1)))
            return _combined(node, Multiply()) if name == "Multiply" else None
        return _with_constant(node, name, left, right, shapes)
    if name == "Concatenate" and len(values) > 1:
        return _concatenate(op, node, shapes)
    if len(values) != 1:
        return None
    if name == "Reshape":
        return chain(node, [Reshape(shapes[node.outputs[0]])], shapes)

    def apply(x: Any) -> Any:
        return function_of(node)(x)[0]

    if name in ELEMENTWISE and shapes[values[0]] == shapes[node.outputs[0]]:
        return chain(node, [Elementwise(apply)], shapes)
    return chain(node, [Linear(apply)], shapes) if name in LINEAR else None


def _with_constant(node: Node, name: str, left: Any, right: Any, shapes: Shapes) -> Lowered:
    first = isinstance(left, Value)
    other = right if first else left
    if not isinstance(other, int | float | np.ndarray | np.number):
        return None
    array = np.asarray(other, np.float64)
    value = node.inputs[0]
    if array.ndim > len(shapes[value]) or np.broadcast_shapes(array.shape, shapes[value]) != shapes[value]:
        return None
    match name, first:
        case "Add", _:
            step = Affine(None, array)
        case "Subtract", True:
            step = Affine(None, -array)
        case "Subtract", False:
            step = Affine(np.asarray(-1.0), array)
        case "Multiply", _:
            step = Affine(array, None)
        case (("TrueDivide" | "Divide"), True):
            step = Affine(1 / array, None)
        case _:
            return None
    return chain(node, [step], shapes)


OPERATIONS = {
    "Relu": keras.activations.relu,
    "Relu6": keras.activations.relu6,
    "Sigmoid": keras.activations.sigmoid,
    "Tanh": keras.activations.tanh,
    "Silu": keras.activations.silu,
    "Softplus": keras.activations.softplus,
    "Softsign": keras.activations.softsign,
    "Exp": keras.activations.exponential,
    "HardSigmoid": keras.activations.hard_sigmoid,
}
ELEMENTWISE = frozenset(
    [
        "Absolute",
        "Celu",
        "Clip",
        "Cos",
        "Elu",
        "Erf",
        "Expm1",
        "Gelu",
        "HardSilu",
        "HardTanh",
        "LeakyRelu",
        "Log",
        "Log1p",
        "LogSigmoid",
        "Maximum",
        "Minimum",
        "Mish",
        "Negative",
        "Power",
        "Reciprocal",
        "Rsqrt",
        "Selu",
        "Sin",
        "Sqrt",
        "Square",
        "Squareplus",
    ]
)
"""Operations of one element, and of constants beside it."""
LINEAR = frozenset(
    [
        "BroadcastTo",
        "ExpandDims",
        "Flip",
        "GetItem",
        "Mean",
        "Moveaxis",
        "Pad",
        "Repeat",
        "Roll",
        "Squeeze",
        "Sum",
        "Swapaxes",
        "Tile",
        "Transpose",
    ]
)
