"""The engine checked on real images by methods that share nothing with it but the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from augnet.engine.engine import Engine
from augnet.engine.oracle import ROUNDING, Oracle, make_oracle

TOLERANCE = 1e-4
"""Normwise, between a float32 Jacobian and a float64 judge, for images without a kink within rounding."""
FLOAT64_TOLERANCE = 1e-9
"""Normwise, between two float64 Jacobians: no image has a kink within their rounding."""
BATCH_TOLERANCE = 1e-5
"""Normwise, between two float32 Jacobians of one image."""
DIRECTION_TOLERANCE = 1e-3
"""Along a random direction the products of a long row mostly cancel, which leaves rounding."""
STEPS = (1e-5, 1e-6, 1e-7, 1e-4, 1e-3, 1e-2)
"""Of the central differences, relative to the image's largest value, in the order in which they are tried: at
each, and at a tenth of it. Where the two disagree, there is a kink between them, or rounding."""
COARSE_STEPS = (1e-2, 1e-1, 1.0, 1e-3)
"""The same where float32 rounds the outputs."""
INPUT_NOISE = 1e-5
"""Relative noise on an image that stands for float32's rounding on the way through a model."""
NOISES = 3
KINK_FACTOR = 10
"""A kink explains an error up to so many times the oracle's own change: a few noises miss the worst."""
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
QUESTIONS = {"rows": "its rows", "slopes": "the slope of the outputs", "batches": "batches"}
"""What is asked, and how the command says it: one judge of each has to give an answer."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and with the images that are done, of how many."""


@dataclass(frozen=True)
class Check:
    """One line of the table that verify gives.

    Attributes:
        question: what the judge is asked, a key of QUESTIONS.
        name: what was compared with what.
        images: images, or directions of images, that were compared.
        kinks: those of them left out, because a kink lies within the step or the rounding.
        error: the largest normwise relative difference of the others, in relation to what it may be.
        tolerance: what it may be.
        reason: why there is no such judge for this model, or "".
    """

    question: str
    name: str
    images: int
    kinks: int
    error: float
    tolerance: float
    reason: str = ""

    @property
    def judged(self) -> int:
        """How many of the images or directions it was judged on; on none, nothing is known."""
        return 0 if self.reason else self.images - self.kinks

    @property
    def passed(self) -> bool:
        """Whether it was judged, and the error is small enough."""
        return self.judged > 0 and self.error <= self.tolerance

    @property
    def failed(self) -> bool:
        """Whether it was judged, and the error is too large, or no number."""
        return self.judged > 0 and not self.error <= self.tolerance

    @property
    def can_gain(self) -> bool:
        """Whether more images may give it something to judge."""
        return not self.reason and not self.judged


def unanswered(checks: Iterable[Check]) -> list[str]:
    """Questions, in words, that no judge has answered: of these nothing is known."""
    open_ones = dict(QUESTIONS)
    for check in checks:
        if check.judged:
            open_ones.pop(check.question, None)
    return list(open_ones.values())


def joined(first: Sequence[Check], second: Sequence[Check]) -> list[Check]:
    """Two tables over different images, of one engine, as one."""
    table = []
    for one, other in zip(first, second, strict=True):
        judged = [check for check in (one, other) if check.judged] or [one]
        worst = max(judged, key=_ratio)
        images, kinks = one.images + other.images, one.kinks + other.kinks
        table.append(replace(worst, images=images, kinks=kinks, reason=one.reason or other.reason))
    return table


def _ratio(check: Check) -> float:
    return float("inf") if np.isnan(check.error) else check.error / check.tolerance


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

    Parts of the float64 model that TensorFlow has in float32 only (ResizeBilinear, the slope of LeakyRelu)
    widen the bound between float64 Jacobians by twice their rounding, and by nothing else.

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
    judges = _Judges(engine, model, images, output=output, space=space, reduce=reduce)
    rng = np.random.default_rng(seed)
    tell("computing rows", 0, len(images))
    starts = range(0, len(images), engine.batch_size)
    rows = np.concatenate([engine.jacobian(images[i : i + engine.batch_size]) for i in starts])
    for k, image in enumerate(images):
        tell("judging", k, len(images))
        judges.judge(image, rows[k], directions, rng)
    tell("judging", len(images), len(images))
    return judges.table()


