"""Effects of an intervention on paired outcomes: errors, p-values, and what is to be seen at all."""

from __future__ import annotations

import math

import numpy as np

from augnet.statistics.intervals import CONFIDENCE, NORMAL

POWER = 0.8


def standard_error(differences: np.ndarray) -> float:
    """Of the mean of n paired differences.

    Where outcomes are shares, so that differences are -1 to 1, one of -1 and one of 1 are added first (for
    0 or 1 Bonett and Price 2012, doi 10.3102/1076998611411915): few or equal differences would else look
    certain.
    """
    values = np.asarray(differences, float)
    if (np.abs(values) <= 1).all():
        values = np.concatenate([values, [-1.0, 1.0]])
    if len(values) < 2:
        return math.inf
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def p_value(mean: float, error: float) -> float:
    """How likely a mean as large as this is where there is no effect, or one the other way."""
    return 1 - NORMAL.cdf(mean / error) if math.isfinite(error) and error > 0 else 1.0


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """(m,) q-values: the false discovery rate at which each of m tests is just rejected.

    Benjamini and Hochberg 1995, J. R. Stat. Soc. B 57, 289.
    """
    p = np.asarray(p_values, float)
    if not len(p):
        return p
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    q = np.empty_like(p)
    q[order] = np.minimum.accumulate(scaled[::-1])[::-1].clip(max=1)
    return q


def smallest_effect(count: int, confidence: float = CONFIDENCE, power: float = POWER) -> float:
    """The share of `count` pairs that has to change to be told from none, one-sided, with this power."""
    z = NORMAL.inv_cdf(confidence) + NORMAL.inv_cdf(power)
    return z**2 / (count + z**2) if count else 1.0
