"""The engine checked on real images by methods that share nothing with it but the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from augnet.engine.backends import backend
from augnet.engine.engine import ROUNDING as ROUNDING_OF_PRODUCTS
from augnet.engine.engine import Engine
from augnet.engine.tuning import difference

TOLERANCE = 1e-4
"""Normwise, between a float32 Jacobian and a float64 judge, for images without a kink within rounding."""
FLOAT64_TOLERANCE = 1e-9
"""Normwise, between two float64 Jacobians: no image has a kink within their rounding."""
BATCH_TOLERANCE = 1e-5
"""Normwise, between two float32 Jacobians of one image."""
STEPS = (1e-5, 1e-6)
"""Of the central differences, relative to the image's largest value. Where they disagree, there is a kink."""
ROUNDING = 1e-5
"""Relative noise on an image that stands for float32's rounding on the way through a model."""
NOISES = 3
KINK_FACTOR = 10
"""A kink explains an error up to so many times the oracle's own change: a few noises miss the worst."""
COARSE_FACTOR = 3
"""In bfloat16 and TF32 the engine may be so many times as far from a judge as the model as it is, in the same
precision: how far that is depends on the model's depth and kinks."""
RULES = "its rules in float64 against the oracle"
SECANT_NOISE = 1e4 * float(np.finfo(float).eps)
"""A change of the outputs, relative to them, that is too small for differences to tell it to a thousandth."""
DIRECTION_TOLERANCE = 1e-3
"""Along a random direction the products of a long row mostly cancel, which leaves rounding."""


