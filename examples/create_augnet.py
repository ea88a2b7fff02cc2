"""Tutorial 1: build, train and save a model that returns its own Jacobian.

    python examples/create_augnet.py

An AugNet is a Keras model. It is built, compiled, fitted and saved like any other, and has one method more:
`return_jacobian(x)`, the derivative of every output by every input. Here it learns two functions of four
variables, whose derivatives we know, so that all three can be compared: the model's Jacobian, central finite
differences of the model, and the derivatives of the functions that it learned.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import keras
import numpy as np

from augnet import AugNet


def target(x: np.ndarray) -> np.ndarray:
    """The functions to learn. x (samples, 4) -> (samples, 2)."""
    return np.stack([np.sin(x[:, 0]) + x[:, 1] * x[:, 2], x[:, 2] ** 2 - 0.5 * x[:, 3]], axis=1)


def target_jacobian(x: np.ndarray) -> np.ndarray:
    """Their derivatives at one point. x (4,) -> (2, 4)."""
    return np.array([[np.cos(x[0]), x[2], x[1], 0.0], [0.0, 0.0, 2 * x[2], -0.5]])


def finite_differences(model: keras.Model, x: np.ndarray, step: float = 1e-2) -> np.ndarray:
    """Central differences of the model at one point. x (4,) -> (2, 4)."""
    steps = step * np.eye(len(x))
    ahead = model.predict(x + steps, verbose=0)  # one row for each input that moved
    behind = model.predict(x - steps, verbose=0)
    return ((ahead - behind) / (2 * step)).T


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train for a moment only: a test that it runs")
    parser.add_argument("--output", help="folder for the saved model (default: a temporary one)")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    np.set_printoptions(precision=3, suppress=True)

    # Build: as any functional model, with AugNet in the place of keras.Model. Smooth activations suit a
    # model whose derivatives matter.
    inputs = keras.Input((4,), name="features")
    hidden = keras.layers.Dense(64, activation="softplus")(inputs)
    hidden = keras.layers.Dense(64, activation="softplus")(hidden)
    model = AugNet(inputs=inputs, outputs=keras.layers.Dense(2)(hidden), name="regression")

    # Train: nothing new.
    x = np.random.default_rng(0).uniform(-1, 1, (500 if options.quick else 8000, 4)).astype("float32")
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse")
    history = model.fit(x, target(x), batch_size=128, epochs=2 if options.quick else 40, verbose=0)
    print(f"trained: mean squared error {history.history['loss'][-1]:.5f}")

    # The Jacobian: (batch, outputs, inputs). One point is a batch of one.
    point = np.array([0.3, -0.4, 0.5, 0.1], "float32")
    jacobian = model.return_jacobian(point[None])[0].numpy()
    differences = finite_differences(model, point)
    print(f"at x = {point}, a row for each output, a column for each input:")
    print(f"the model's Jacobian\n{jacobian}")
    print(f"central finite differences of the model\n{differences}")
    print(f"derivatives of the functions it learned\n{target_jacobian(point)}")
    print(f"largest difference, Jacobian to finite differences: {np.abs(jacobian - differences).max():.1e}")

    # Many points, one output: NumPy arrays, computed batch by batch.
    first = model.jacobian(x, outputs=0, batch_size=256)
    print(f"mean |d output 0 / d input| over {len(x)} points: {np.abs(first).mean(axis=0)}")

    # Save and load: nothing new, and what comes back is an AugNet.
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(options.output or temporary) / "regression.keras"
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path)
        loaded = keras.models.load_model(path)
    same = np.array_equal(loaded.return_jacobian(point[None])[0], jacobian)
    print(f"saved and loaded a {type(loaded).__name__}; its Jacobian is the same: {same}")


if __name__ == "__main__":
    main()
