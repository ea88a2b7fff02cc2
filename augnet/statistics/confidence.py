"""How sure a model is of a prediction by its outputs alone: what a user has without any gradient."""

from __future__ import annotations

import numpy as np

from augnet.statistics.decision import Task, softmax
from augnet.storage.catalog import End

CONFIDENCES: dict[str, End] = {
    "maximum_probability": "lowest",
    "logit_margin": "lowest",
    "predictive_entropy": "highest",
    "normalised_maximum_logit": "lowest",
}
"""Name -> the end at which a prediction is least sure."""

NORM = 5
"""p of the norm of the logits. The paper fits it to labels; fixed, it owes nothing to the images judged."""


def confidences(logits: np.ndarray) -> dict[str, np.ndarray]:
    """The values of CONFIDENCES, each (n,) float64.

    maximum_probability: of p = softmax(logits) (Hendrycks and Gimpel 2017, arXiv 1610.02136). logit_margin:
    the largest logit less the second. predictive_entropy: -sum p ln p. normalised_maximum_logit: the largest
    of z / ||z||_p, z the logits less their mean (Cattelan and Silva 2024, arXiv 2305.15508).

    Args:
        logits: (n, K) float64, K > 1, see `class_logits`. Where they are not finite, all values are NaN.
    """
    finite = np.isfinite(logits).all(axis=1, keepdims=True)
    logits = np.where(finite, logits, np.nan)
    p = softmax(logits)
    ascending = np.partition(logits, (-2, -1), axis=1)
    centred = logits - logits.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, NORM, axis=1)
    return {
        "maximum_probability": p.max(axis=1),
        "logit_margin": ascending[:, -1] - ascending[:, -2],
        "predictive_entropy": -(p * np.log(np.maximum(p, np.finfo(np.float64).tiny))).sum(axis=1),
        "normalised_maximum_logit": np.divide(
            centred.max(axis=1), norm, out=np.full(len(norm), np.nan), where=norm > 0
        ),
    }


def class_logits(outputs: np.ndarray, task: Task, logits: bool) -> np.ndarray:
    """(n, K) float64 logits of K > 1 classes, up to a constant, of a classifier's outputs.

    Args:
        outputs: (n, K) or, for "binary", (n, 1).
        task: "multiclass" or "binary", whose classes 0 and 1 have the logits 0 and f.
        logits: whether the outputs are logits; else they are probabilities.
    """
    outputs = outputs.astype(np.float64)
    if not logits:
        tiny = np.finfo(np.float32).tiny
        if task == "binary":
            outputs = np.concatenate([1.0 - outputs, outputs], axis=1)
        return np.log(np.maximum(outputs, tiny))
    return np.concatenate([np.zeros_like(outputs), outputs], axis=1) if task == "binary" else outputs
