"""Finding out what a model is, as far as its Jacobian is concerned; and which models have none."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import keras
import numpy as np

from augnet.engine.backends import backend
from augnet.engine.graph.final_activation import split_end
from augnet.engine.graph.graph import Graph, Node, choose_output, trace
from augnet.engine.graph.precision import in_precision
from augnet.engine.graph.reduce import reduced_function, reduced_graph
from augnet.engine.inspection.dependence import Dependence, dependence, has_steps
from augnet.engine.inspection.probes import probe_images
from augnet.engine.inspection.randomness import is_random, may_be_random
from augnet.engine.inspection.samples import mixes_samples
from augnet.engine.model_spec import ModelSpec
from augnet.engine.options import Precision
from augnet.engine.types import Tensor, is_float
from augnet.errors import ModelError

log = logging.getLogger(__name__)

REBUILT = {"float64": "float64", "bfloat16": "mixed_bfloat16"}
"""The Keras dtype that a model is built with for a precision that float32 layers do not compute in."""
LOOKED_AT = 3
"""Probe images that a model is tried on: one of them keeps its place when those beside it change."""
LISTED = 20
"""Outputs that a warning names."""


@dataclass(frozen=True)
class InspectedModel:
    """A model that was found to have a Jacobian, as the functions to differentiate.

    Attributes:
        model: the Keras model that it was made of.
        function: x (batch, *input_shape) -> outputs (batch, K), in the chosen space.
        graph: the same as a graph, or None for a model without one.
        input_shape: that the model takes, without batch; (height, width) where it has no channel axis.
        dtype: of images, outputs and rows; what is in between may be bfloat16.
        precision: "float32", "float64", "bfloat16" or "tf32".
        spec: what there is to know of it without computing.
    """

    model: keras.Model
    function: Callable[[Tensor], Tensor]
    graph: Graph | None
    input_shape: tuple[int, ...]
    dtype: str
    precision: Precision
    spec: ModelSpec


def inspect_model(
    model: keras.Model,
    *,
    output: int | str | None = None,
    space: str = "logits",
    input_size: tuple[int, int] | None = None,
    reduce: str | None = None,
    precision: Precision = "float32",
) -> InspectedModel:
    """Trace a model and try it on noise images, in a few small forward passes; nothing is compiled.

    Whether the device has the precision is not asked: who inspects need not be who computes.

    Args:
        model: built, of one image input.
        output: which of several outputs, by position or name.
        space: "logits" takes a final softmax or sigmoid off; "model" leaves it.
        input_size: (height, width) for a model that leaves them open.
        reduce: for outputs with height and width, one number per channel: mean | sum | at:[y,x].
        precision: that the Jacobian will be computed in.

    Raises:
        ConfigError: `reduce` does not fit the outputs.
        ModelError: a model whose Jacobian is not defined or not supported; the message says why.
    """
    log.debug("engine: inspecting model %r", getattr(model, "name", type(model).__name__))
    dtype = "float64" if precision == "float64" else "float32"
    input_shape = _input_shape(model, input_size)
    graph = trace(model, output)
    activation = None
    function: Callable[[Tensor], Tensor]
    if graph is not None:
        rescales, reason = rescaling(graph)
        graph = in_precision(graph, dtype)
        logits, activation = split_end(graph)
        chosen = logits if space == "logits" and activation else graph
        graph, function = chosen, chosen
    else:
        rescales, reason = False, ""
        if precision in REBUILT:
            raise ModelError(
                "`precision`: a subclassed model computes in the precision it was built with; "
                f"use float32, or rebuild the model with dtype={REBUILT[precision]!r}"
            )
        function = plain_function(model, output)
    probes = probe_images(input_shape, rescales, dtype)[:LOOKED_AT]
    outputs = _evaluate(function, probes)
    if reduce is not None:
        function = reduced_function(function, outputs.shape, reduce)
        graph = None if graph is None else reduced_graph(graph, outputs.shape, reduce)
        outputs, activation = _evaluate(function, probes), None
    outputs = _flat(outputs)
    unconnected, no_gradient = _outputs_without_a_row(function, graph, probes, outputs)
    if graph is not None and precision == "bfloat16":
        graph = function = in_precision(graph, precision)
    spec = ModelSpec(
        input_shape=(input_shape[0], input_shape[1], input_shape[2] if len(input_shape) == 3 else 1),
        output_count=outputs.shape[1],
        activation=activation,
        space="logits" if activation and space == "logits" else "model",
        model_rescales=rescales,
        rescale_reason=reason,
        unconnected=unconnected,
        no_gradient=no_gradient,
    )

    def flat_function(x: Tensor) -> Tensor:
        outputs = function(x)
        return keras.ops.reshape(outputs, (outputs.shape[0], spec.output_count))

    return InspectedModel(model, flat_function, graph, input_shape, dtype, precision, spec)


def plain_function(model: keras.Model, output: int | str | None) -> Callable[[Tensor], Tensor]:
    """The model as it is called for inference, with one output chosen."""

    def call(x: Tensor) -> Tensor:
        outputs = model(x, training=False) if isinstance(model, keras.layers.Layer) else model(x)
        if isinstance(outputs, dict):
            return outputs[list(outputs)[choose_output(list(outputs.values()), list(outputs), output)]]
        if isinstance(outputs, list | tuple):
            return outputs[choose_output(list(outputs), [str(i) for i in range(len(outputs))], output)]
        return outputs

    return call


def rescaling(graph: Graph) -> tuple[bool, str]:
    """Whether the model itself takes raw 0..255 pixels, and what says so."""
    value = graph.input
    users = graph.users()
    for _ in range(8):  # scaling comes first, after at most a few operations that only move or convert
        readers = users.get(value, [])
        for node in readers:
            reason = _rescales(node)
            if reason:
                return True, reason
        if len(readers) != 1 or not readers[0].outputs:
            break
        value = readers[0].outputs[0]
        if _has_weights(readers[0]):
            break
    return False, ""


def _rescales(node: Node) -> str:
    layer = node.source
    if isinstance(layer, keras.layers.Rescaling):
        scale = float(np.max(np.abs(np.asarray(layer.scale, dtype=float))))
        if 1 / 512 < scale < 1 / 64:
            return f"layer {layer.name!r} rescales by 1/{1 / scale:.5g}"
    if isinstance(layer, keras.layers.Normalization):
        mean = layer.mean if layer.input_mean is None else layer.input_mean
        if mean is not None and float(np.max(np.asarray(keras.ops.convert_to_numpy(mean)))) > 1:
            return f"layer {layer.name!r} normalizes with mean above 1"
    return ""


def _has_weights(node: Node) -> bool:
    layer = node.source
    return bool(getattr(layer, "weights", ())) and not isinstance(layer, keras.layers.Normalization)


def _input_shape(model: keras.Model, input_size: tuple[int, int] | None) -> tuple[int, ...]:
    inputs = getattr(model, "inputs", None)
    if inputs is None:
        built = isinstance(model, keras.Model) and model.built
        shape = (model.get_build_config() or {}).get("input_shape") if built else None
        if shape is None:
            raise ModelError(
                "model: does not say what input it takes; call it once on an image batch, or give it an Input"
            )
    else:
        flat = keras.tree.flatten(inputs)
        if len(flat) != 1:
            raise ModelError(
                f"model: has {len(flat)} inputs ({', '.join(x.name for x in flat)}); "
                "an audit needs one image input, and model.constants for the others"
            )
        if not is_float(flat[0].dtype):
            raise ModelError(
                f"model: its input is {flat[0].dtype}; integers have no derivative, "
                "so cut the model after its cast to float"
            )
        shape = flat[0].shape
    if isinstance(shape, list) and not any(isinstance(axis, list | dict) for axis in shape):
        shape = tuple(shape)  # of a subclassed model that was saved and loaded
    if isinstance(shape, list | dict) or not 3 <= len(shape) <= 4:
        raise ModelError(
            f"model: its input shape is {shape}; "
            "an audit needs images, (height, width) or (height, width, channel)"
        )
    sizes = list(shape[1:])
    for axis in (0, 1):
        if sizes[axis] is None:
            if input_size is None:
                raise ModelError(
                    f"`input_size`: the model's input shape {tuple(shape[1:])} leaves its size open; "
                    "give height and width, such as [224, 224]"
                )
            sizes[axis] = input_size[axis]
    if len(sizes) == 3 and sizes[2] is None:
        raise ModelError(f"model: its input shape {tuple(shape[1:])} leaves the number of channels open")
    if input_size is not None and tuple(sizes[:2]) != tuple(input_size):
        raise ModelError(
            f"`input_size`: {list(input_size)} is not the size {sizes[:2]} that the model takes; "
            "leave `input_size` out"
        )
    return tuple(int(size) for size in sizes)


def _evaluate(function: Callable[[Tensor], Tensor], images: np.ndarray) -> np.ndarray:
    try:
        outputs = function(keras.ops.convert_to_tensor(images))
    except ModelError:
        raise
    except Exception as error:  # the model's own code; whatever it raises, it cannot be audited
        raise ModelError(
            f"model: fails on images of shape {images.shape[1:]} ({type(error).__name__}: {str(error)[:500]})"
        ) from error
    return np.asarray(keras.ops.convert_to_numpy(outputs), dtype=np.float64)


def _flat(outputs: np.ndarray) -> np.ndarray:
    """Outputs (n, K)."""
    if outputs.ndim < 2:
        return outputs.reshape(len(outputs), 1)
    if outputs.ndim > 2 and math.prod(outputs.shape[1:-1]) > 1:
        raise ModelError(
            f"model: each output has shape {outputs.shape[1:]}; set `reduce` (mean, sum or at:[y,x]) "
            "to audit one number per channel, or choose another output"
        )
    return outputs.reshape(len(outputs), outputs.shape[-1])


def _outputs_without_a_row(
    function: Callable[[Tensor], Tensor], graph: Graph | None, probes: np.ndarray, outputs: np.ndarray
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Outputs that do not depend on the image, and those that do so only by steps without a gradient.

    Refuses what has no Jacobian of its own image.
    """
    if not np.isfinite(outputs).all():
        raise ModelError(
            "model: its outputs are not finite on noise images; check its weights and input range"
        )
    if len(outputs) != len(probes):
        raise ModelError(f"model: makes {len(outputs)} outputs from {len(probes)} images")
    if may_be_random(graph) and is_random(function, probes):
        raise ModelError(
            "model: its outputs are random at inference (the same images give others), so they have no "
            "Jacobian; take the random layer out, or make it depend on training=True"
        )
    if mixes_samples(function, probes, outputs):
        raise ModelError(
            "model: an image's outputs change with the other images of its batch, so it has no Jacobian of "
            "its own; use a model whose samples are independent at inference"
        )
    constant = np.ptp(outputs, axis=0) == 0
    found = _dependence(graph, probes[0], constant)
    if found is None:
        flows = _passes_gradient(function, probes[:1])
        found = Dependence(~constant, np.full(len(constant), flows))
    connected = found.connected | ~constant
    if not connected.any():
        raise ModelError("model: no output depends on the image; choose another output (`output`)")
    if not (connected & found.differentiable).any():
        raise ModelError(
            "model: no gradient flows from its outputs to the image; it holds a step that has none "
            "(rounding, argmax, a cast to integers), so cut the model before it"
        )
    stepped = np.flatnonzero(connected & ~found.differentiable).tolist()
    if stepped:
        _warn_once(
            f"model: outputs {_listed(stepped)} depend on the image only through steps without a gradient "
            "(rounding, argmax, a cast to integers); their rows are zero, which says nothing of them"
        )
    return tuple(np.flatnonzero(~connected).tolist()), tuple(stepped)


def _dependence(graph: Graph | None, image: np.ndarray, constant: np.ndarray) -> Dependence | None:
    """How the outputs depend on the image, looked into only where something is odd; None where unknown."""
    if graph is None:
        return None
    try:
        if constant.any() or has_steps(graph, image):
            return dependence(graph, image)
    except backend.Refused as error:
        log.debug("engine: how outputs depend on the image is told by noise alone (%s)", error)
        return None
    return Dependence(~constant, ~constant)


def _passes_gradient(function: Callable[[Tensor], Tensor], images: np.ndarray) -> bool:
    """Whether a gradient flows from the outputs to the images at all."""
    _, flows = backend.passes_gradient(lambda x: (function(x),), [keras.ops.convert_to_tensor(images)])
    return flows[0]


@cache
def _warn_once(message: str) -> None:
    """A process may look at a model several times."""
    log.warning(message)


def _listed(outputs: list[int]) -> str:
    shown = ", ".join(map(str, outputs[:LISTED]))
    return shown if len(outputs) <= LISTED else f"{shown}, ... ({len(outputs)} in all)"
