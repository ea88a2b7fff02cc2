"""SavedModels whose inputs are integers that the model casts to floats itself: floats are let in instead.

Integers have no derivative, but what follows the cast has. A SavedModel is a message of functions that call
each other. Types in it are changed before TensorFlow loads it: that of a signature's input, and those of the
steps from there to the cast. The outputs for whole numbers stay the same, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework.function_pb2 import FunctionDef
from tensorflow.core.framework.types_pb2 import DT_FLOAT

CASTS = {
    "Cast": "SrcT",
    "ResizeBicubic": "T",
    "ResizeBilinear": "T",
    "ScaleAndTranslate": "T",
    "Shape": "T",
}
"""Operations that give no integer pixels on, and the attribute that says what they take."""
MOVES = ("ExpandDims", "Identity", "Reshape", "Squeeze", "Transpose")
"""Operations that give the pixels on, of the type in their attribute `T`."""
CALLS = ("PartitionedCall", "StatefulPartitionedCall")


def let_floats_in(saved_model: Any) -> dict[str, dict[str, tf.DType]]:
    """Declare as float32 the integer inputs of signatures that the model casts to floats, and only casts.

    Args:
        saved_model: a SavedModel message, which is changed.

    Returns:
        signature -> input -> the type that it was declared as; only of those that were changed.
    """
    changed: dict[str, dict[str, tf.DType]] = {}
    for part in saved_model.meta_graphs:
        library = part.graph_def.library.function
        for signature, function in _signatures(part.object_graph_def):
            record = part.object_graph_def.concrete_functions[function.concrete_function_name]
            specs = record.canonicalized_input_signature.tuple_value.values[1].dict_value.fields
            for position, name in enumerate(function.argument_keywords):
                spec = specs[name].tensor_spec_value
                declared = tf.as_dtype(spec.dtype)
                if not declared.is_integer:
                    continue
                functions = {each.signature.name: each for each in library}
                try:
                    own, *called = _of_floats(functions, function.concrete_function_name, [position])
                except _IntegersNeededError:
                    continue
                functions[function.concrete_function_name].CopyFrom(own)
                library.extend(called)
                spec.dtype = DT_FLOAT
                changed.setdefault(signature, {})[name] = declared
    return changed


class _IntegersNeededError(Exception):
    """Something else than a cast is done with the integers."""


def _signatures(objects: Any) -> Iterator[tuple[str, Any]]:
    """Name and SavedBareConcreteFunction of each signature; none in files of TensorFlow 1."""
    for node in objects.nodes:
        if node.user_object.identifier == "signature_map":
            for child in node.children:
                yield child.local_name, objects.nodes[child.node_id].bare_concrete_function


def _of_floats(
    functions: Mapping[str, Any], name: str, positions: list[int], new_name: str | None = None
) -> list[Any]:
    """A function with floats at some positions of its arguments, followed by new ones that it calls.

    Raises:
        _IntegersNeededError: the arguments are not only cast.
    """
    made = FunctionDef()
    made.CopyFrom(functions[name])
    made.signature.name = new_name or name
    arguments = [made.signature.input_arg[position] for position in positions]
    for argument in arguments:
        argument.type = DT_FLOAT
    pixels = [argument.name for argument in arguments]
    calls: dict[str, list[int]] = {}
    for source in pixels:  # grows meanwhile
        for node, place in _uses(made, source):
            if node.op in CASTS and place == 0:
                if node.op == "Cast" and not tf.as_dtype(node.attr["DstT"].type).is_floating:
                    raise _IntegersNeededError
                node.attr[CASTS[node.op]].type = DT_FLOAT
            elif node.op in MOVES and place == 0:
                node.attr["T"].type = DT_FLOAT
                pixels.append(node.name)
            elif node.op in CALLS:
                node.attr["Tin"].list.type[place] = DT_FLOAT
                calls.setdefault(node.name, []).append(place)
            else:
                raise _IntegersNeededError
    if any(_source(tensor) in pixels for tensor in made.ret.values()):
        raise _IntegersNeededError
    called: list[Any] = []
    for node in made.node_def:
        if node.name in calls:
            inner, places = node.attr["f"].func, calls[node.name]
            own = "_".join([made.signature.name, *node.name.split("/"), "floats", *map(str, places)])
            called += _of_floats(functions, inner.name, places, own)
            inner.name = own
    return [made, *called]


def _uses(function: Any, source: str) -> Iterator[tuple[Any, int]]:
    """The nodes that take what an argument or a node gives, and at which place."""
    for node in function.node_def:
        for place, tensor in enumerate(node.input):
            if _source(tensor) == source:
                yield node, place


def _source(tensor: str) -> str:
    """The argument or node that a tensor is of; `^node`, which names no tensor, stays as it is."""
    return tensor.partition(":")[0]
