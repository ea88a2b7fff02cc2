"""Every format loads and differentiates, nothing unsafe runs, and a fingerprint is the model's alone."""

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from augnet import AugNet
from augnet.config import ModelConfig, load_config
from augnet.errors import ConfigError, ModelError
from augnet.models.loading import fingerprint, load_model
from augnet.models.saved_model import load_saved_model

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def cnn(seed=0):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6, 5, 1), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(3, 3, activation="relu")(inputs))
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(x), name="cnn")


def load(path, **options):
    return load_model(ModelConfig(path=str(path), **options))


def images(count=3):
    return np.random.default_rng(0).uniform(size=(count, 6, 5, 1)).astype("float32")


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_keras_and_h5(tmp_path, name):
    model = cnn()
    model.compile(optimizer="sgd", loss="mse")
    model.save(tmp_path / name)
    loaded = load(tmp_path / name)
    assert isinstance(loaded, keras.Model)
    np.testing.assert_array_equal(loaded(images()), model(images()))


def test_saved_augnet_in_a_fresh_interpreter(tmp_path):
    path = tmp_path / "net.keras"
    AugNet.from_model(cnn()).save(path)
    script = (
        "import sys; from augnet.models.loading import load_model; from augnet.config import ModelConfig;"
        f"print(type(load_model(ModelConfig(path={str(path)!r}))).__name__, 'apache_beam' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "AugNet False"


def test_saved_model_folder(tmp_path):
    model = cnn()
    model.export(tmp_path / "exported", verbose=False)
    loaded = load(tmp_path / "exported")
    assert loaded.input_shape == (None, 6, 5, 1) and loaded.output_shape == (None, 4)
    np.testing.assert_allclose(loaded(images()), model(images()), atol=1e-6)
    expected = AugNet.from_model(model).return_jacobian(images())
    np.testing.assert_allclose(AugNet.from_model(loaded).return_jacobian(images()), expected, atol=1e-6)


def test_saved_model_with_several_inputs_and_outputs(tmp_path):
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    model = keras.Model({"a": a, "b": b}, {"one": layers.Dense(2)(a), "two": layers.Concatenate()([a, b])})
    model.export(tmp_path / "many", verbose=False)
    loaded = load_saved_model(tmp_path / "many", signature=None, safe_mode=True)
    x = {"a": np.ones((2, 2), "float32"), "b": np.zeros((2, 3), "float32")}
    assert {name: part.shape for name, part in loaded(x).items()} == {"one": (2, 2), "two": (2, 5)}
    np.testing.assert_allclose(loaded(x)["one"], model(x)["one"], atol=1e-6)
    assert load(tmp_path / "many", constants={"b": 0}).output_names == ["one", "two"]
    with pytest.raises(ModelError, match=r"2 inputs \(a \(2,\), b \(3,\)\); give a value for each"):
        load(tmp_path / "many")


def test_a_keras_3_model_saved_by_tensorflow(tmp_path):
    model = cnn()
    tf.saved_model.save(model, str(tmp_path / "plain"))
    np.testing.assert_allclose(load(tmp_path / "plain")(images()), model(images()), atol=1e-6)


def test_signatures_by_name(tmp_path):
    module, spec = tf.Module(), tf.TensorSpec((None, 3), tf.float32, name="x")
    module.scores = tf.function(lambda x: {"logits": 2 * x, "embedding": 3 * x}, input_signature=[spec])
    module.loss = tf.function(lambda x: {"loss": 5 * x}, input_signature=[spec])
    folder = str(tmp_path / "named")
    tf.saved_model.save(module, folder, signatures={"scores": module.scores, "loss": module.loss})
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(load(folder, signature="loss")(x), 5 * x)
    scores = load(folder, signature="scores")
    assert sorted(scores.output_names) == ["embedding", "logits"]
    np.testing.assert_array_equal(inspect_model_output(scores, "embedding")(x), 3 * x)
    with pytest.raises(ModelError, match=r"model\.signature: choose one .* 2: loss: x \(None, 3\) -> loss"):
        load(folder)
    with pytest.raises(ModelError, match=r"model\.signature: no signature 'other'; the model has loss"):
        load(folder, signature="other")
    cnn().save(tmp_path / "cnn.keras")
    with pytest.raises(ModelError, match=r"model\.signature: .* is no SavedModel folder"):
        load(tmp_path / "cnn.keras", signature="loss")


def inspect_model_output(model, name):
    return keras.Model(model.input, model.outputs[model.output_names.index(name)])


def export(folder, function, *specs):
    module = tf.Module()
    module.f = tf.function(function, input_signature=specs)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.f})


