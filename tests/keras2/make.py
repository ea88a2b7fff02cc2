"""Make models.zip: small models as Keras 2 wrote them, with their outputs, for tests that need no Keras 2.

    pip install tf_keras
    python tests/keras2/make.py

tutorial/ is of the kind that the tutorial trains: (height, width) without a channel axis, SeparableConv2D
layers, and an Adam whose slot variables TensorFlow cannot restore without Keras 2.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tf_keras as keras
from tf_keras import layers

ZIP = Path(__file__).parent / "models.zip"
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype("float32")


def tutorial() -> keras.Model:
    image = keras.Input((8, 8), name="picture")
    x = layers.Reshape((8, 8, 1))(image)
    x = layers.SeparableConv2D(2, 3, padding="same", depth_multiplier=3)(x)
    x = layers.MaxPooling2D()(layers.BatchNormalization()(layers.ReLU()(x)))
    return keras.Model(image, layers.Dense(4, name="parameters")(layers.Flatten()(x)), name="shapes")


def train(model: keras.Model, images: np.ndarray) -> keras.Model:
    """One step of the Adam that was the default up to TensorFlow 2.10."""
    model.compile(keras.optimizers.legacy.Adam(1e-2), "mse")
    model.fit(images, np.ones((len(images), model.output_shape[-1])), verbose=0)
    return model


def preprocessing(mode: str) -> keras.Model:
    """A network with `preprocess_input` inside, as bare TensorFlow calls."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.applications.imagenet_utils.preprocess_input(image, mode=mode)
    x = layers.Conv2D(3, 3, padding="same")(x) + x * 0.5
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)), name=mode)


def nested() -> keras.Model:
    """A frozen backbone and a Sequential head, with augmentation and Normalization in front."""
    keras.backend.clear_session()
    inner = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3)(inner)
    backbone = keras.Model(inner, layers.BatchNormalization()(x), name="backbone")
    backbone.layers[-1].set_weights([np.full(3, value) for value in (0.5, 1.0, 2.0, 3.0)])
    backbone.trainable = False
    head = keras.Sequential([layers.Flatten(), layers.Dense(2, activation="softmax")], name="head")
    normalization = layers.Normalization()
    normalization.adapt(IMAGES)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.RandomFlip()(normalization(image))
    return keras.Model(image, head(backbone(x)), name="nested")


def unbuildable() -> keras.Model:
    """A call that Keras 3 has no layer for."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.backend.cumsum(image, axis=1)
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(x)), name="unbuildable")


def main() -> None:
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outputs = {}

        def save(model: keras.Model, images: np.ndarray, *files: str) -> None:
            for file in files:
                model.save(folder / file, save_format=None if "." in file else "tf")
            outputs[model.name] = model(images, training=False).numpy()

        save(train(tutorial(), IMAGES[..., 0] / 255), IMAGES[..., 0] / 255, "tutorial", "tutorial.h5")
        save(preprocessing("caffe"), IMAGES, "caffe.h5")
        save(preprocessing("tf"), IMAGES, "tf.h5", "tf.keras")
        save(nested(), IMAGES, "nested", "nested.h5", "nested.keras")
        save(unbuildable(), IMAGES, "unbuildable", "unbuildable.h5")
        scaled = keras.Sequential([keras.Input((8, 8, 3)), layers.Lambda(lambda x: x * 2)], name="scaled")
        save(scaled, IMAGES, "lambda.h5")
        np.savez(folder / "outputs.npz", images=IMAGES, **outputs)
        with zipfile.ZipFile(ZIP, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder))


if __name__ == "__main__":
    main()
