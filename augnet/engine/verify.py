"""The engine checked on real images by methods that share nothing with it but the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from augnet.engine.engine import Engine
from augnet.engine.verification.checks import Check, Finding, check_of
from augnet.engine.verification.oracle import ROUNDING, Oracle, make_oracle
from augnet.errors import ModelError

TOLERANCE = 1e-4
"""Normwise, between a float32 Jacobian and a float64 judge, for images without a kink within rounding."""
FLOAT64_TOLERANCE = 1e-9
"""Normwise, between two float64 Jacobians: no image has a kink within their rounding."""
BATCH_TOLERANCE = 1e-5
"""Normwise, between two float32 Jacobians of one image."""
NOT_IN_FLOAT64 = (ModelError, LookupError, TypeError, ValueError, tf.errors.OpError)
"""What the engine raises where a layer or an operation is not to be had in float64."""
DIRECTION_TOLERANCE = 1e-3
"""Along a random direction the products of a long row mostly cancel, which leaves rounding."""
SURE = 1e-4
"""A central difference at one step is sure when one at a tenth of the step differs by less."""
STEPS = (1e-5, 1e-6, 1e-7, 1e-4, 1e-3, 1e-2)
"""Of the central differences, relative to the image's largest value, in the order in which they are tried: at
each, and at a tenth of it. Where the two disagree, there is a kink between them, or rounding."""
COARSE_STEPS = (1e-2, 1e-1, 1.0, 1e-3)
"""The same where float32 rounds the outputs."""
INPUT_NOISE = 1e-5
"""Relative noise on an image that stands for float32's rounding on the way through a model."""
NOISES = 3
COARSE_FACTOR = 3
"""In bfloat16 and TF32 the engine may be so many times as far from a judge as the model as it is, in the same
precision: how far that is depends on the model's depth and kinks."""
PRODUCT_FACTOR = 8
"""And so many roundings beside."""
PARTS_FACTOR = 2
"""What is coarser than float64 inside the float64 model may move a Jacobian by so many times its rounding."""
SECANT_NOISE = 1e4
"""Differences tell a change of the outputs to a thousandth where it is so many times their rounding."""
ENGINE_ROUNDING = {"bfloat16": 2.0**-8, "tf32": 2.0**-11}
"""Of one product, relative, in the precisions so coarse that no image is without a kink within it."""

OWN = "engine against {}"
RULES = "its rules in float64 against the oracle"
SECANTS = "central differences (directions)"
ADJOINT = "adjoint identity (directions)"
BATCH = "batch of one against batch of many"
"""What each judge compares: one Check each."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, and with the images that are done, of how many."""


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
    """The engine's Jacobian of these images against independent judges.

    - oracle: one tape and one backward pass per row over the Keras model made again in float64; for the
      engine's rules in float64, and for its own rows. A model that cannot be made again (subclassed, a
      SavedModel) is judged by itself, in its own precision.
    - central differences: (f(x + h v) - f(x - h v)) / 2h for random v, on the same model.
    - adjoint identity: u . (J v) = (J' u) . v, J v by forward mode on the same model, J' u by the engine.
    - batch: an image alone against the same image among the others.

    Near a kink (of a ReLU or a max-pool) no two ways of computing need agree. So an image that disagrees is
    counted and left out where the oracle itself changes as much under noise as small as float32's rounding;
    everywhere else a disagreement is a fault. A large model has a kink near every image; then it is the rules
    in float64 that are judged, where rounding reaches none. In bfloat16 and TF32 rounding moves so many kinks
    that no image is left out; there a fault is an error that the model as it is does not have in the same
    precision.

    Parts of the float64 model that TensorFlow has in float32 only (how images are resized, the slope of
    LeakyRelu) widen the bound between float64 Jacobians by twice their rounding, and by nothing else.

    A judge that could judge no image has `judged` 0, which is neither passed nor failed; see unanswered.

    Args:
        engine: of the model, with outputs other than "label".
        model: the Keras model that the engine was made of.
        images: (n, height, width, channel), in the model's own input space; at least one.
        output, space, reduce: as the engine was given them.
        directions: random directions per image.
        seed: of the directions and of the noise.
        progress: see Progress.

    Returns:
        The table, one Check per judge.

    Raises:
        ValueError: no image.
    """
    if not len(images):
        raise ValueError("images: there are none; give at least one")
    tell = progress or (lambda *_: None)
    count = len(images)
    tell("making the model again in float64", 0, count)

    def oracle_in(dtype: str) -> Oracle:
        return make_oracle(model, images, output=output, space=space, reduce=reduce, dtype=dtype)

    with _tensor_float_32(False):
        judges = _Judges(engine, oracle_in)
        taken_off = engine.spec.activation if engine.spec.space == "logits" else None
        if reduce is None and taken_off != judges.taken_off:
            judges.refuse(f"the engine takes {taken_off} off the model's end, the oracle {judges.taken_off}")
            return judges.table()
        tell("computing rows", 0, count)
        starts = range(0, count, engine.batch_size)
        rows = np.concatenate([engine.jacobian(images[i : i + engine.batch_size]) for i in starts])
        rng = np.random.default_rng(seed)
        for done, image in enumerate(images):
            tell("judging", done, count)
            judges.judge(image, rows[done], directions, rng)
        tell("judging", count, count)
        return judges.table()


