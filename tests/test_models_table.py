"""The table in docs/how-to/models.md is true: every row is written, and opened as the table says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from keras import layers
from PIL import Image

import augnet
from augnet.audits.engine_setup import open_model
from augnet.config import ModelConfig, load_config
from augnet.engine.graph.graph import trace
from augnet.errors import ModelError
from augnet.models.loading import load_model
from augnet.models.one_image import computes_channels_first
from augnet.models.saved_model import SavedModelLayer
from pipeline.main import main

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "models.md"
SPEC = tf.TensorSpec((None, 8, 8, 3), tf.float32, name="image")


@keras.saving.register_keras_serializable("test_models_table")
class OverTheBatch(layers.Layer):
    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=0, keepdims=True)


@keras.saving.register_keras_serializable("test_models_table")
class Noise(layers.Layer):
    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs))


def head(x):
    return layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)))


def cnn(front=lambda x: x, end=head, shape=(8, 8, 3), **options):
    keras.utils.set_random_seed(0)
    image = keras.Input(shape, name="image", **options)
    return keras.Model(image, end(front(image)))


def saved(model, folder, name="model.keras"):
    model.save(folder / name)
    return folder / name


def exported(folder, signatures=None, spec=SPEC, **functions):
    """A SavedModel of a tf.Module."""
    module = tf.Module()
    for name, function in functions.items():
        setattr(module, name, tf.function(function, input_signature=[spec]))
    chosen = {name: getattr(module, name) for name in signatures} if signatures else None
    tf.saved_model.save(module, str(folder / "exported"), signatures=chosen)
    return folder / "exported"


def means(x):
    return {"y": tf.reduce_mean(tf.cast(x, tf.float32), (1, 2))}


def keras_export(folder):
    cnn().export(folder / "exported", verbose=False)
    return folder / "exported"


def tensorflow_save(folder):
    tf.saved_model.save(cnn(), str(folder / "exported"))
    return folder / "exported"


def reading_a_file(folder):
    (folder / "one.txt").write_text("1")

    def read(x):
        return {"y": means(x)["y"] * tf.strings.to_number(tf.io.read_file(str(folder / "one.txt")))}

    return exported(folder, ["call"], call=read)


def own_code(folder):
    """Of your own: a model class, a layer in a graph of layers, and the weights of that."""
    (folder / "own_code_of_the_table.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable('own_table')\n"
        "class Own(keras.Model):\n"
        "    def __init__(self, **options):\n"
        "        super().__init__(**options)\n"
        "        self.dense = keras.layers.Dense(2)\n"
        "    def call(self, x):\n"
        "        return self.dense(keras.ops.mean(x, (1, 2)))\n"
        "@keras.saving.register_keras_serializable('own_table')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
        "def build():\n"
        "    image = keras.Input((8, 8, 3))\n"
        "    return keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(Twice()(image))))\n"
    )
    sys.path.insert(0, str(folder))
    try:
        import own_code_of_the_table as own
    finally:
        sys.path.remove(str(folder))
    model = own.Own()
    model(np.zeros((1, 8, 8, 3)))
    saved(model, folder, "class.keras")
    saved(own.build(), folder, "layer.keras")
    own.build().save_weights(folder / "own.weights.h5")
    forget_own_code()
    return folder


def forget_own_code():
    """As in a new process: neither imported nor registered."""
    sys.modules.pop("own_code_of_the_table", None)
    for name in ("Own", "Twice"):
        keras.saving.get_custom_objects().pop(f"own_table>{name}", None)


def two_inputs(folder):
    image, size = keras.Input((8, 8, 3), name="image"), keras.Input((2,), name="size")
    x = layers.Concatenate()([layers.Flatten()(image), size])
    return saved(keras.Model([image, size], layers.Dense(2)(x)), folder)


def two_outputs(folder):
    return saved(cnn(end=lambda x: [head(x), head(x)]), folder)


def overflowing(x):
    return keras.ops.cast(x + x, "float32")


def doubled(folder):
    return saved(cnn(layers.Lambda(lambda x: x * 2)), folder)


def channels_first(folder):
    def end(x):
        x = layers.Conv2D(4, 3, data_format="channels_first")(x)
        return layers.Dense(2)(layers.GlobalAveragePooling2D(data_format="channels_first")(x))

    return saved(cnn(end=end, shape=(3, 8, 8)), folder)


def segmentation(folder):
    return saved(cnn(end=layers.Conv2D(2, 1)), folder)


def foreign(folder):
    (folder / "model.onnx").write_bytes(b"onnx")
    return folder / "model.onnx"


INTEGERS = tf.TensorSpec((None, 8, 8, 3), tf.uint8, name="image")
CASES = {
    "`.keras` of Keras 3": (lambda f: saved(cnn(), f), {}),
    "`.h5` of Keras 3": (lambda f: saved(cnn(), f, "model.h5"), {}),
    "`.keras` of Keras 2": ("nested.keras", {}),
    "`.h5` of Keras 2": ("nested.h5", {}),
    "SavedModel of Keras 2, its optimizer's state included": ("tutorial", {}),
    "SavedModel of Keras 2 that Keras 3 cannot build": ("unbuildable", {}),
    "`model.export` of Keras 3": (keras_export, {}),
    "`tf.saved_model.save` of a Keras 3 model": (tensorflow_save, {}),
    "`tf.saved_model.save` of a `tf.Module`": (lambda f: exported(f, call=means), {}),
    "SavedModel with several signatures, none of them `serving_default`": (
        lambda f: exported(f, ["one", "two"], one=means, two=means),
        {"model.signature": "two"},
    ),
    "SavedModel with operations that run Python or touch files": (reading_a_file, {"model.safe_mode": False}),
    "SavedModel with an image of integers that it casts": (
        lambda f: exported(f, spec=INTEGERS, call=means),
        {},
    ),
    "SavedModel that needs its inputs as integers": (
        lambda f: exported(f, spec=INTEGERS, call=lambda x: means(x // 2)),
        {},
    ),
    "SavedModel whose steps have no gradient": (
        lambda f: exported(f, call=lambda x: {"y": tf.round(means(x)["y"])}),
        {},
    ),
    "a Lambda layer with Python code in it": (doubled, {"model.safe_mode": False}),
    "a layer or function of your own": (
        lambda f: own_code(f) / "layer.keras",
        {"model.modules": ["own_code_of_the_table"]},
    ),
    "a model class of your own": (
        lambda f: own_code(f) / "class.keras",
        {"model.modules": ["own_code_of_the_table"]},
    ),
    "weights alone": (
        lambda f: own_code(f) / "own.weights.h5",
        {"model.builder": "own_code_of_the_table:build"},
    ),
    "several outputs": (two_outputs, {"model.output": 1}),
    "several inputs, the image among them": (two_inputs, {"model.constants": {"size": 1}}),
    "an image of integers that the model casts": (
        lambda f: saved(cnn(layers.Rescaling(1 / 255), dtype="uint8"), f),
        {},
    ),
    "an image of integers that it needs as integers": (
        lambda f: saved(cnn(overflowing, dtype="uint8"), f),
        {},
    ),
    "channels first": (channels_first, {}),
    "an input of any height and width": (
        lambda f: saved(cnn(shape=(None, None, 3)), f),
        {"preprocess.size": [8, 8]},
    ),
    "outputs with height and width, as in segmentation": (segmentation, {"jacobian.reduce": "mean"}),
    "outputs that are random at inference": (lambda f: saved(cnn(Noise()), f), {}),
    "outputs that change with the other images of a batch": (lambda f: saved(cnn(OverTheBatch()), f), {}),
    "PyTorch, ONNX, TFLite": (foreign, {}),
}


def rows_of_the_page():
    cells = [
        [cell.strip() for cell in row.split("|")[1:5]]
        for row in re.findall(r"^\|.*\|$", PAGE.read_text(), re.M)
    ]
    return {cell[0]: tuple(cell[1:]) for cell in cells[2:]}


def outcome(path, **keys):
    """How the model is computed, or "refused"."""
    config = load_config(flags={"model.path": str(path), "images.path": "i", "output": "o", **keys})
    try:
        inspected = open_model(config)
    except ModelError:
        return "refused"
    if any(isinstance(layer, SavedModelLayer) for layer in inspected.model.layers):
        return "signature"
    return "tape" if trace(inspected.model, config.model.output) is None else "rules"


def test_the_page_has_the_rows_that_are_tried():
    assert set(rows_of_the_page()) == set(CASES)


@pytest.mark.parametrize("row", CASES)
def test_a_row(row, tmp_path, keras2_models, monkeypatch):
    if row == "channels first" and not computes_channels_first():
        pytest.skip("needs oneDNN, which is off on this processor")
    monkeypatch.chdir(tmp_path)
    write, keys = CASES[row]
    path = keras2_models / write if isinstance(write, str) else write(tmp_path)
    alone, key, then = rows_of_the_page()[row]
    assert outcome(path) == alone
    assert key == ", ".join(f"`{name}`" for name in keys)
    if keys:
        with pytest.raises(ModelError, match=next(iter(keys)).replace(".", r"\.")):
            open_model(load_config(flags={"model.path": str(path), "images.path": "i", "output": "o"}))
        assert outcome(path, **keys) == then
    forget_own_code()


def test_the_configurations_on_the_page_are_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) >= 5
    for block in blocks:
        flags = {"images.path": "i", "output": "o"}
        for section, keys in yaml.safe_load(block).items():
            # preprocess: keras.applications.resnet
            named = keys if isinstance(keys, dict) else {"scale": keys}
            flags |= {f"{section}.{key}": value for key, value in named.items()}
        assert load_config(flags={"model.path": "m", **flags})


def test_a_model_of_keras_2_from_the_command_line(tmp_path, keras2_models, capsys):
    """The tutorial's kind of model: two arguments, and the program with rules."""
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    images, output = str(tmp_path), str(tmp_path / "out")
    model = str(keras2_models / "tutorial")
    assert main(["audit", "--model", model, "--images", images, "--output", output]) == 0
    page = (tmp_path / "out" / "report" / "index.html").read_text()
    assert "<b>Guessed:</b> preprocess.scale was guessed" in page
    audit = augnet.open_audit(output)
    assert audit.counts["audited"] == 3
    x = np.asarray(Image.open(tmp_path / "1.png"), np.float32)[None] / 255
    loaded = load_model(ModelConfig(path=model))
    with tf.GradientTape() as tape:
        image = tf.constant(x)
        tape.watch(image)
        outputs = loaded(image, training=False)
    expected = tape.batch_jacobian(outputs, image)[0]
    np.testing.assert_allclose(np.asarray(audit.jacobian("1.png"))[..., 0], expected, atol=1e-6)
