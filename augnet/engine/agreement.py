"""Whether the rules say what the tape says, on probe images, before they are trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from augnet.engine.backends import backend
from augnet.engine.kernels import Kernels
from augnet.engine.rows import Rows, RuleRows, TapeRows
from augnet.engine.types import Tensor

ROUNDING = 1e-6
"""Relative noise on an image that stands for float32's rounding on the way through a model."""
NOISES = 8
"""Of them that are tried, at most, until one explains the difference."""
KINK_FACTOR = 3
"""Kinks explain a difference up to so many times what that noise changes."""
KINK = 1e-4
"""Above this normwise difference of two float32 Jacobians a kink or a fault is at work, not rounding."""
FLOAT64_FAULT = 1e-5
"""Above this normwise difference of two float64 Jacobians it is a fault (constants may be float32)."""
MOVED = 1e-3
"""Above this normwise difference of the outputs rounding has moved the model far, or there is a fault."""
COARSE_FACTOR = 3
"""In a coarse arithmetic the rules may be so many times as far from float64 as the tape."""
CHECKED_ROWS = 1
"""Random mixtures of all rows that the two are compared on."""
CHECK_CHUNK = 8
"""Rows of a backward pass while comparing: outside a compiled program nothing is freed early."""


@dataclass(frozen=True)
class Agreement:
    """How the rules agree with the tape.

    Attributes:
        words: for people; "" when they do not agree.
        error: normwise relative difference between their rows.
        against: the arithmetic of the tape: "float64" where that was computed, else the engine's own.
        seconds: per image, that a forward and a backward pass by the rules took.
        tape_error: of the tape in the engine's arithmetic, against itself in float64; None where that was not
            computed.
    """

    words: str
    error: float | None = None
    against: str = ""
    tape_error: float | None = None
    seconds: float = 0.0


def compare(
    rules: RuleRows,
    tape: TapeRows,
    wide: Callable[[], tuple[RuleRows, TapeRows]] | None,
    images: np.ndarray,
    rounding: float = 0.0,
) -> Agreement:
    """How the two agree on the images; the rules are not compiled for that.

    Where float32 cannot tell a kink from a fault, float64 judges; without it, whether noise as small as
    rounding changes what the tape says about as much. In a coarse arithmetic rounding and a fault look alike,
    and so they do in a model that rounding moves far: there the rules must come about as close to float64 as
    the tape does.

    Args:
        wide: makes the same two in float64; None where there is no such thing.
        images: probe images (n, *input_shape).
        rounding: of one product in a coarse arithmetic (bfloat16, TF32), else 0.
    """
    by_tape = _mixed_rows_by(tape, images)
    outputs, truth = by_tape(images)
    began = time.perf_counter()
    own_outputs, rows = _mixed_rows_by(rules, images)(images)
    seconds = (time.perf_counter() - began) / len(images)
    error = difference(truth, rows)
    moved = difference(outputs, own_outputs).max() > max(MOVED, 16 * rounding)
    if not np.isfinite(error).all() or (moved and wide is None):
        return Agreement("", seconds=seconds)
    same = error <= KINK
    coarse = rounding > 0 or moved
    if not coarse and (same.all() or (same.sum() * 2 >= len(same) > 1 and error.max() < 0.1)):
        # A fault is in every image; a kink that rounding moved is in some.
        found, dtype = float(error[same].max()), str(truth.dtype)
        words = f"{found:.1e} in {dtype}" + ("" if same.all() else ", kinks left out")
        return Agreement(words, found, dtype, seconds=seconds)
    if wide is None:
        explained = not rounding and _kinks_explain(error, by_tape, images, truth)
        words = "as near as kinks allow" if explained else ""
        return Agreement(words, float(error.max()), str(truth.dtype), seconds=seconds)
    wide_rules, wide_tape = wide()
    first = images[:1].astype(np.float64)
    (outputs, exact), (own_outputs, own) = (
        _mixed_rows_by(program, first)(first) for program in (wide_tape, wide_rules)
    )
    fault = max(difference(outputs, own_outputs).max(), difference(exact, own).max())
    tape_error, own_error = (float(difference(exact, part[:1]).max()) for part in (truth, rows))
    worse = coarse and own_error > COARSE_FACTOR * tape_error + 8 * rounding
    words = "" if fault > FLOAT64_FAULT or worse else f"{fault:.1e} in float64"
    return Agreement(words, own_error, "float64", tape_error, seconds)


def _kinks_explain(
    error: np.ndarray,
    by_tape: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    images: np.ndarray,
    truth: np.ndarray,
) -> bool:
    """Whether noise as small as rounding changes the tape's rows by about as much as the errors (n,).

    A kink that lies one rounding away is crossed by one noise and not by another, and a deep model rounds
    many times: several are tried, each stronger than the one before.
    """
    restless = np.zeros_like(error)
    for seed in range(NOISES):
        noise = (1 + seed) * ROUNDING * np.random.default_rng(seed).standard_normal(images.shape)
        moved = (images * (1 + noise)).astype(images.dtype)
        restless = np.maximum(restless, difference(truth, by_tape(moved)[1]))
        if (error <= KINK_FACTOR * restless).all():
            return True
    return False


def _mixed_rows_by(
    program: Rows, images: np.ndarray
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Images like these -> outputs (n, K) and mixtures of the rows (n, CHECKED_ROWS, inputs)."""

    def cotangents(outputs: Tensor) -> Tensor:
        mixtures = np.random.default_rng(0).standard_normal((CHECKED_ROWS, 1, outputs.shape[1]))
        shape = (CHECKED_ROWS, *outputs.shape)
        return backend.constant(np.broadcast_to(mixtures, shape), outputs.dtype)

    dtype, chunk = str(images.dtype), CHECK_CHUNK if isinstance(program, RuleRows) else 1

    def compute(x: Tensor) -> Tensor:
        return program.rows(x, cotangents, chunk, Kernels())

    if isinstance(program, TapeRows):
        # Uncompiled, a tape computes gradients of weights that nobody asked for, and may crash in them.
        compute = backend.compiled(compute, [(images.shape, dtype)])
    return lambda images: backend.to_host(compute(backend.to_device(images, dtype)))


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Normwise relative difference, image by image."""
    axes = tuple(range(1, first.ndim))
    norm = np.sqrt(np.square(first.astype(np.float64)).sum(axis=axes))
    return np.sqrt(np.square(first.astype(np.float64) - second).sum(axis=axes)) / np.maximum(norm, 1e-30)