@dataclass(frozen=True)
class _Finding:
    """Comparisons of one image by one judge: arrays of one length.

    Attributes:
        errors: normwise relative differences.
        restless: how much the judge itself changes near the image; infinite where it cannot judge.
        allowed: what an error may be.
    """

    errors: np.ndarray
    restless: np.ndarray
    allowed: np.ndarray


class _Judges:
    """Gathers what every judge finds, image by image."""

    def __init__(
        self,
        engine: Engine,
        model: keras.Model,
        images: np.ndarray,
        *,
        output: int | str | None,
        space: str,
        reduce: str | None,
    ):
        def oracle(dtype: str) -> Oracle:
            return make_oracle(model, images, output=output, space=space, reduce=reduce, dtype=dtype)

        self._engine, self._oracle, self._rules = engine, oracle("float64"), engine.float64_rows()
        inside = ENGINE_ROUNDING.get(engine.precision, 0.0)
        own_dtype = {"bfloat16": "mixed_bfloat16", "tf32": "float32"}.get(engine.precision)
        self._in_engine_precision = oracle(own_dtype) if own_dtype else self._oracle
        if self._oracle.unit > ROUNDING["float32"]:
            inside = max(inside, self._oracle.unit)
        self._coarse = PRODUCT_FACTOR * inside
        own = OWN.format(self._oracle.name)
        self._findings: dict[tuple[str, str], list[_Finding]] = {("rows", own): []}
        if self._rules is not None:
            self._findings["rows", RULES] = []
        self._findings |= {("slopes", SECANTS): [], ("slopes", ADJOINT): [], ("batches", BATCH): []}
        self._own = ("rows", own)
        self._reasons: dict[str, str] = {}
        if self._oracle.reason:
            self._reasons[RULES] = f"the model cannot be made again in float64 ({self._oracle.reason})"
        taken_off = engine.spec.activation if engine.spec.space == "logits" else None
        if reduce is None and taken_off != self._oracle.activation:
            for _, name in self._findings:
                self._reasons[name] = (
                    f"the engine takes {taken_off} off the model's end, the oracle {self._oracle.activation}"
                )

    def judge(self, image: np.ndarray, rows: np.ndarray, directions: int, rng: np.random.Generator) -> None:
        """Of one image (height, width, channel), and the engine's rows (R, height, width, channel) of it."""
        engine, oracle = self._engine, self._oracle
        outputs, wide = engine.selected_of(image), image.astype(np.float64)
        truth, size = oracle.rows(wide, outputs), max(1.0, float(np.abs(image).max()))
        noisy = [wide + INPUT_NOISE * size * rng.normal(size=image.shape) for _ in range(NOISES)]
        changes = [_difference(truth, oracle.rows(other, outputs)) for other in noisy]
        restless = 0.0 if self._coarse else float(np.max(changes))
        v = rng.normal(size=(directions, *image.shape))
        v /= np.sqrt(np.square(v).sum(axis=(1, 2, 3), keepdims=True))

        def along(jacobian: np.ndarray) -> np.ndarray:
            return jacobian.reshape(len(outputs), -1).astype(np.float64) @ v.reshape(directions, -1).T

        allowed, allowed_along = TOLERANCE, np.full(directions, DIRECTION_TOLERANCE)
        exact = FLOAT64_TOLERANCE + PARTS_FACTOR * oracle.coarse.rounding
        if engine.precision == "float64" and not oracle.reason:
            allowed = exact
        slopes, bends = self._slopes(wide, v, size, outputs, along(truth))
        secants = _along_difference(along(truth), slopes)
        pushed = None if oracle.no_forward_mode else oracle.directional(wide, v)[:, outputs].T
        if pushed is None:
            self._reasons[ADJOINT] = f"TensorFlow has no forward mode for {oracle.no_forward_mode}"
        elif (
            (_along_difference(pushed, along(truth)) > DIRECTION_TOLERANCE)
            & (_along_difference(pushed, slopes) > DIRECTION_TOLERANCE)
            & (secants <= DIRECTION_TOLERANCE)
        ).any():
            self._reasons[ADJOINT] = (
                "TensorFlow's forward mode contradicts its backward mode and the central differences"
            )
        if self._coarse:
            with _tensor_float_32(engine.precision == "tf32"):
                plain = self._in_engine_precision.rows(image, outputs)
            allowed = self._coarse + COARSE_FACTOR * _difference(truth, plain)
            judge = slopes if pushed is None or ADJOINT in self._reasons else pushed
            allowed_along = self._coarse + COARSE_FACTOR * _along_difference(along(plain), judge)
        self._note(self._own, _difference(truth, rows), restless, allowed)
        if self._rules is not None:
            apart = _difference(truth, self._rules(wide, outputs))
            near = float(np.max(changes)) if oracle.coarse.rounding else 0.0  # what rounds may cross a kink
            self._note(("rows", RULES), apart, near, exact)
        unstable = np.where(np.isfinite(bends) & bool(self._coarse), 0.0, np.maximum(restless, bends))
        self._note(("slopes", SECANTS), _along_difference(along(rows), slopes), unstable, allowed_along)
        if pushed is not None:
            errors = _along_difference(along(rows), pushed)
            finite = np.where(np.isfinite(unstable), unstable, restless)
            self._note(("slopes", ADJOINT), errors, finite, allowed_along)
        alone = engine.jacobian(image[None])[0]
        self._note(("batches", BATCH), _difference(rows, alone), restless, self._coarse or BATCH_TOLERANCE)

    def _slopes(
        self, image: np.ndarray, v: np.ndarray, size: float, outputs: np.ndarray, truth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Central differences (R, direction) at the step where each is surest, and how sure (direction,).

        The latter is the difference to those at a tenth of the step; infinite where the outputs' change at
        every step is lost in their rounding.
        """
        oracle = self._oracle
        rounding = 2 * SECANT_NOISE * oracle.unit * float(np.abs(oracle.outputs(image[None])).max())
        known: dict[float, np.ndarray] = {}

        def at(step: float) -> np.ndarray:
            if step not in known:
                known[step] = oracle.secants(image, v, step * size)[:, outputs].T
            return known[step]

        best, bends = np.zeros((len(outputs), len(v))), np.full(len(v), np.inf)
        for step in STEPS if oracle.unit < ROUNDING["float32"] else COARSE_STEPS:
            wide, least = at(step), rounding / (step * size)
            bend = _along_difference(at(step / 10), wide, least)
            lost = np.sqrt(np.square(wide).sum(axis=0)) < least
            bend[lost & ((wide != 0) | (truth != 0)).any(axis=0)] = np.inf
            better = bend < bends
            best[:, better], bends[better] = wide[:, better], bend[better]
            if (bends < DIRECTION_TOLERANCE / KINK_FACTOR).all():
                break
        return best, bends

    def _note(
        self, judge: tuple[str, str], errors: ArrayLike, restless: ArrayLike, allowed: ArrayLike
    ) -> None:
        arrays = np.broadcast_arrays(np.atleast_1d(errors), restless, allowed)
        self._findings[judge].append(_Finding(*arrays))

    def table(self) -> list[Check]:
        """What was found, one line per judge."""
        return [
            _check(*judge, findings, self._reasons.get(judge[1], ""))
            for judge, findings in self._findings.items()
        ]


def _check(question: str, name: str, findings: list[_Finding], reason: str) -> Check:
    """The worst of the comparisons that no kink explains."""
    if reason or not findings:
        return Check(question, name, 0, 0, 0.0, 0.0, reason)
    errors, restless, allowed = (
        np.concatenate([getattr(finding, part) for finding in findings])
        for part in ("errors", "restless", "allowed")
    )
    kinks = ((errors > allowed) & (errors < KINK_FACTOR * restless)) | np.isinf(restless)
    if kinks.all():
        return Check(question, name, errors.size, errors.size, 0.0, float(allowed.max()))
    ratios = np.where(np.isnan(errors), np.inf, errors / allowed)
    worst = int(np.argmax(np.where(kinks, -1.0, ratios)))
    return Check(question, name, errors.size, int(kinks.sum()), float(errors[worst]), float(allowed[worst]))


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
    """Whether float32 products may be made as TensorFloat-32 in this block."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(allowed)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
