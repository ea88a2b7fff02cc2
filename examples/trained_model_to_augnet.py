"""Tutorial 2: take a Keras model that somebody trained, and look at what its outputs depend on.

    python examples/trained_model_to_augnet.py

First it plays that somebody: a plain Keras CNN learns to read 13 numbers off a 256x256 grey picture of an
ellipse and a rectangle, and is saved. Then the part to copy: load the model, make an AugNet of it, and
compute the Jacobian of one picture, 13 pictures of 256x256 that say how each output changes with each pixel.
At last it compares the cost with that of finite differences, which need two evaluations for each of the
65,536 pixels.

It writes to --output: model.keras, input.png and jacobian_00.png to jacobian_12.png.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import matplotlib

matplotlib.use("Agg")  # write files, open no window

import numpy as np
from matplotlib import pyplot as plt

from augnet import AugNet

PARAMETERS = (
    *(f"ellipse {name}" for name in ("centre y", "centre x", "half height", "half width", "brightness")),
    *(f"rectangle {name}" for name in ("centre y", "centre x", "half height", "half width", "brightness")),
    *("background", "slope down", "slope right"),
)
# Of the 0 to 1 of a pixel, in float64: small enough that hardly a ReLU switches on the way.
STEP = 1e-6


def draw(parameters: np.ndarray, size: int, noise: np.random.Generator) -> np.ndarray:
    """Pictures of the shapes that the parameters describe.

    Args:
        parameters: (pictures, 13) in [0, 1], named by PARAMETERS.
        size: height and width in pixels.
        noise: source of the grain.

    Returns:
        (pictures, size, size) float32, about 0 to 1.
    """
    y, x = np.mgrid[0:size, 0:size].astype("float32") / size - 0.5
    columns = parameters.astype("float32").T[:, :, None, None]
    (ey, ex, eh, ew, eb), (ry, rx, rh, rw, rb), (background, down, right) = np.split(columns, [5, 10])
    pictures = 0.3 * background + 0.3 * (down - 0.5) * y + 0.3 * (right - 0.5) * x
    # The ellipse lives on the left, the rectangle on the right, so that each can be told by its place.
    dy, dx = y + 0.2 - 0.4 * ey, x + 0.35 - 0.2 * ex
    inside = (dy / (0.08 + 0.1 * eh)) ** 2 + (dx / (0.05 + 0.1 * ew)) ** 2 < 1
    pictures = np.where(inside, 0.4 + 0.5 * eb, pictures)
    dy, dx = y + 0.2 - 0.4 * ry, x - 0.15 - 0.2 * rx
    inside = (np.abs(dy) < 0.08 + 0.1 * rh) & (np.abs(dx) < 0.05 + 0.1 * rw)
    pictures = np.where(inside, 0.4 + 0.5 * rb, pictures)
    return pictures + 0.02 * noise.standard_normal(pictures.shape, "float32")


def plain_cnn(size: int) -> keras.Model:
    """A regression CNN, (size, size) -> 13, with nothing of augnet in it."""
    layers = keras.layers
    inputs = keras.Input((size, size), name="picture")
    x = layers.Reshape((size, size, 1))(inputs)
    for number, filters in enumerate((12, 24, 48, 96)):
        x = layers.SeparableConv2D(filters, 5, padding="same", depth_multiplier=3 if number == 0 else 1)(x)
        x = layers.ReLU()(x)
        if number >= 2:
            x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(len(PARAMETERS), name="parameters")(x), name="shapes")


def train_and_save(path: Path, size: int, count: int, epochs: int) -> None:
    """Somebody trains a model."""
    random = np.random.default_rng(0)
    parameters = random.uniform(size=(count, len(PARAMETERS))).astype("float32")
    pictures = draw(parameters, size, random)
    model = plain_cnn(size)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss="mse")
    history = model.fit(pictures, parameters, batch_size=16, epochs=epochs, verbose=0)
    model.save(path)
    print(
        f"trained on {count} pictures of {size}x{size}, {epochs} times: mean squared error "
        f"{history.history['loss'][0]:.4f} -> {history.history['loss'][-1]:.4f}; saved {path}"
    )


def save_pictures(folder: Path, picture: np.ndarray, jacobian: np.ndarray) -> None:
    """Write the input in grey, and each row of the Jacobian with zero in white.

    Args:
        folder: where to.
        picture: (height, width).
        jacobian: (13, height, width).
    """
    plt.imsave(folder / "input.png", picture, cmap="gray", vmin=0, vmax=1)
    for number, row in enumerate(jacobian):
        # Symmetric limits: red raises the output, blue lowers it, white does nothing. The few largest
        # values would leave all others white, so the colours end at the 99.8th percentile.
        limit = np.quantile(np.abs(row), 0.998) or 1.0
        figure, axes = plt.subplots(figsize=(5, 4.2), layout="constrained")
        drawn = axes.imshow(row, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axes.set(title=f"d ({PARAMETERS[number]}) / d pixel", xticks=[], yticks=[])
        figure.colorbar(drawn, ax=axes, extend="both")
        figure.savefig(folder / f"jacobian_{number:02d}.png", dpi=100)
        plt.close(figure)


def seconds(work: Callable[[], Any], repeats: int) -> float:
    """The median time of `work`, after one run that compiles it."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def sampled_differences(
    evaluate: Callable[[np.ndarray], np.ndarray],
    picture: np.ndarray,
    pixels: np.ndarray,
    step: float,
    batch: int,
) -> np.ndarray:
    """Central finite differences at some pixels, in batches.

    Args:
        evaluate: (batch, height, width) -> (batch, 13).
        picture: (height, width).
        pixels: flat pixel numbers; their count is a multiple of `batch`.
        step: by which a pixel is moved either way.
        batch: pictures per evaluation.

    Returns:
        (13, pixels).
    """
    columns = []
    for some in pixels.reshape(-1, batch):
        moved = np.repeat(picture.reshape(1, -1), batch, axis=0)
        moved[np.arange(batch), some] += step
        ahead = evaluate(moved.reshape(batch, *picture.shape))
        moved[np.arange(batch), some] -= 2 * step
        behind = evaluate(moved.reshape(batch, *picture.shape))
        columns.append((ahead - behind) / (2 * step))
    return np.concatenate(columns).T


