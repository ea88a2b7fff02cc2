"""Models that Keras 2 wrote, as Keras 3 models: their architecture modernized, their weights copied.

Keras 2 keeps the architecture as JSON beside the weights: in the attribute `model_config` of an HDF5 file,
and in `keras_metadata.pb` of a SavedModel folder (in `saved_model.pb` itself up to TensorFlow 2.4). Keras 3
has the same layers under the same names. What differs are a few keywords, how calls of nested models are
counted, and the layers that Keras 2 made of bare TensorFlow calls; `modernized` changes those.
"""

from __future__ import annotations

import inspect
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
from keras.src.saving.serialization_lib import SafeModeScope  # not exported; Lambda layers ask it

from augnet.models.saved_metadata import SavedMetadata
from augnet.models.tensorflow_calls import CALLS, without_tensorflow_calls

METADATA_FILE = "keras_metadata.pb"
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "dynamic": (False,),
    "experimental_autocast": (True,),
    "fused": (None, True, False),
    "groups": (1,),
    "implementation": (0, 1, 2),
    "ragged": (False,),
    "renorm": (False,),
    "renorm_clipping": (None,),
    "renorm_momentum": (0.99,),
    "rng_type": ("stateful", "stateless", "legacy_stateful", None),
    "stateful": (False,),
    "synchronized": (False,),
    "time_major": (False,),
    "virtual_batch_size": (None,),
}
"""Keywords of Keras 2 that Keras 3 layers no longer take, and the values with which they change nothing."""
TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")
"""Endings of keywords that matter only before and while a model is trained."""
NEWER_KEYS = frozenset(["build_config", "module", "registered_name"])
ACTIVATIONS = {"softmax_v2": "softmax", "relu_v2": "relu"}
"""tf.nn functions given as activations, by the name that Keras 2 wrote for them."""


def saved_architecture(folder: Path, saved_model: Any) -> dict[str, Any] | None:
    """{class_name, config} of the model that Keras 2 saved in a SavedModel folder.

    Args:
        folder: of the SavedModel.
        saved_model: its SavedModel message.

    Returns:
        None where there is no graph of layers: not by Keras 2, or a subclassed model.
    """
    if (folder / METADATA_FILE).is_file():
        message = SavedMetadata.FromString((folder / METADATA_FILE).read_bytes())
        texts = {node.node_path: node.metadata for node in message.nodes}
        text = texts.get("root", "")
    else:
        nodes = saved_model.meta_graphs[0].object_graph_def.nodes
        text = nodes[0].user_object.metadata if nodes else ""
    try:
        root = json.loads(text) if text else {}
    except ValueError:
        return None
    described = root.get("model_config") or root
    config = described.get("config")
    return described if isinstance(config, dict) and "layers" in config else None


def file_architecture(path: Path) -> dict[str, Any] | None:
    """{class_name, config} of the model in an .h5 or .keras file of Keras 1 or 2; None for any other file."""
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                version = json.loads(archive.read("metadata.json"))["keras_version"]
                text = archive.read("config.json").decode()
        else:
            with h5py.File(path, "r") as file:
                version, text = (_text(file.attrs.get(key, "")) for key in ("keras_version", "model_config"))
    except (KeyError, OSError, ValueError, zipfile.BadZipFile):
        return None  # Keras says what is wrong with it
    return json.loads(text) if text and version.startswith(("1.", "2.")) else None


def load_weights(path: Path, model: keras.Model) -> None:
    """Set the weights of a model to those in the .h5 or .keras file it was built from."""
    if path.suffix != ".keras":
        model.load_weights(path)
        return
    with tempfile.TemporaryDirectory(prefix="augnet-model-") as folder, zipfile.ZipFile(path) as archive:
        # Keras 3 reads this file from a .keras archive only together with the architecture.
        model.load_weights(archive.extract("model.weights.h5", folder))


def build(architecture: dict[str, Any], safe_mode: bool) -> keras.Model:
    """The Keras 3 model of a Keras 2 architecture, with new weights.

    Raises:
        TypeError, ValueError: Keras 3 does not know a class, or a keyword changes what a layer computes.
    """
    described = modernized(architecture)
    kind = keras.Sequential if described["class_name"] == "Sequential" else keras.Model
    with SafeModeScope(safe_mode):
        return kind.from_config(described["config"])


def copy_weights(saved: Any, model: keras.Model) -> None:
    """Set the weights of a model to those of the SavedModel it was built from.

    Args:
        saved: what tf.saved_model.load gave. Keras 2 names the layers that have weights
            `layer_with_weights-0`, `-1`, ... in the model's order.
        model: built of its architecture.

    Raises:
        AttributeError, ValueError: the two do not have the same layers.
    """
    with_weights = [layer for layer in model.layers if layer.weights]
    for number, layer in enumerate(with_weights):
        source = getattr(saved, f"layer_with_weights-{number}")
        if isinstance(layer, keras.Model):
            copy_weights(source, layer)
            continue
        listed = getattr(source, "variables", None)  # preprocessing layers have theirs by name only
        variables = [getattr(source, w.name) for w in layer.weights] if listed is None else listed
        layer.set_weights([variable.numpy() for variable in variables])
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    if hasattr(saved, f"layer_with_weights-{len(with_weights)}"):
        raise ValueError(f"the file has weights of more than {len(with_weights)} layers")


def holds_lambda(architecture: Any) -> bool:
    """Whether a Lambda layer, whose code is in the file, is part of it."""
    if isinstance(architecture, dict):
        if architecture.get("class_name") == "Lambda":
            return True
        architecture = list(architecture.values())
    return isinstance(architecture, list) and any(map(holds_lambda, architecture))