@dataclass(frozen=True)
class _Case:
    """One image, and what is known of it before anybody judges.

    Attributes:
        image: (height, width, channel), as the engine is given it.
        exact: the same in float64.
        outputs: (R,), of which the rows are.
        rows: (R, height, width, channel), the engine's.
        truth: the same, the oracle's.
        plain: the same by a tape in the engine's own precision; the truth where that is not coarse.
        change: how much the truth changes, relatively, under noise on the image like float32's rounding.
    """

    image: np.ndarray
    exact: np.ndarray
    outputs: np.ndarray
    rows: np.ndarray
    truth: np.ndarray
    plain: np.ndarray
    change: float

    @property
    def size(self) -> float:
        """What noise and steps are relative to."""
        return max(1.0, float(np.abs(self.image).max()))


class _Judges:
    """Gathers what every judge finds, image by image."""

    def __init__(self, engine: Engine, oracle_in: Callable[[str], Oracle]):
        self._engine, self._oracle = engine, oracle_in("float64")
        own_dtype = {"bfloat16": "mixed_bfloat16", "tf32": "float32"}.get(engine.precision)
        self._oracle_in_own = oracle_in(own_dtype) if own_dtype else self._oracle
        unit = max(ENGINE_ROUNDING.get(engine.precision, 0.0), self._oracle.unit)
        self._coarse = PRODUCT_FACTOR * unit if unit > ROUNDING["float32"] else 0.0
        self._between_float64 = FLOAT64_TOLERANCE + PARTS_FACTOR * self._oracle.coarse.rounding
        self._wide = engine.precision == "float64" and not self._oracle.reason
        self._own = OWN.format(self._oracle.name)
        self._questions = {self._own: "rows", RULES: "rows", SECANTS: "slopes", ADJOINT: "slopes"}
        self._questions[BATCH] = "batches"
        self._findings: dict[str, list[Finding]] = {name: [] for name in self._questions}
        self._reasons: dict[str, str] = {}
        self._rules = self._float64_rules()
        if self._oracle.no_forward_mode:
            self._reasons[ADJOINT] = f"TensorFlow has no forward mode for {self._oracle.no_forward_mode}"

    def _float64_rules(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
        """The engine's; without any, nobody judges them, or it is said why they cannot be judged."""
        rules = None
        try:
            rules = self._engine.float64_rows()
            if rules is None:
                del self._questions[RULES]
        except NOT_IN_FLOAT64 as error:
            first = (str(error).splitlines() or [""])[0]
            self._reasons[RULES] = f"the engine cannot compute in float64 ({type(error).__name__}: {first})"
        if self._oracle.reason:
            self._reasons[RULES] = f"the model cannot be made again in float64 ({self._oracle.reason})"
        return None if RULES in self._reasons else rules

    @property
    def taken_off(self) -> str | None:
        """The activation that the oracle is without."""
        return self._oracle.activation

    def refuse(self, reason: str) -> None:
        """Nobody can judge, for this reason."""
        self._reasons = dict.fromkeys(self._questions, reason)

    def judge(self, image: np.ndarray, rows: np.ndarray, count: int, rng: np.random.Generator) -> None:
        """All of them on one image, with the engine's rows, along `count` random directions."""
        oracle, exact = self._oracle, image.astype(np.float64)
        outputs = self._engine.selected_of(image)
        truth = oracle.rows(exact, outputs)
        plain = truth
        if self._coarse:
            with _tensor_float_32(self._engine.precision == "tf32"):
                plain = self._oracle_in_own.rows(image, outputs)
        case = _Case(image, exact, outputs, rows, truth, plain, 0.0)
        noisy = [exact + INPUT_NOISE * case.size * rng.normal(size=image.shape) for _ in range(NOISES)]
        case = replace(case, change=max(_difference(truth, oracle.rows(other, outputs)) for other in noisy))
        directions = rng.normal(size=(count, *image.shape))
        directions /= np.sqrt(np.square(directions).sum(axis=(1, 2, 3), keepdims=True))
        self._judge_rows(case)
        self._judge_slopes(case, directions)
        alone = self._engine.jacobian(image[None])[0]
        self._note(BATCH, _difference(rows, alone), self._unrest(case), self._coarse or BATCH_TOLERANCE)

    def _unrest(self, case: _Case) -> float:
        """What a kink near the image may explain: nothing in float64, or where the bounds allow for it."""
        return 0.0 if self._coarse or self._wide else case.change

    def _judge_rows(self, case: _Case) -> None:
        """The engine's rows, and its rules in float64, against the oracle's rows."""
        allowed = self._between_float64 if self._wide else TOLERANCE
        if self._coarse:
            allowed = self._coarse + COARSE_FACTOR * _difference(case.truth, case.plain)
        self._note(self._own, _difference(case.truth, case.rows), self._unrest(case), allowed)
        if self._rules is not None:
            error = _difference(case.truth, self._rules(case.exact, case.outputs))
            unrest = case.change if self._oracle.coarse.rounding else 0.0  # only what rounds crosses a kink
            self._note(RULES, error, unrest, self._between_float64)

    def _judge_slopes(self, case: _Case, directions: np.ndarray) -> None:
        """The engine's rows along directions (direction, height, width, channel) against their slopes."""

        def along(jacobian: np.ndarray) -> np.ndarray:
            flat = jacobian.reshape(len(case.outputs), -1).astype(np.float64)
            return flat @ directions.reshape(len(directions), -1).T

        truth, own = along(case.truth), along(case.rows)
        secants, bends = self._secants(case, directions, truth)
        pushed = secants
        if ADJOINT not in self._reasons:
            pushed = self._oracle.directional(case.exact, directions)[:, case.outputs].T
            # What tape and differences agree on, and forward mode does not, is no fault of the engine.
            apart = np.minimum(_along_difference(pushed, truth), _along_difference(pushed, secants))
            right = _along_difference(truth, secants) <= DIRECTION_TOLERANCE
            if (right & (apart > DIRECTION_TOLERANCE) & (self._oracle.unit < ROUNDING["float32"])).any():
                self._reasons[ADJOINT] = "TensorFlow's forward mode contradicts its tape and differences"
                pushed = secants
        allowed = np.full(len(directions), DIRECTION_TOLERANCE)
        if self._coarse:
            allowed = self._coarse + COARSE_FACTOR * _along_difference(along(case.plain), pushed)
        lost, unrest = np.isinf(bends), np.maximum(self._unrest(case), 0.0 if self._coarse else bends)
        self._note(SECANTS, _along_difference(own, secants), np.where(lost, np.inf, unrest), allowed)
        unrest = np.where(lost, self._unrest(case), unrest)
        self._note(ADJOINT, _along_difference(own, pushed), unrest, allowed)

    def _secants(
        self, case: _Case, directions: np.ndarray, truth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Central differences (R, direction) at the step where each is surest, and how sure (direction,).

        The latter is the difference to those at a tenth of the step; infinite where the outputs' change at
        every step is lost in their rounding.
        """
        oracle, size = self._oracle, case.size
        largest = float(np.abs(oracle.outputs(case.exact[None])).max())
        known: dict[float, np.ndarray] = {}

        def at(step: float) -> np.ndarray:
            if step not in known:
                known[step] = oracle.secants(case.exact, directions, step * size)[:, case.outputs].T
            return known[step]

        best, bends = np.zeros_like(truth), np.full(len(directions), np.inf)
        for step in STEPS if oracle.unit < ROUNDING["float32"] else COARSE_STEPS:
            slopes, least = at(step), 2 * SECANT_NOISE * oracle.unit * largest / (step * size)
            bend = _along_difference(at(step / 10), slopes, least)
            lost = np.sqrt(np.square(slopes).sum(axis=0)) < least
            bend[lost & ((slopes != 0) | (truth != 0)).any(axis=0)] = np.inf
            surer = bend < bends
            best[:, surer], bends[surer] = slopes[:, surer], bend[surer]
            if (bends < SURE).all():
                break
        return best, bends

    def _note(self, name: str, errors: ArrayLike, unrest: ArrayLike, allowed: ArrayLike) -> None:
        arrays = np.broadcast_arrays(np.atleast_1d(errors), unrest, allowed)
        self._findings[name].append(Finding(*arrays))

    def table(self) -> list[Check]:
        """What was found, one line per judge."""
        return [
            check_of(question, name, self._findings[name], self._reasons.get(name, ""))
            for name, question in self._questions.items()
        ]


def _difference(truth: np.ndarray, found: np.ndarray) -> float:
    """Normwise relative difference of two Jacobians of one image."""
    norm = float(np.linalg.norm(truth))
    return float(np.linalg.norm(truth.astype(np.float64) - found)) / max(norm, 1e-30)


def _along_difference(found: np.ndarray, truth: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Normwise over rows, for each direction: arrays (row, direction); a norm is `least` at the least."""
    norm = np.sqrt(np.square(truth).sum(axis=0))
    distance: np.ndarray = np.sqrt(np.square(found - truth).sum(axis=0)) / np.maximum(norm, max(least, 1e-30))
    return distance


@contextmanager
def _tensor_float_32(allowed: bool) -> Iterator[None]:
    """Whether float32 products may be made as TensorFloat-32 in this block, which GPUs else do by default."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
