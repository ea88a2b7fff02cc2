"""The engine checked on real images by methods that share nothing with it but the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from augnet.engine.backends import backend
from augnet.engine.engine import ROUNDING as COARSE_ROUNDING
from augnet.engine.engine import Engine
from augnet.engine.verification.checks import Check, Judge
from augnet.engine.verification.oracle import ROUNDING, Oracle, make_oracle
from augnet.errors import ModelError

TOLERANCE = 1e-4
"""Normwise, between a float32 Jacobian and a float64 judge, for images without a kink within rounding."""
FLOAT64_TOLERANCE = 1e-9
"""Normwise, between two float64 Jacobians: no image has a kink within their rounding."""
BATCH_TOLERANCE = 1e-5
"""Normwise, between two float32 Jacobians of one image."""
DIRECTION_TOLERANCE = 1e-3
"""Along a random direction the products of a long row mostly cancel, which leaves rounding."""
STEPS = (1, 0.1, 0.01, 10, 100, 1000)
"""Of the central differences, in the order in which they are tried, at each and at a tenth of it; relative to
the image's largest value and the cube root of the outputs' rounding, about best for a smooth function."""
SURE = 1e-4
"""A central difference at one step is sure when one at a tenth of the step differs by less; a kink is between
them, or rounding, where it differs by more."""
SECANT_NOISE = 1e4
"""Differences tell a change of the outputs to a thousandth where it is so many times their rounding."""
INPUT_NOISE, NOISES = 1e-5, 3
"""Relative noise on an image that stands for float32's rounding on the way through a model; samples of it."""
COARSE_FACTOR, PRODUCT_FACTOR = 3, 8
"""In bfloat16 and TF32 the engine may be so many times as far from a judge as the model as it is in the same
precision (how far that is depends on the model's depth and kinks), and so many roundings beside."""
PARTS_FACTOR = 2
"""What is coarser than float64 inside the float64 model may move a Jacobian by so many times its rounding."""
NOT_IN_FLOAT64 = (ModelError, LookupError, TypeError, ValueError, tf.errors.OpError)
"""What the engine raises where a layer or an operation is not to be had in float64."""

OWN = "engine against "
RULES = "its rules in float64 against the oracle"
SECANTS = "central differences (directions)"
ADJOINT = "adjoint identity (directions)"
BATCH = "batch of one against batch of many"
"""What each judge compares; the first with the oracle, which has a name."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, and with the images that are done, of how many."""
View = Callable[[np.ndarray], np.ndarray]
"""Of a Jacobian (R, height, width, channel): columns, each of which is compared by its norm."""


def verify(
    engine: Engine,
    model: keras.Model,
    images: np.ndarray,
    *,
    output: int | str | None = None,
    space: str = "logits",
    reduce: str | None = None,
    directions: int = 4,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Check]:
    """The engine's Jacobian of these images against independent judges; docs/ENGINE.md has the reasons.

    - oracle: one tape and one backward pass per row over the Keras model made again in float64, or over the
      model itself; for the engine's rules in float64, and for its own rows.
    - central differences: (f(x + h v) - f(x - h v)) / 2h for random v, on the same model.
    - adjoint identity: u . (J v) = (J' u) . v, J v by forward mode on the same model, J' u by the engine.
    - batch: an image alone against the same image among the others.

    An image that disagrees is counted and left out where the oracle itself changes as much under noise as
    small as float32's rounding, for which there is a kink (of a ReLU or a max-pool); everywhere else it is a
    fault. In bfloat16 and TF32 rounding moves so many kinks that no image is left out. A judge of no image
    has neither passed nor failed; see unanswered.

    Args:
        engine: of the model, with outputs other than "label".
        model: the Keras model that the engine was made of.
        images: (n, height, width, channel), in the model's own input space; at least one.
        output, space, reduce: as the engine was given them.
        directions: random directions per image.
        seed: of the directions and of the noise.
        progress: see Progress.

    Raises:
        ValueError: no image.
    """
    if not len(images):
        raise ValueError("images: there are none; give at least one")
    tell, count = progress or (lambda *_: None), len(images)
    tell("making the model again in float64", 0, count)
    oracle_in = partial(make_oracle, model, images, output=output, space=space, reduce=reduce)
    with backend.tensor_float_32(False), _no_retracing_warning():
        panel = _Panel(engine, oracle_in)
        taken_off = engine.spec.activation if engine.spec.space == "logits" else None
        own = panel.oracle.activation
        if reduce is None and taken_off != own:
            return panel.table(f"the engine takes {taken_off} off the model's end, the oracle {own}")
        tell("computing rows", 0, count)
        starts = range(0, count, engine.batch_size)
        rows = np.concatenate([engine.jacobian(images[i : i + engine.batch_size]) for i in starts])
        rng = np.random.default_rng(seed)
        for done, image in enumerate(images):
            tell("judging", done, count)
            panel.judge(image, rows[done], rng.normal(size=(directions, *image.shape)), rng)
        tell("judging", count, count)
        return panel.table()