@dataclass(frozen=True)
class Check:
    """One line of the table that verify gives.

    Attributes:
        name: what was compared with what.
        images: how many were compared.
        kinks: images or directions left out because a kink lies within the step or the rounding.
        error: the largest normwise relative difference of the others.
        tolerance: what it may be.
    """

    name: str
    images: int
    kinks: int
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is small enough."""
        return bool(self.error <= self.tolerance)


def verify(engine: Engine, images: np.ndarray, *, directions: int = 4, seed: int = 0) -> list[Check]:
    """The engine's Jacobian of these images against independent judges.

    - float64 oracle: one tape and one backward pass per row over the model in float64, no rewriting; for the
      engine's rules in float64, and for its own rows.
    - central differences: (f(x + h v) - f(x - h v)) / 2h for random v, in float64.
    - adjoint identity: u . (J v) = (J' u) . v, J v by forward mode on the float64 model, J' u by the engine.
    - batch: an image alone against the same image among the others.

    Near a kink (of a ReLU or a max-pool) no two ways of computing need agree. So an image that disagrees is
    counted and left out where the oracle itself changes as much under noise as small as float32's rounding;
    everywhere else a disagreement is a fault. A large model has a kink near every image; then it is the rules
    in float64 that are judged, where rounding reaches none. In bfloat16 and TF32 rounding moves so many kinks
    that no image is left out; there a fault is an error that the model as it is does not have in the same
    precision.

    Args:
        engine: with a graph (functional or sequential model); without one only the last check is made.
        images: (n, height, width, channel), in the model's own input space.
        directions: random directions per image.
        seed: of the directions and of the noise.

    Returns:
        The table, one Check per judge.
    """
    starts = range(0, len(images), engine.batch_size)
    rows = np.concatenate([engine.jacobian(images[i : i + engine.batch_size]) for i in starts])
    alone = np.concatenate([engine.jacobian(image[None]) for image in images])
    between_batches = difference(rows, alone)
    oracle = engine.float64_function()
    if oracle is None:
        unknown = np.zeros(len(images))
        return [_check("batch of one against batch of many", between_batches, unknown, BATCH_TOLERANCE)]
    rng = np.random.default_rng(seed)
    errors, restless, faults = (np.zeros(len(images)) for _ in range(3))
    rules = engine.float64_rows()
    secants, adjoints, bends = (np.zeros((len(images), directions)) for _ in range(3))
    coarse = engine.precision in ROUNDING_OF_PRODUCTS
    unit = ROUNDING_OF_PRODUCTS.get(engine.precision, 0.0)
    allowed, allowed_along = np.full(len(images), 8 * unit), np.full((len(images), directions), 8 * unit)
    for k, image in enumerate(images.astype(np.float64)):
        outputs = engine.selected_of(images[k])
        truth = backend.oracle_rows(oracle, image, outputs)
        errors[k] = difference(truth[None], rows[k][None])[0]
        if rules is not None:
            faults[k] = difference(truth[None], rules(image, outputs)[None])[0]
        size = max(1.0, float(np.abs(image).max()))
        for _ in range(NOISES):
            noisy = image + ROUNDING * size * rng.normal(size=image.shape)
            change = difference(truth[None], backend.oracle_rows(oracle, noisy, outputs)[None])[0]
            restless[k] = max(restless[k], change)
        v = rng.normal(size=(directions, *image.shape))
        v /= np.sqrt(np.square(v).sum(axis=(1, 2, 3), keepdims=True))
        own = rows[k].reshape(len(outputs), -1).astype(np.float64) @ v.reshape(directions, -1).T
        pushed = backend.oracle_pushes(oracle, image, v)[:, outputs].T
        adjoints[k] = _relative(own, pushed)
        slopes = [_secant(oracle, image, v, step * size)[:, outputs].T for step in STEPS]
        rounding = (
            SECANT_NOISE * np.abs(backend.oracle_outputs(oracle, image[None])).max() / (STEPS[1] * size)
        )
        secants[k] = _relative(own, slopes[1], rounding)
        bends[k] = _relative(slopes[0], slopes[1], rounding)
        if coarse:
            with engine.arithmetic():
                plain = backend.oracle_rows(engine.own_function(), images[k], outputs)
            allowed[k] += COARSE_FACTOR * difference(truth[None], plain[None])[0]
            flat = plain.reshape(len(outputs), -1).astype(np.float64)
            allowed_along[k] += COARSE_FACTOR * _relative(flat @ v.reshape(directions, -1).T, pushed)
    none = np.zeros(len(images))
    exact = [] if rules is None else [_check(RULES, faults, none, FLOAT64_TOLERANCE)]
    if coarse:
        return [
            _check("engine against the float64 oracle", errors, none, float(allowed.max())),
            *exact,
            _check("central differences (directions)", secants, 0 * secants, float(allowed_along.max())),
            _check("adjoint identity (directions)", adjoints, 0 * adjoints, float(allowed_along.max())),
            _check("batch of one against batch of many", between_batches, none, 8 * unit),
        ]
    along = np.maximum(restless[:, None], bends)
    return [
        _check("engine against the float64 oracle", errors, restless, TOLERANCE),
        *exact,
        _check("central differences (directions)", secants, along, DIRECTION_TOLERANCE),
        _check("adjoint identity (directions)", adjoints, along, DIRECTION_TOLERANCE),
        _check("batch of one against batch of many", between_batches, restless, BATCH_TOLERANCE),
    ]


def _check(name: str, errors: np.ndarray, restless: np.ndarray, tolerance: float) -> Check:
    """The largest error of those that no kink explains; `restless` is how much the judge itself changes."""
    kinks = (errors > tolerance) & (errors < KINK_FACTOR * restless)
    largest = float(errors[~kinks].max()) if not kinks.all() else 0.0
    return Check(name, errors.size, int(kinks.sum()), largest, tolerance)


def _relative(made: np.ndarray, truth: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Normwise over rows, for each direction: arrays (row, direction); a norm is `least` at the least."""
    norm = np.sqrt(np.square(truth).sum(axis=0))
    return np.sqrt(np.square(made - truth).sum(axis=0)) / np.maximum(norm, max(least, 1e-30))


def _secant(
    function: Callable[[Any], np.ndarray], image: np.ndarray, v: np.ndarray, step: float
) -> np.ndarray:
    """Central differences (direction, K)."""
    ahead, behind = (backend.oracle_outputs(function, image + sign * step * v) for sign in (1, -1))
    return (ahead - behind) / (2 * step)
