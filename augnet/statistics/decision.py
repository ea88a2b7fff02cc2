"""What a prediction hangs on: probabilities, margins and the gradient of the loss. Notation as in `image`."""

from __future__ import annotations

from typing import Literal

import numpy as np

from augnet.engine.batch import RESOLUTION, JacobianBatch

Task = Literal["multiclass", "binary", "multilabel", "regression"]
"""What a model's outputs mean, see `task_of`."""


def task_of(activation: str | None, output_count: int, labels_name_outputs: bool) -> Task:
    """What a model's outputs mean, from its last activation.

    Args:
        activation: "softmax", "sigmoid" or None, of the model's end.
        output_count: K, the outputs of the model.
        labels_name_outputs: whether the dataset's labels are the names of outputs (with K = 1, of the two
            sides of that output). It is what tells a classifier that returns logits from a regression.

    Returns:
        "multiclass": one of K classes, p = softmax(f). "binary": class 1 or 0, one output, p = sigmoid(f).
        "multilabel": K yes-or-no answers. "regression": numbers, without margins or loss; also a softmax over
        one output, which is the constant 1.
    """
    if activation == "sigmoid":
        return "binary" if output_count == 1 else "multilabel"
    if output_count > 1 and (activation == "softmax" or labels_name_outputs):
        return "multiclass"
    return "binary" if labels_name_outputs and activation != "softmax" else "regression"


def softmax(logits: np.ndarray) -> np.ndarray:
    """(n, K) float64 probabilities of (n, K) logits; NaN for an image whose logits are not finite."""
    finite = np.isfinite(logits).all(axis=1, keepdims=True)
    shifted = np.where(finite, logits, 0.0)
    powers = np.exp(shifted - shifted.max(axis=1, keepdims=True))
    return np.where(finite, powers / powers.sum(axis=1, keepdims=True), np.nan)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Float64 probabilities of logits, without overflow and to full relative precision near 0."""
    small = np.exp(-np.abs(logits))
    return np.where(logits < 0, small, 1.0) / (1.0 + small)


def probabilities(batch: JacobianBatch, task: Task) -> np.ndarray:
    """(n, K) float64: the model's own, else of the outputs taken as logits; NaN for a regression."""
    if task == "regression":
        return np.full_like(batch.outputs, np.nan)
    if batch.probabilities is not None:
        return batch.probabilities
    return of_logits(batch.outputs, task)


def of_logits(logits: np.ndarray, task: Task) -> np.ndarray:
    """(n, K) float64 probabilities of a classifier's logits (n, K)."""
    return softmax(logits) if task == "multiclass" else sigmoid(logits)


def predicted_classes(probability: np.ndarray, predicted: np.ndarray, task: Task) -> np.ndarray:
    """(n,) the predicted output, or for "binary" the predicted class 0 or 1; -1 where it is not known."""
    return np.where(predicted < 0, -1, probability[:, 0] > 0.5) if task == "binary" else predicted


def predicted_probability(probability: np.ndarray, predicted: np.ndarray, task: Task) -> np.ndarray:
    """(n,) float64 probability of the predicted class; NaN where it is not known."""
    if task == "binary":
        return np.maximum(probability[:, 0], 1.0 - probability[:, 0])
    taken = np.take_along_axis(probability, np.maximum(predicted, 0)[:, None], axis=1)[:, 0]
    return np.where(predicted >= 0, taken, np.nan)