def in_float64(model: keras.Model) -> keras.Model:
    """The same layers and weights in float64: in float32, differences this small are mostly rounding."""
    config = model.get_config()
    for layer in config["layers"]:
        layer["config"]["dtype"] = "float64"
    double = keras.Model.from_config(config)
    double.set_weights(model.get_weights())
    return double


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", default="trained_model_to_augnet", help="folder to write to")
    parser.add_argument(
        "--quick", action="store_true", help="small pictures, little training: a test that it runs"
    )
    options = parser.parse_args(arguments)
    size, count, epochs, repeats, batch = (32, 64, 1, 1, 16) if options.quick else (256, 600, 5, 5, 64)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    train_and_save(folder / "model.keras", size, count, epochs)

    # 1. Load the trained model, and make an AugNet of it. The layers are shared, not copied.
    trained = keras.models.load_model(folder / "model.keras")
    model = AugNet(inputs=trained.inputs, outputs=trained.outputs)  # or AugNet.from_model(trained)

    # 2. It is the same model: the same weights, the same predictions.
    random = np.random.default_rng(1)
    parameters = random.uniform(size=(8, len(PARAMETERS)))
    pictures = draw(parameters, size, random)
    same = all(np.array_equal(a, b) for a, b in zip(trained.get_weights(), model.get_weights(), strict=True))
    equal = np.array_equal(trained.predict(pictures, verbose=0), model.predict(pictures, verbose=0))
    print(f"the AugNet of it has the same weights: {same}, and the same predictions: {equal}")

    # 3. The Jacobian of one picture. A batch axis goes in, and comes out: (1, 13, height, width).
    picture = pictures[:1]
    jacobian = model.return_jacobian(picture).numpy()[0]
    print(f"Jacobian of one picture: {jacobian.shape}, {jacobian.nbytes / 1e6:.1f} MB")
    for name, row in zip(PARAMETERS, jacobian, strict=True):
        print(f"  {name:24s} length {np.linalg.norm(row):9.4f}, in the left half {left_share(row):4.0%}")
    save_pictures(folder, picture[0], jacobian)
    print(f"wrote input.png and {len(jacobian)} pictures of the Jacobian to {folder}")

    # 4. It is right: finite differences at some pixels give the same numbers.
    pixels = random.permutation(size * size)[: 2 * batch]
    double = in_float64(trained)
    differences = sampled_differences(
        lambda moved: double(moved, training=False).numpy(), picture[0].astype("float64"), pixels, STEP, batch
    )
    there = jacobian.reshape(len(jacobian), -1)[:, pixels]
    error = np.linalg.norm(differences - there) / np.linalg.norm(differences)
    print(f"finite differences at {len(pixels)} pixels differ from it by {error:.1e} of their length")

    # 5. What it costs. Finite differences get every advantage: compiled, single precision, large batches.
    one = seconds(lambda: model.predict_on_batch(picture), repeats)
    exact = seconds(lambda: model.return_jacobian(picture), repeats)
    sampled = seconds(lambda: sampled_differences(model.predict_on_batch, picture[0], pixels, STEP, batch), 1)
    whole = sampled / len(pixels) * size * size
    print(f"one evaluation:      {one:9.4f} s")
    print(f"the Jacobian:        {exact:9.4f} s, as {exact / one:.1f} evaluations")
    print(
        f"finite differences:  {whole:9.1f} s, {whole / exact:.0f} times the Jacobian "
        f"(timed on {len(pixels)} of {size * size} pixels, batches of {batch})"
    )


def left_share(row: np.ndarray) -> float:
    """The share of the magnitude that lies in the left half, where the ellipse is."""
    magnitude = np.abs(row)
    return float(magnitude[:, : row.shape[1] // 2].sum() / magnitude.sum())


if __name__ == "__main__":
    main()
