"""Whether the rules say what the tape says, on probe images, before they are trusted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from augnet.engine.backends import backend
from augnet.engine.kernels import ChosenKernels
from augnet.engine.rows import RuleRows, TapeRows

KINK = 1e-4
"""Above this normwise difference of two float32 Jacobians a kink or a fault is at work, not rounding."""
FLOAT64_FAULT = 1e-5
"""Above this normwise difference of two float64 Jacobians it is a fault (constants may be float32)."""
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

    Where float32 cannot tell a kink from a fault, float64 judges. In a coarse arithmetic rounding and a fault
    look alike, so there the rules must come about as close to float64 as the tape does.

    Args:
        wide: makes the same two in float64; None where there is no such thing.
        images: probe images (n, *input_shape).
        rounding: of one product in a coarse arithmetic (bfloat16, TF32), else 0.
    """
    outputs, truth = _mixed_rows(tape, images)
    began = time.perf_counter()
    own_outputs, rows = _mixed_rows(rules, images)
    seconds = (time.perf_counter() - began) / len(images)
    error = difference(truth, rows)
    apart = difference(outputs[:, None], own_outputs[:, None]).max()
    if not np.isfinite(error).all() or apart > max(1e-3, 16 * rounding):
        return Agreement("", seconds=seconds)
    same = error <= KINK
    if not rounding and (same.all() or (same.sum() * 2 >= len(same) > 1 and error.max() < 0.1)):
        # A fault is in every image; a kink that rounding moved is in some.
        found, dtype = float(error[same].max()), str(truth.dtype)
        words = f"{found:.1e} in {dtype}" + ("" if same.all() else ", kinks left out")
        return Agreement(words, found, dtype, seconds=seconds)
    if wide is None:
        return Agreement("", seconds=seconds)
    wide_rules, wide_tape = wide()
    first = images[:1].astype(np.float64)
    exact = _mixed_rows(wide_tape, first)[1]
    fault = difference(exact, _mixed_rows(wide_rules, first)[1]).max()
    tape_error, own_error = (float(difference(exact, part[:1]).max()) for part in (truth, rows))
    worse = rounding and own_error > COARSE_FACTOR * tape_error + 8 * rounding
    words = "" if fault > FLOAT64_FAULT or worse else f"{fault:.1e} in float64"
    return Agreement(words, own_error, "float64", tape_error, seconds)


def _mixed_rows(program: RuleRows | TapeRows, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outputs (n, K) and mixtures of the rows (n, CHECKED_ROWS, inputs), the same for all programs."""

    def cotangents(outputs: Any) -> Any:
        mixtures = np.random.default_rng(0).standard_normal((CHECKED_ROWS, 1, outputs.shape[1]))
        shape = (CHECKED_ROWS, *outputs.shape)
        return backend.constant(np.broadcast_to(mixtures, shape), outputs.dtype)

    dtype = str(images.dtype)
    x = backend.to_device(images, dtype)
    if isinstance(program, RuleRows):
        return backend.to_host(program.rows(x, cotangents, CHECK_CHUNK, ChosenKernels()))
    # Uncompiled, a tape computes gradients of weights that nobody asked for, and may crash in them.
    compiled = backend.compiled(
        lambda x: program.rows(x, cotangents, 1, ChosenKernels()), [(images.shape, dtype)]
    )
    return backend.to_host(compiled(x))


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Normwise relative difference, image by image."""
    axes = tuple(range(1, first.ndim))
    norm = np.sqrt(np.square(first.astype(np.float64)).sum(axis=axes))
    return np.sqrt(np.square(first.astype(np.float64) - second).sum(axis=axes)) / np.maximum(norm, 1e-30)
