"""What a finding has to beat: rules without interventions, on the model's gradients or on nothing of it.

A rule names places. All but `random` look for the window, a quarter of the image high and
wide, that holds more of an output's maps than expected; they differ in the maps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import sobel

from benchmarks.findings.networks import build
from benchmarks.findings.scoring import Finding
from benchmarks.findings.shortcuts import Place

CELLS = 16
"""Cells along a side of the grid that maps are reduced to."""
MIN_IMAGES = 20
STANDS_OUT, LOW, HIGH = 1.4, 1.75, 2.5
"""A window is named whose lift is this many times the largest of any other output; LOW at least, HIGH is
always enough."""
STEADY = 0.25
"""Least (sum s)^2 / (n sum s^2) of the images' shares s in the window."""


@dataclass(frozen=True)
class Audited:
    """What a baseline may look at.

    Attributes:
        images: (n, height, width, channel) float32 in [0, 1].
        predicted: (n,) outputs.
    """

    model: keras.Model
    images: np.ndarray
    predicted: np.ndarray
    seed: int


def random_place(audited: Audited) -> list[Finding]:
    """One window of one output, by chance."""
    rng = np.random.default_rng([audited.seed, 9])
    height, width = audited.images.shape[1:3]
    window = Place(
        int(rng.integers(height - height // 4 + 1)),
        int(rng.integers(width - width // 4 + 1)),
        height // 4,
        width // 4,
    )
    return [Finding("place", int(rng.integers(audited.model.output_shape[-1])), (window,))]


def edge_detector(audited: Audited) -> list[Finding]:
    """By the images' own edges, whatever the model does with them."""
    edges = np.hypot(sobel(audited.images, axis=1), sobel(audited.images, axis=2))
    return hot_windows(np.linalg.norm(edges, axis=-1), audited.predicted)


def random_weights(audited: Audited) -> list[Finding]:
    """By the gradients of a model of the same kind that was never trained."""
    size, channels = audited.images.shape[2:]
    keras.utils.set_random_seed(audited.seed)
    untrained = build(audited.model.name, size, channels, audited.model.output_shape[-1])
    return hot_windows(sensitivity(untrained, audited.images, audited.predicted), audited.predicted)


def gradients_only(audited: Audited) -> list[Finding]:
    """By the model's gradients: the rule of augnet 0's first reports."""
    return hot_windows(sensitivity(audited.model, audited.images, audited.predicted), audited.predicted)


BASELINES: dict[str, Callable[[Audited], list[Finding]]] = {
    "random": random_place,
    "edge detector": edge_detector,
    "random weights": random_weights,
    "gradients only": gradients_only,
}


def sensitivity(model: keras.Model, images: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Magnitude (n, height, width) of the gradient of each image's output, before the softmax."""
    last = model.layers[-1]
    features = keras.Model(model.inputs, last.input)
    x = tf.convert_to_tensor(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        logits = features(x, training=False) @ last.kernel + last.bias
        chosen = tf.reduce_sum(tf.gather(logits, outputs, batch_dims=1))
    return np.linalg.norm(tape.gradient(chosen, x), axis=-1)


def hot_windows(maps: np.ndarray, outputs: np.ndarray) -> list[Finding]:
    """The windows that stand out, at most one for each output with MIN_IMAGES images.

    An output's expected share of a window is the mean of what a smooth map (the Gaussian with the moments of
    its mean map) and the other outputs' median have there, plus a quarter of the window's part of the image.
    Lift is the share over the expected one.

    Args:
        maps: (n, height, width), not negative.
        outputs: (n,) what each image is predicted as.
    """
    y_edges, x_edges = (np.arange(min(side, CELLS) + 1) * side // min(side, CELLS) for side in maps.shape[1:])
    cells = np.add.reduceat(
        np.add.reduceat(maps, x_edges[:-1], axis=2), y_edges[:-1], axis=1, dtype=np.float64
    )
    total = cells.sum(axis=(1, 2), keepdims=True)
    cells, outputs = cells[total.ravel() > 0] / total[total.ravel() > 0], outputs[total.ravel() > 0]
    judged = [output for output in np.unique(outputs).tolist() if np.sum(outputs == output) >= MIN_IMAGES]
    if len(judged) < 2:
        return []
    mean = np.stack([cells[outputs == output].mean(axis=0) for output in judged])
    windows = _window_sums(cells)
    steadiness = [_steadiness(windows[outputs == output]) for output in judged]
    area = np.diff(y_edges)[:, None] * np.diff(x_edges) / (y_edges[-1] * x_edges[-1])
    smooth = (
        _gaussian(mean.sum(axis=2), y_edges)[:, :, None] * _gaussian(mean.sum(axis=1), x_edges)[:, None, :]
    )
    shares = _window_sums(mean)
    others = np.stack([np.median(np.delete(shares, k, axis=0), axis=0) for k in range(len(judged))])
    lift = shares / ((_window_sums(smooth) + others) / 2 + _window_sums(area) / 4)
    largest = lift.max(axis=(1, 2))
    named = []
    for k, output in enumerate(judged):
        row, column = np.unravel_index(lift[k].argmax(), lift[k].shape)
        enough = np.clip(STANDS_OUT * np.delete(largest, k).max(), LOW, HIGH)
        if largest[k] >= enough and steadiness[k][row, column] >= STEADY:
            height, width = (max(1, round(side / 4)) for side in cells.shape[1:])
            y, below, x, right = y_edges[row], y_edges[row + height], x_edges[column], x_edges[column + width]
            window = Place(int(y), int(x), int(below - y), int(right - x))
            named.append(Finding("place", output, (window,)))
    return named


def _window_sums(cells: np.ndarray) -> np.ndarray:
    """(..., row, column) sums over every window, a quarter of the grid high and wide."""
    shape = tuple(max(1, round(side / 4)) for side in cells.shape[-2:])
    return sliding_window_view(cells, shape, axis=(-2, -1)).sum(axis=(-2, -1))


def _steadiness(shares: np.ndarray) -> np.ndarray:
    """1 where all images (n, row, column) have equal shares, 1 / n where one has all."""
    return shares.mean(axis=0) ** 2 / np.maximum((shares**2).mean(axis=0), 1e-12)


def _gaussian(profile: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The Gaussian with the moments of each (output, cell) profile, cut to the image; its rows sum to 1."""
    centre, size = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    mean = profile @ centre
    spread = (profile * (centre - mean[:, None]) ** 2).sum(axis=1) + np.mean(size**2) / 12
    density = size * np.exp(-((centre - mean[:, None]) ** 2) / (2 * spread[:, None]))
    return density / density.sum(axis=1, keepdims=True)