def margins(
    batch: JacobianBatch, gram: np.ndarray, position: np.ndarray, task: Task, logits: bool, known: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance to the nearest linearised decision boundary (DeepFool, arXiv 1511.04599), in l2 and l_inf.

    Softmax: min over j != i of (f_i - f_j) / ||J_i - J_j||, with the dual norm below. Sigmoid: min over j,
    i among them, of |f_j - t| / ||J_j||, t = 0 for logits and 1/2 for probabilities. Each norm takes its own
    minimum, so that the j of one need not be that of the other. A boundary that the linearised outputs never
    reach is infinitely far.

    Args:
        batch, task, logits: as in `image_statistics`.
        gram: (n, R, R) float64, finite.
        position: (n,) where row i is among the selected.
        known: (n,) bool, images whose rows are finite and all selected.

    Returns:
        margin_l2 (n,), margin_linf (n,): float64, NaN where not known, inf where no boundary is reached.
        rival (n,): the output of the nearest boundary in l2, the lowest of equals; -1 where there is none,
        and for a model with one output.
    """
    images, rows = batch.selected.shape
    unknown = np.full(images, np.nan)
    if task == "regression" or not known.any():
        return unknown, unknown, np.full(images, -1)
    outputs = np.take_along_axis(batch.outputs, np.maximum(batch.selected, 0), axis=1)
    outputs = np.where(known[:, None], outputs, 0.0)
    squared = np.einsum("nrr->nr", gram)
    if task == "multiclass":
        at = position[:, None]
        gap = np.take_along_axis(outputs, at, axis=1) - outputs
        both = np.take_along_axis(squared, at, axis=1) + squared
        squared = both - 2.0 * np.take_along_axis(gram, at[:, :, None], axis=1)[:, 0]
        squared = np.where(squared > RESOLUTION * both, squared, 0.0)
        l1 = np.where(squared > 0, batch.boundary_l1, 0.0)
        boundary = np.arange(rows) != at
    else:
        gap = np.abs(outputs - threshold(logits))
        l1 = batch.boundary_l1
        boundary = np.ones((images, rows), bool)
    distance_l2 = np.where(boundary, _distance(gap, np.sqrt(squared)), np.inf)
    distance_linf = np.where(boundary, _distance(gap, l1), np.inf)
    margin_l2 = distance_l2.min(axis=1)
    nearest = (distance_l2 == margin_l2[:, None]) & np.isfinite(distance_l2)
    rival = np.where(nearest, batch.selected, rows).min(axis=1)
    met = known & nearest.any(axis=1) & (task != "binary")
    return (
        np.where(known, margin_l2, np.nan),
        np.where(known, distance_linf.min(axis=1), np.nan),
        np.where(met, rival, -1),
    )


def threshold(logits: bool) -> float:
    """Of a yes-or-no output, between its answers."""
    return 0.0 if logits else 0.5


def _distance(gap: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """gap / slope: 0 on the boundary, inf where a flat slope never reaches it, NaN for an unknown slope."""
    flat = np.where(gap > 0, np.inf, 0.0)
    return np.divide(gap, slope, out=flat, where=(slope != 0) & (gap > 0))


def loss_gradients(
    batch: JacobianBatch, gram: np.ndarray, task: Task, label_outputs: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """||(p - y)^T J||_2 of the cross-entropy at the true label (Arpit et al. 2017, arXiv 1706.05394).

    p comes from the logits in float64, and p - y at the label is minus the sum of the other p, so that the
    small gradient of a confident image is not lost in 1 - p.

    Args:
        batch, task: as in `image_statistics`; the outputs are logits.
        gram: (n, R, R) float64, finite.
        label_outputs: (n,) integers, -1 where unknown.
        known: (n,) bool, images whose logits' rows are finite and all selected.

    Returns:
        (n,) float64, NaN where not known or without a label; all NaN unless one class is the true one.
    """
    known = known & (label_outputs >= 0)
    if task not in ("multiclass", "binary") or not known.any():
        return np.full(len(batch), np.nan)
    if task == "binary":
        away = np.where(label_outputs == 1, -1.0, 1.0)
        residual = sigmoid(batch.outputs * away[:, None])  # |p - y|
    else:
        residual = softmax(batch.outputs)
        label = np.maximum(label_outputs, 0)[:, None]
        np.put_along_axis(residual, label, 0.0, axis=1)
        np.put_along_axis(residual, label, -residual.sum(axis=1, keepdims=True), axis=1)
        residual = np.take_along_axis(residual, np.maximum(batch.selected, 0), axis=1)
    residual = np.where(known[:, None], residual, 0.0)
    squared = ((residual[:, None, :] @ gram)[:, 0] * residual).sum(axis=1)
    return np.where(known, np.sqrt(np.maximum(squared, 0.0)), np.nan)