def calls_left(described: Any) -> list[str]:
    """The bare TensorFlow calls in a modernized description for which Keras 3 has no layer."""
    if isinstance(described, dict):
        if described.get("class_name") in CALLS:
            return [described["config"]["function"]]
        described = list(described.values())
    return [name for part in described for name in calls_left(part)] if isinstance(described, list) else []


def modernized(described: Any) -> Any:
    """A copy of a Keras 2 description of layers, {class_name, config}, that Keras 3 understands."""
    if isinstance(described, list):
        return [modernized(part) for part in described]
    if not isinstance(described, dict):
        return described
    kind = described.get("class_name")
    if kind in ("__tuple__", "TensorShape"):
        return modernized(described["items"])
    if kind in ("Policy", "DTypePolicy"):
        return described["config"]["name"]
    if kind == "Sequential" and isinstance(described["config"], list):  # up to Keras 2.2
        described = described | {"config": {"name": "sequential", "layers": described["config"]}}
    changed = {key: modernized(part) for key, part in described.items()}
    config = changed.get("config")
    if kind is None or not isinstance(config, dict):
        return changed
    if kind in ("Functional", "Model"):
        _rename_layers(config)
        config["layers"] = without_tensorflow_calls(config["layers"])
        _renumber_calls(config)
        for ends in ("input_layers", "output_layers"):
            if len(config[ends]) == 1 and isinstance(config[ends], list):
                config[ends] = config[ends][0]  # one tensor, not a list of one, as the model was called
    elif kind == "Sequential":
        first = described["config"]["layers"][:1]
        shapes = [modernized(layer["config"].get("batch_input_shape")) for layer in first]
        config["layers"] = _with_input(config["layers"], shapes[0] if shapes else None)
    if hasattr(keras.layers, kind) or "layers" in config:
        # Without these Keras reads a layer as the older format, which is the one that it is in.
        changed = {key: part for key, part in changed.items() if key not in NEWER_KEYS}
    elif changed.get("registered_name"):
        changed["class_name"] = changed.pop("registered_name")
        changed.pop("module", None)
    if hasattr(keras.layers, kind):
        changed["config"] = _without_old_keywords(getattr(keras.layers, kind), config)
    for wrapped in ("layer", "backward_layer"):
        if isinstance(config.get(wrapped), dict) and hasattr(keras.layers, config[wrapped]["class_name"]):
            # A wrapper reads what it wraps as the newer format.
            changed["config"][wrapped] |= {"module": "keras.layers", "registered_name": None}
    return changed


def _rename_layers(config: dict[str, Any]) -> None:
    """Write names such as conv1/conv with an underscore: Keras 3 allows no slash."""
    names = {layer["name"] for layer in config["layers"] if "/" in layer["name"]}
    parts = [layer["inbound_nodes"] for layer in config["layers"]]
    for reference in _references([*parts, config["input_layers"], config["output_layers"]], names):
        reference[0] = reference[0].replace("/", "_")
    for layer in config["layers"]:
        layer["name"] = layer["config"]["name"] = layer["name"].replace("/", "_")


def _renumber_calls(config: dict[str, Any]) -> None:
    """Count the calls of a nested model from 0: in Keras 2 its own making was number 0.

    Keras 3 does so by itself where a nested functional model makes an output of the model.
    """
    kinds = {layer["name"]: layer["class_name"] for layer in config["layers"]}
    nested = {name for name, kind in kinds.items() if kind in ("Functional", "Model", "Sequential")}
    inside = [ref for layer in config["layers"] for ref in _references(layer["inbound_nodes"], nested)]
    ends = _references(config["output_layers"], nested)
    for name in nested:
        references = [ref for ref in (*inside, *ends) if ref[0] == name]
        if all(ref[1] > 0 for ref in references):
            for ref in inside:
                ref[1] -= ref[0] == name
            if kinds[name] == "Sequential":
                for ref in ends:
                    ref[1] -= ref[0] == name


def _references(part: Any, names: set[str]) -> list[list[Any]]:
    """The [name, call, tensor, ...] of these layers anywhere in `part`."""
    if isinstance(part, dict):
        part = list(part.values())
    if not isinstance(part, list):
        return []
    if len(part) >= 3 and isinstance(part[0], str):
        deeper = _references(part[3:], names)
        return [part, *deeper] if part[0] in names else deeper
    return [ref for inner in part for ref in _references(inner, names)]


def _with_input(layers: list[dict[str, Any]], shape: Any) -> list[dict[str, Any]]:
    """The layers of a Sequential model, with the input shape of its first one in a layer of its own."""
    if shape is None or layers[0]["class_name"] == "InputLayer":
        return layers
    # With a name of its own: the next one that Keras makes up would differ from load to load.
    config = {"batch_shape": shape, "name": f"{layers[0]['config']['name']}_input"}
    return [{"class_name": "InputLayer", "config": config}, *layers]


def _without_old_keywords(layer: type, config: dict[str, Any]) -> dict[str, Any]:
    known = {name for owner in inspect.getmro(layer) for name in inspect.signature(owner).parameters}
    if issubclass(layer, keras.layers.InputLayer):
        known |= {"batch_input_shape"}  # Keras renames it
    kept = {}
    for key, value in config.items():
        if key not in known and (key.endswith(TRAINING_ONLY) or _is_neutral(key, value)):
            continue
        if key == "activation" and isinstance(value, str):
            value = ACTIVATIONS.get(value, value)
        kept[key] = value
    return kept


def _is_neutral(key: str, value: Any) -> bool:
    return key == "batch_input_shape" or value in NEUTRAL.get(key, ())


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
