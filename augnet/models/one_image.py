"""What an audit needs of any model: one input, an image (batch, height, width, channel) of floats.

Models that take more, or something else, are given what they need in front: constants for the inputs that are
not the image, floats where integers were declared, and a transposition for channels first.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from augnet.engine.graph.final_activation import split_end
from augnet.engine.graph.graph import functional_of, trace
from augnet.engine.types import is_float
from augnet.errors import ModelError
from augnet.models.explain import LOADING_ERRORS, first_line
from augnet.redact import without_secrets
from augnet.storage.addresses import open_address, open_file

log = logging.getLogger(__name__)

Constants = Mapping[str, float | list[Any] | str]
"""Input name -> a number for all of its elements, nested lists, or the .npy file that holds them."""
CHANNELS = (1, 3, 4)
"""Lengths of an axis that are taken for channels."""
RAW_PIXELS = "raw_pixels"
"""Name of the layer, which changes nothing, in front of a model whose input was declared as integers."""
PROBES = 2
OPEN_AXIS = 96
"""Height and width of the noise images on which an integer model is compared with its float twin."""
SAME = 1e-5
"""Largest difference between the two, as a share of the largest output."""


def of_one_image(model: keras.Model, constants: Constants) -> keras.Model:
    """The model as a function of its image alone; the model itself where it is one already.

    Args:
        model: with any inputs.
        constants: a value for every input but the image.

    Raises:
        ModelError: the constants do not fit the inputs, the model needs its input as integers, or this
            machine cannot compute with channels first.
    """
    if getattr(model, "inputs", None) is None:
        if constants:
            raise ModelError("model.constants: the model does not name its inputs; leave the key out")
        return model
    image = _image_input(keras.tree.flatten(model.inputs), constants)
    declared = image.dtype
    if not is_float(declared):
        model = _on_floats(model, image)
    inputs = keras.tree.flatten(model.inputs)
    image = _image_input(inputs, constants)
    first = _channels_first(model, image)
    if first and _data_formats(model) and not computes_channels_first():
        raise ModelError(
            "model: its layers take channels first, which TensorFlow computes on this processor by oneDNN "
            "alone; set TF_ENABLE_ONEDNN_OPTS=1 in the environment"
        )
    if len(inputs) == 1 and is_float(declared) and not first:
        return model
    batch, *shape = image.shape
    shape = [*shape[1:], shape[0]] if first else shape
    entry = value = keras.Input(batch_shape=(batch, *shape), dtype=image.dtype, name=image.name)
    if not is_float(declared):
        value = keras.layers.Rescaling(1.0, name=RAW_PIXELS)(value)
    if first:
        value = keras.layers.Permute((3, 1, 2), name="channels_first")(value)
    given = [value if spec is image else _constant(spec, constants[spec.name])(entry) for spec in inputs]
    outputs = _called_on(model, inputs, given)
    return keras.Model(entry, outputs if len(outputs) > 1 else outputs[0], name=model.name)


def _called_on(model: keras.Model, inputs: list[Any], given: list[Any]) -> list[Any]:
    """The model's outputs for other symbolic inputs, by its own layers where it is a graph of them.

    Called as one layer, the model would hide its last activation and the names of its outputs.
    """
    functional = functional_of(model)
    if functional is None:
        flat = keras.Model(inputs, model.outputs, name=model.name) if len(inputs) > 1 else model
        return keras.tree.flatten(flat(given if len(given) > 1 else given[0]))
    return keras.tree.flatten(functional._run_through_graph(given))  # as keras.models.clone_model does


@keras.saving.register_keras_serializable(package="augnet")
class Constant(keras.layers.Layer):
    """The same value for every image of a batch.

    Args:
        value: array, without a batch axis.
        kind: dtype of the input that it is for; floats are given in the layer's own.
    """

    def __init__(self, value: Any, kind: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.kind = kind
        self.value = np.asarray(value, kind)

    def call(self, inputs: Any) -> Any:
        value = keras.ops.convert_to_tensor(self.value, self._made_dtype())
        return keras.ops.broadcast_to(value[None], (keras.ops.shape(inputs)[0], *self.value.shape))

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        return keras.KerasTensor((inputs.shape[0], *self.value.shape), self._made_dtype())

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "value": self.value.tolist(), "kind": self.kind}

    def _made_dtype(self) -> str:
        return self.compute_dtype if is_float(self.kind) else self.kind


def _image_input(inputs: list[Any], constants: Constants) -> Any:
    names = [spec.name for spec in inputs]
    listed = ", ".join(f"{spec.name} {tuple(spec.shape[1:])}" for spec in inputs)
    if strange := sorted(set(constants) - set(names)):
        raise ModelError(f"model.constants: the model has no input {strange[0]!r}; it has {listed}")
    left = [spec for spec in inputs if spec.name not in constants]
    if not left:
        raise ModelError("model.constants: leaves no input for the image; leave that one out")
    if len(left) > 1:
        raise ModelError(
            f"model.constants: the model has {len(inputs)} inputs ({listed}); give a value for each that is "
            "not the image, as {name: number or file.npy}"
        )
    return left[0]


def _constant(spec: Any, given: float | list[Any] | str) -> Constant:
    key, shape = f"model.constants: {spec.name}", tuple(spec.shape[1:])
    try:
        value = _array(given) if isinstance(given, str) else np.asarray(given)
        number = value.ndim == 0
        value = value.astype(spec.dtype)
    except (OSError, TypeError, ValueError) as error:
        raise ModelError(
            f"{key}: {given!r} cannot be read ({without_secrets(first_line(error))}); give a number, a "
            "list or the path of a .npy file"
        ) from error
    if number and None not in shape:
        value = np.full(shape, value)
    if value.shape == (1, *shape):
        value = value[0]
    if len(value.shape) != len(shape) or any(
        b not in (None, a) for a, b in zip(value.shape, shape, strict=True)
    ):
        raise ModelError(
            f"{key}: has the shape {value.shape}, but the model's input is {shape}; give one value for "
            "all images, without a batch axis"
        )
    return Constant(value, spec.dtype, name=f"constant_{spec.name}")


def _array(path: str) -> np.ndarray:
    with open_file(*open_address(path, "model.constants")) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _on_floats(model: keras.Model, image: Any) -> keras.Model:
    """The same layers on an image declared float, so that gradients reach it.

    Raises:
        ModelError: the model is not a graph of layers, or it does something else with floats.
    """
    advice = "integers have no derivative, so cut the model after its cast to float"
    try:
        twin = keras.models.clone_model(
            model,
            input_tensors=keras.tree.map_structure(
                lambda spec: keras.Input(
                    batch_shape=spec.shape,
                    dtype="float32" if spec.name == image.name else spec.dtype,
                    name=spec.name,
                ),
                model.input,
            ),
            clone_function=lambda layer: layer,
        )
        difference = _difference(model, twin, image.name)
    except LOADING_ERRORS as error:
        raise ModelError(f"model: its input is {image.dtype}; {advice} ({first_line(error)})") from error
    if not difference <= SAME:
        raise ModelError(
            f"model: its input is {image.dtype}, and its outputs are others for floats; {advice}"
        )
    log.info(
        "model: its input is %s, which it casts to floats itself; differentiated behind the cast", image.dtype
    )
    return twin


def _difference(model: keras.Model, twin: keras.Model, image: str) -> float:
    """Largest difference between their outputs on whole numbers, as a share of the largest output."""
    rng = np.random.default_rng(0)

    def noise(spec: Any) -> np.ndarray:
        batch, *shape = spec.shape
        size = (batch or PROBES, *(axis or OPEN_AXIS for axis in shape))
        most = 128 if spec.dtype == "int8" else 256
        return rng.integers(0, most if spec.name == image else 2, size)

    given = keras.tree.map_structure(noise, model.input)
    found = []
    for a, b in zip(*(_outputs(m, given) for m in (model, twin)), strict=True):
        a, b = (keras.ops.convert_to_numpy(x).astype(np.float64) for x in (a, b))
        found.append(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
    return float(max(found))


def _outputs(model: keras.Model, given: Any) -> list[Any]:
    """The outputs for arrays in the structure of the model's input; of one image, before a final softmax.

    A softmax may saturate on noise, and then hides what is different.
    """
    if len(keras.tree.flatten(given)) > 1:
        return keras.tree.flatten(model(given, training=False))
    graphs = [trace(model, position) for position in range(len(model.outputs))]
    (image,) = keras.tree.flatten(given)
    tensor = keras.ops.convert_to_tensor(image, model.inputs[0].dtype)
    if None in graphs:
        return keras.tree.flatten(model(given, training=False))
    return [split_end(graph)[0](tensor) for graph in graphs if graph is not None]


def _channels_first(model: keras.Model, image: Any) -> bool:
    """Whether the image is (channel, height, width): its layers say so, or its shape leaves no doubt."""
    if len(image.shape) != 4 or image.shape[1] not in CHANNELS:
        return False
    said = _data_formats(model)
    if said:
        return said == {"channels_first"}
    return image.shape[3] is not None and image.shape[3] > max(CHANNELS)


def _data_formats(model: keras.Model) -> set[str]:
    """Where the layers look for channels: channels_first, channels_last; none, where no layer does."""
    found = {getattr(layer, "data_format", "") for layer in model._flatten_layers()}
    return found & {"channels_first", "channels_last"}


def computes_channels_first() -> bool:
    """Whether TensorFlow convolves images of (channel, height, width) here: not on every processor."""
    one = tf.ones((1, 1, 1, 1))
    try:
        tf.nn.conv2d(one, one, 1, "VALID", data_format="NCHW")
    except tf.errors.UnimplementedError:
        return False
    return True