class _Panel:
    """All judges of one engine, and what they find image by image."""

    def __init__(self, engine: Engine, oracle_in: Callable[..., Oracle]):
        self._engine, self.oracle = engine, oracle_in()
        oracle, missing = self.oracle, self.oracle.no_forward_mode
        own_dtype = {"bfloat16": "mixed_bfloat16", "tf32": "float32"}.get(engine.precision)
        self._plain = oracle_in(dtype=own_dtype) if own_dtype else oracle
        unit = max(COARSE_ROUNDING.get(engine.precision, 0.0), oracle.unit)
        self._coarse = PRODUCT_FACTOR * unit if unit > ROUNDING["float32"] else 0.0
        self._between_float64 = FLOAT64_TOLERANCE + PARTS_FACTOR * oracle.coarse.rounding
        self._wide = engine.precision == "float64" and not oracle.reason
        self._judges = {
            OWN: Judge("rows", OWN + oracle.name),
            RULES: Judge("rows", RULES),
            SECANTS: Judge("slopes", SECANTS),
            ADJOINT: Judge("slopes", ADJOINT, missing and f"TensorFlow has no forward mode for {missing}"),
            BATCH: Judge("batches", BATCH),
        }
        self._float64_rows = None
        try:
            self._float64_rows = engine.float64_rows()
            if self._float64_rows is None:
                del self._judges[RULES]
            elif oracle.reason:
                self._judges[RULES].reason = f"the model cannot be made again in float64 ({oracle.reason})"
        except NOT_IN_FLOAT64 as error:
            first = f"{type(error).__name__}: {error}".splitlines()[0]
            self._judges[RULES].reason = f"the engine cannot compute in float64 ({first})"

    def table(self, refusal: str = "") -> list[Check]:
        """One Check per judge; for this reason, if any, nobody could judge."""
        for judge in self._judges.values():
            judge.reason = refusal or judge.reason
        return [judge.check() for judge in self._judges.values()]

    def judge(
        self, image: np.ndarray, rows: np.ndarray, directions: np.ndarray, rng: np.random.Generator
    ) -> None:
        """All of them on one image, with the engine's rows (R, ...), along directions (direction, ...)."""
        oracle, judges, exact = self.oracle, self._judges, image.astype(np.float64)
        outputs, size = self._engine.selected_of(image), max(1.0, float(np.abs(image).max()))
        truth = plain = oracle.rows(exact, outputs)
        if self._coarse:
            with backend.tensor_float_32(self._engine.precision == "tf32"):
                plain = self._plain.rows(image, outputs)
        directions = directions / np.sqrt(np.square(directions).sum(axis=(1, 2, 3), keepdims=True))

        def whole(jacobian: np.ndarray) -> np.ndarray:
            return jacobian.reshape(-1, 1).astype(np.float64, copy=False)

        def along(jacobian: np.ndarray) -> np.ndarray:
            return whole(jacobian).reshape(len(outputs), -1) @ directions.reshape(len(directions), -1).T

        noise = INPUT_NOISE * size * rng.normal(size=(NOISES, *image.shape))
        noisy = (oracle.rows(exact + part, outputs) for part in noise)
        changes = [[_difference(view(other), view(truth)) for view in (whole, along)] for other in noisy]
        change, change_along = (np.max(found, axis=0) for found in zip(*changes, strict=True))

        def bounds(view: View, change: np.ndarray, tolerance: float) -> tuple[ArrayLike, ArrayLike]:
            """What a kink near the image may explain, and what an error may be."""
            if self._coarse:
                return 0.0, self._coarse + COARSE_FACTOR * _difference(view(plain), view(truth))
            return 0.0 if self._wide else change, tolerance

        restless, allowed = bounds(whole, change, self._between_float64 if self._wide else TOLERANCE)
        judges[OWN].note(_difference(whole(rows), whole(truth)), restless, allowed)
        error = _difference(whole(self._engine.jacobian(image[None])[0]), whole(rows))
        judges[BATCH].note(error, restless, self._coarse or BATCH_TOLERANCE)
        if self._float64_rows is not None and not judges[RULES].reason:
            error = _difference(whole(self._float64_rows(exact, outputs)), whole(truth))
            restless = change if oracle.coarse.rounding else 0.0  # only what rounds crosses a kink
            judges[RULES].note(error, restless, self._between_float64)

        restless, allowed = bounds(along, change_along, DIRECTION_TOLERANCE)
        secants, bends = self._surest_secants(exact, outputs, directions, size, along(truth))
        judges[SECANTS].note(_difference(along(rows), secants), np.maximum(restless, bends), allowed)
        if not judges[ADJOINT].reason:
            pushed = oracle.directional(exact, directions)[:, outputs].T
            sure = _difference(secants, along(truth)) <= DIRECTION_TOLERANCE
            other = sure & (_difference(pushed, along(truth)) > DIRECTION_TOLERANCE)
            if other.any() and oracle.unit < ROUNDING["float32"]:  # which is no fault of the engine
                judges[ADJOINT].reason = "TensorFlow's forward mode contradicts its tape and differences"
            judges[ADJOINT].note(_difference(along(rows), pushed), restless, allowed)

    def _surest_secants(
        self, exact: np.ndarray, outputs: np.ndarray, directions: np.ndarray, size: float, truth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Central differences (R, direction) at the step where each is surest, and how sure (direction,).

        The latter is the difference to those at a tenth of the step; infinite where the outputs' change at
        every step is lost in their rounding.
        """
        oracle = self.oracle
        rounding = oracle.unit * float(np.abs(oracle.outputs(exact[None])).max())
        best, bends = np.zeros_like(truth), np.full(len(directions), np.inf)
        for factor in STEPS:
            step = factor * np.cbrt(oracle.unit) * size
            slopes, finer = (oracle.secants(exact, directions, h)[:, outputs].T for h in (step, step / 10))
            is_lost = np.linalg.norm(slopes, axis=0) < 2 * SECANT_NOISE * rounding / step
            is_dead = ~((slopes != 0) | (truth != 0)).any(axis=0)
            bend = np.where(is_lost & ~is_dead, np.inf, _difference(finer, slopes))
            surer = bend < bends
            best[:, surer], bends[surer] = slopes[:, surer], bend[surer]
            if (bends < SURE).all():
                break
        return best, bends


def _difference(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Normwise relative difference of each column."""
    norms: np.ndarray = np.linalg.norm(found - truth, axis=0)
    return norms / np.maximum(np.linalg.norm(truth, axis=0), 1e-30)


@contextmanager
def _no_retracing_warning() -> Iterator[None]:
    """Keras traces each grouped convolution anew, of which TensorFlow warns whoever calls the model."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
