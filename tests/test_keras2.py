"""Models of Keras 2, written by Keras 2 (tests/keras2/make.py), give their own outputs here."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from augnet.config import ModelConfig
from augnet.engine.graph.graph import trace
from augnet.errors import ModelError
from augnet.models.fingerprint import fingerprint
from augnet.models.keras2 import build, file_architecture, load_weights
from augnet.models.loading import load_model
from augnet.models.saved_metadata import SavedMetadata
from augnet.models.saved_model import GRAPH_FILE, SavedModelLayer, read_message

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
HAS_TF_KERAS = importlib.util.find_spec("tf_keras") is not None


@pytest.fixture
def outputs(keras2_models):
    with np.load(keras2_models / "outputs.npz") as file:
        return dict(file)


def load(path, **options):
    return load_model(ModelConfig(path=str(path), **options))


def runs_a_signature(model):
    return any(isinstance(layer, SavedModelLayer) for layer in model.layers)


@pytest.mark.parametrize("file", ["tutorial", "tutorial.h5"])
def test_the_tutorials_model_becomes_a_keras_3_model(keras2_models, outputs, caplog, file):
    model = load(keras2_models / file)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    assert model.input_shape == (None, 8, 8) and not runs_a_signature(model) and trace(model) is not None
    np.testing.assert_allclose(model(outputs["images"][..., 0] / 255), outputs["shapes"], atol=1e-6)


@pytest.mark.skipif(HAS_TF_KERAS, reason="tf_keras teaches TensorFlow to")
def test_tensorflow_alone_does_not_load_the_tutorials_model(keras2_models):
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(keras2_models / "tutorial"))


def test_the_tutorials_model_by_its_signature(keras2_models, outputs):
    model = load(keras2_models / "tutorial", signature="serving_default")
    assert runs_a_signature(model)
    np.testing.assert_allclose(model(outputs["images"][..., 0] / 255), outputs["shapes"], atol=1e-6)


@pytest.mark.parametrize("file", ["nested", "nested.h5", "nested.keras"])
def test_nested_models_augmentation_and_normalization(keras2_models, outputs, file):
    model = load(keras2_models / file)
    assert not runs_a_signature(model)
    np.testing.assert_allclose(model(outputs["images"], training=False), outputs["nested"], atol=1e-6)


@pytest.mark.parametrize("file", ["caffe.h5", "tf.h5", "tf.keras"])
def test_preprocessing_inside_the_model(keras2_models, outputs, file):
    model = load(keras2_models / file)
    expected = outputs[Path(file).stem]
    np.testing.assert_allclose(model(outputs["images"]), expected, atol=1e-5 * np.abs(expected).max())


def test_names_with_a_slash_are_those_of_keras_2_alone(keras2_models, outputs):
    architecture = file_architecture(keras2_models / "tf.h5")
    text = (
        json.dumps(architecture).replace('"conv2d_1"', '"conv1/conv"').replace("global_average", "top/pool")
    )
    model = build(json.loads(text), safe_mode=True)
    assert {"conv1_conv", "top_pool_pooling2d_1"} <= {layer.name for layer in model.layers}
    load_weights(keras2_models / "tf.h5", model)
    np.testing.assert_allclose(model(outputs["images"]), outputs["tf"], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("LayerScale", {"init_values": 0.5, "projection_dim": 3}),
        ("StochasticDepth", {"drop_path_rate": 0.2}),
        ("Custom>CustomScaleLayer", {"scale": 0.5}),
    ],
)
def test_layers_of_keras_applications_are_known(tmp_path, name, config):
    """As ConvNeXt and InceptionResNetV2 hold them, in the words of Keras 2."""
    calls = 2 if "Custom" in name else 1
    described = {
        "class_name": "Functional",
        "config": {
            "name": "network",
            "layers": [
                {
                    "class_name": "InputLayer",
                    "config": {"batch_input_shape": [None, 4, 4, 3], "dtype": "float32", "name": "image"},
                    "name": "image",
                    "inbound_nodes": [],
                },
                {
                    "class_name": name,
                    "config": {"name": "own", "trainable": True, "dtype": "float32", **config},
                    "name": "own",
                    "inbound_nodes": [[["image", 0, 0, {}]] * calls],
                },
            ],
            "input_layers": [["image", 0, 0]],
            "output_layers": [["own", 0, 0]],
        },
    }
    with h5py.File(tmp_path / "network.h5", "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.attrs["model_config"] = json.dumps(described)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"image", b"own"]
        scale = name == "LayerScale"
        for layer in ("image", "own"):
            own = group.create_group(layer)
            own.attrs["weight_names"] = np.array([b"own/gamma:0"] if scale and layer == "own" else [], "S11")
        if scale:
            group["own/own/gamma:0"] = np.array([1, 2, 3], "float32")
    image = np.random.default_rng(0).uniform(size=(2, 4, 4, 3)).astype("float32")
    factor = {"LayerScale": np.array([1, 2, 3]), "StochasticDepth": 1, "Custom>CustomScaleLayer": 1.5}[name]
    np.testing.assert_allclose(load(tmp_path / "network.h5")(image), factor * image, rtol=1e-6)


def test_a_model_that_keras_3_cannot_build_runs_by_its_signature(keras2_models, outputs, caplog):
    with caplog.at_level(logging.WARNING, "augnet"):
        model = load(keras2_models / "unbuildable")
    assert runs_a_signature(model) and "TFOpLambda" in caplog.text and "signature" in caplog.text
    np.testing.assert_allclose(model(outputs["images"]), outputs["unbuildable"], rtol=1e-5)


@pytest.mark.skipif(HAS_TF_KERAS, reason="tf_keras is installed")
def test_a_file_that_keras_3_cannot_build_names_what_to_install(keras2_models):
    with pytest.raises(ModelError, match=r"cumsum.*tf_keras.*pip install 'augnet\[legacy\]'"):
        load(keras2_models / "unbuildable.h5")


@pytest.mark.skipif(not HAS_TF_KERAS, reason="needs tf_keras")
def test_a_file_that_keras_3_cannot_build_runs_with_tf_keras(keras2_models, outputs):
    model = load(keras2_models / "unbuildable.h5")
    np.testing.assert_allclose(model(outputs["images"]), outputs["unbuildable"], rtol=1e-5)
    assert fingerprint(model) == fingerprint(load(keras2_models / "unbuildable.h5"))


def test_a_conversion_that_gives_other_outputs_is_not_used(keras2_models, outputs, tmp_path, caplog):
    """An architecture that is not that of the graph: it takes means where the graph takes maxima."""
    shutil.copytree(keras2_models / "tutorial", tmp_path / "changed")
    metadata = tmp_path / "changed" / "keras_metadata.pb"
    message = SavedMetadata.FromString(metadata.read_bytes())
    for node in message.nodes:
        node.metadata = node.metadata.replace("MaxPooling2D", "AveragePooling2D")
    metadata.write_bytes(message.SerializeToString())
    model = load(tmp_path / "changed")
    assert runs_a_signature(model) and "outputs then differ" in caplog.text
    np.testing.assert_allclose(model(outputs["images"][..., 0] / 255), outputs["shapes"], atol=1e-6)


def test_the_layout_of_tensorflow_2_4(keras2_models, outputs, tmp_path):
    """The metadata lies in the graph itself."""
    shutil.copytree(keras2_models / "tutorial", tmp_path / "older")
    (tmp_path / "older" / "keras_metadata.pb").unlink()
    message = read_message(keras2_models / "tutorial")
    objects = message.meta_graphs[0].object_graph_def.nodes
    for node in SavedMetadata.FromString(
        (keras2_models / "tutorial" / "keras_metadata.pb").read_bytes()
    ).nodes:
        objects[node.node_id].user_object.metadata = node.metadata
    (tmp_path / "older" / GRAPH_FILE).write_bytes(message.SerializeToString())
    model = load(tmp_path / "older")
    assert not runs_a_signature(model)
    np.testing.assert_allclose(model(outputs["images"][..., 0] / 255), outputs["shapes"], atol=1e-6)


def test_a_lambda_needs_trust(keras2_models, outputs):
    with pytest.raises(ModelError, match=r"lambda\.h5' carries code.*model\.safe_mode: false"):
        load(keras2_models / "lambda.h5")


def test_a_loaded_model_keeps_its_fingerprint(keras2_models):
    for file in ("tutorial", "nested.h5"):
        assert fingerprint(load(keras2_models / file)) == fingerprint(load(keras2_models / file))


def test_a_sequential_model_with_the_input_shape_in_its_first_layer_keeps_its_names():
    """As Keras 2 wrote `Sequential([Dense(2, input_shape=(3,))])`."""
    dense = {"name": "dense", "units": 2, "batch_input_shape": [None, 3], "dtype": "float32"}
    described = {"name": "model", "layers": [{"class_name": "Dense", "config": dense}]}
    one, two, older = (
        build({"class_name": "Sequential", "config": config}, safe_mode=True)
        for config in (described, described, described["layers"])  # the last up to Keras 2.2
    )
    assert one.input_shape == older.input_shape == (None, 3)
    assert one.get_config() == two.get_config()


def test_a_converted_model_saves_as_keras_3(keras2_models, outputs, tmp_path):
    load(keras2_models / "caffe.h5").save(tmp_path / "caffe.keras")
    model = keras.saving.load_model(tmp_path / "caffe.keras")
    np.testing.assert_allclose(model(outputs["images"]), outputs["caffe"], rtol=1e-4)