def test_saved_model_without_a_gradient(tmp_path):
    images_spec = tf.TensorSpec((None, 3), tf.float32, name="x")
    export(tmp_path / "argmax", lambda x: {"y": tf.argmax(x, axis=1)}, images_spec)
    export(
        tmp_path / "tokens",
        lambda x: {"y": tf.gather(tf.eye(9), x)},
        tf.TensorSpec((None, 3), tf.int32, name="x"),
    )
    export(tmp_path / "round", lambda x: {"y": tf.round(x)}, images_spec)
    for name, words in (("argmax", "no output"), ("tokens", "int32"), ("round", "no output")):
        with pytest.raises(ModelError, match=f"has no gradient.*{words}"):
            load(tmp_path / name)


def test_unsafe_saved_model_needs_trust(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("1")

    def read(x):
        return {"y": x * tf.strings.to_number(tf.io.read_file(str(secret)))}

    export(tmp_path / "unsafe", read, tf.TensorSpec((None, 3), tf.float32, name="x"))
    with pytest.raises(ModelError, match=r"ReadFile.*model\.safe_mode: false only for models you trust"):
        load(tmp_path / "unsafe")
    assert load(tmp_path / "unsafe", safe_mode=False)(np.ones((1, 3), "float32")).shape == (1, 3)


@pytest.mark.parametrize("name", ["lambda.keras", "lambda.h5"])
def test_lambda_layers_need_trust(tmp_path, name):
    inputs = keras.Input((3,))
    keras.Model(inputs, layers.Lambda(lambda x: x * 2, output_shape=(3,))(inputs)).save(tmp_path / name)
    with pytest.raises(ModelError, match=r"carries code.*model\.safe_mode: false only for models you trust"):
        load(tmp_path / name)
    np.testing.assert_array_equal(load(tmp_path / name, safe_mode=False)(np.ones((1, 3))), [[2, 2, 2]])


@pytest.mark.parametrize("name", ["own.keras", "own.h5"])
def test_unknown_classes(tmp_path, name):
    class Mine(layers.Layer):
        def call(self, x):
            return x

    inputs = keras.Input((3,))
    keras.Model(inputs, Mine()(inputs)).save(tmp_path / name)
    with pytest.raises(ModelError, match=r"uses 'Mine'.*register_keras_serializable.*model\.export"):
        load(tmp_path / name)


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A module in the working folder that registers a layer and has functions that build models."""
    (tmp_path / "own_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('own')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
        "def build():\n"
        "    return keras.Sequential([keras.Input((3,)), Twice(), keras.layers.Dense(2)])\n"
        "def nothing():\n"
        "    return None\n"
    )
    (tmp_path / "needy.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    keras.utils.set_random_seed(0)
    model = importlib.import_module("own_layers").build()
    model.save("own.keras")
    for name in ("own.weights.h5", "legacy.h5"):
        model.save_weights("own.weights.h5") if "weights" in name else model.save(name)
    yield model(np.ones((1, 3)))
    registered = keras.saving.get_custom_objects()
    registered.pop("own>Twice", None)
    sys.modules.pop("own_layers")


def forget_module(monkeypatch):
    """As in a new process: neither imported nor registered; only the working folder is left to find it."""
    keras.saving.get_custom_objects().pop("own>Twice")
    sys.modules.pop("own_layers")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(Path.cwd())])
    importlib.invalidate_caches()


@pytest.mark.parametrize("name", ["own.keras", "legacy.h5"])
def test_modules_that_register_classes(own_code, monkeypatch, name):
    forget_module(monkeypatch)
    with pytest.raises(ModelError, match=r"Twice.*in model\.modules"):
        load(name)
    np.testing.assert_array_equal(load(name, modules=["own_layers"])(np.ones((1, 3))), own_code)


@pytest.mark.parametrize("name", ["own.keras", "own.weights.h5", "legacy.h5"])
def test_weights_and_a_builder(own_code, name):
    np.testing.assert_array_equal(load(name, builder="own_layers:build")(np.ones((1, 3))), own_code)


def test_modules_and_builders_that_are_wrong(own_code):
    cnn().save_weights("other.weights.h5")
    for options, words in (
        ({"modules": ["no_such_module"]}, r"model\.modules: there is no module 'no_such_module'"),
        ({"modules": ["needy"]}, r"model\.modules: 'needy' needs the module 'no_such_package'"),
        ({"builder": "own_layers:biuld"}, r"model\.builder: own_layers has no 'biuld'"),
        ({"builder": "own_layers:nothing"}, r"nothing\(\) gave a NoneType, not a keras\.Model"),
        ({"builder": "own_layers:Twice.call"}, r"own_layers:Twice\.call\(\) failed \(TypeError"),
        ({"builder": "own_layers:build"}, r"'other\.weights\.h5' are not those of the model that own_layers"),
    ):
        with pytest.raises(ModelError, match=words):
            load("other.weights.h5", **options)


def test_paths_that_hold_no_model(tmp_path):
    cnn().save_weights(tmp_path / "only.weights.h5")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "text.h5").write_text("no model")
    (tmp_path / "model.pt").write_text("torch")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    for name, words in {
        "missing.keras": "does not exist; give a .keras file",
        "only.weights.h5": "weights only",
        "other.h5": "weights only",
        "empty": "no saved_model.pb",
        "text.keras": "no zip archive",
        "text.h5": "not an HDF5 file",
        "other.keras": "cannot load",
        "model.pt": "ends in '.pt'",
    }.items():
        with pytest.raises(ModelError, match=rf"model\.path: .*{words}"):
            load(tmp_path / name)
    with pytest.raises(ModelError, match="cannot be opened"):
        load("nosuch://bucket/model.keras")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "saved_model.pb").write_bytes(b"\xff" * 20)
    with pytest.raises(ModelError, match="damaged"):
        load(tmp_path / "damaged")


def test_a_model_saved_twice_has_one_fingerprint(tmp_path):
    model = cnn()
    before = fingerprint(model)
    assert len(before) == 64 and int(before, 16)
    for name in ("one.keras", "two.keras"):
        model.save(tmp_path / name)
        assert fingerprint(load(tmp_path / name)) == before
    model.compile(optimizer="adam", loss="mse")
    model(images(), training=True)  # moves the moving statistics
    assert fingerprint(model) != before


def test_fingerprints_of_sequential_nested_and_augnet(tmp_path):
    keras.utils.set_random_seed(0)
    nested = keras.Sequential([layers.Rescaling(1 / 255), cnn(), layers.Dense(2, kernel_regularizer="l2")])
    nested.build((None, 6, 5, 1))
    for model in (nested, AugNet.from_model(nested)):
        model.save(tmp_path / "model.keras")
        assert fingerprint(load(tmp_path / "model.keras")) == fingerprint(model)


def test_one_weight_or_one_name_changes_the_fingerprint():
    model = cnn()
    before = fingerprint(model)
    assert fingerprint(keras.models.clone_model(model)) != before  # the same shape, other weights
    bias = model.layers[-1].bias
    bias.assign(bias.numpy() + np.array([0, 0, 0, 1e-7], "float32"))
    changed = fingerprint(model)
    assert changed != before
    model.layers[-1].activation = keras.activations.sigmoid
    assert fingerprint(model) not in (before, changed)


def test_fingerprint_of_a_saved_model_is_of_its_files_and_not_of_its_place(tmp_path):
    model = cnn()
    model.export(tmp_path / "one", verbose=False)
    before = fingerprint(load(tmp_path / "one"))
    (tmp_path / "one").rename(tmp_path / "moved")
    assert fingerprint(load(tmp_path / "moved")) == before
    model.layers[-1].bias.assign(np.ones(4, "float32"))
    model.export(tmp_path / "two", verbose=False)
    assert fingerprint(load(tmp_path / "two")) != before


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("builder", "my_models.build", "'my_models.build' does not fit; give module:function"),
        ("modules", "my_layers.py", r"'my_layers.py' does not fit; give a list of modules .* \[my_layers"),
        ("modules", ["../my_layers"], r"give a list of modules as they are imported"),
    ],
)
def test_modules_and_builders_that_are_no_names(key, value, rule):
    with pytest.raises(ConfigError, match=rf"^model\.{key}: .*{rule}"):
        load_config(flags={"model.path": "m", "images.path": "i", "output": "o", f"model.{key}": value})
