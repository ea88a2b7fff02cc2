"""Per-image statistics: one batch of Jacobians in, the columns of the catalog out.

Notation, here and in `decision` and `focus`: f are the outputs of n images, J the selected rows, G = J J^T,
i the predicted output (arg max of f), a the magnitude per pixel of row J_i. A statistic that needs a row that
was not selected is null, never a guess.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from augnet.engine.batch import JacobianBatch
from augnet.statistics import decision
from augnet.statistics.decision import Task
from augnet.statistics.decision import task_of as task_of
from augnet.statistics.focus import map_statistics, ratio
from augnet.statistics.frequency import band_shares, high_frequency_share
from augnet.statistics.noise import survival
from augnet.statistics.sketch import estimates
from augnet.storage.catalog import catalog, error_column, noise_column

FLAGS = ("nan", "inf", "zero_gradient", "unconnected", "no_gradient")
"""What can be wrong with an image's Jacobian.

nan, inf: an output or a selected row holds such a value; every statistic of the Jacobian is null.
zero_gradient: a selected row is exactly zero. The row of an output of the next two kinds counts only when
    predicted.
unconnected: the predicted output does not depend on the image at all.
no_gradient: it depends on the image only through steps without a gradient, such as rounding.
"""


def image_statistics(
    batch: JacobianBatch,
    *,
    task: Task,
    label_outputs: np.ndarray,
    border: float,
    logits: bool = True,
    unconnected: Collection[int] = (),
    no_gradient: Collection[int] = (),
    noise: Sequence[float] = (),
    noisy_copies: np.ndarray | None = None,
) -> dict[str, pa.Array]:
    """Every statistic of `augnet.storage.catalog`, as a column.

    Norms and margins are in the units of the model input and in the space of `batch.outputs`. With `logits`
    false the distances are those of the linearised probabilities, and a sigmoid's boundary is at 1/2.

    Args:
        batch: n images, K outputs, R selected rows.
        task: what the outputs mean, see `task_of`.
        label_outputs: (n,) integers, the true output (for "binary" the true class, 0 or 1); -1 where unknown.
        border: width of the outer frame, as a share of the shorter side.
        logits: whether outputs and rows are those before a softmax or sigmoid. When they are not,
            loss_gradient_l2 is null: it needs the rows of the logits.
        unconnected: outputs that do not depend on the input, found once for the model.
        no_gradient: outputs that do so only through steps without a gradient, likewise.
        noise: standard deviations, in the units of the input, under which survival is foretold.
        noisy_copies: outputs of noisy copies of the images, see `noise.survival`; default: none.

    Returns:
        Name -> Arrow array of n values, of the catalog's type; null where it is not known.

    Raises:
        ValueError: arguments that contradict each other.
    """
    images, outputs = batch.outputs.shape
    label_outputs = _checked(label_outputs, images, outputs, task)
    predicted = predicted_outputs(batch.outputs)
    position, has_row = _position(batch.selected, predicted)
    usable, nan, inf = _finite(batch, has_row)
    every, mapped = np.ones(images, bool), usable & has_row
    gram = batch.gram if usable.all() else np.where(usable[:, None, None], batch.gram, 0.0)
    squared = np.maximum(np.einsum("nrr->nr", gram), 0.0)
    norm_i = np.sqrt(np.take_along_axis(squared, position[:, None], axis=1)[:, 0])
    trace = squared.sum(axis=1)

    probabilities = decision.probabilities(batch, task)
    chosen = decision.predicted_classes(probabilities, predicted, task)
    judged = (chosen >= 0) & (label_outputs >= 0) & (task in ("multiclass", "binary"))
    every_row = usable & (batch.selected.shape[1] == outputs)
    margin_l2, margin_linf, rival = decision.margins(batch, gram, position, task, logits, every_row)
    survived = survival(batch, gram, position, task, logits, every_row, noise, noisy_copies)
    loss_gradient = decision.loss_gradients(batch, gram, task, label_outputs, every_row & logits)
    inputs = int(np.prod(batch.magnitude.shape[1:])) * batch.moments.mean.shape[-1]
    singular = _singular_values(gram, inputs, batch.gram_noise)
    rings = batch.rings[:, 0]
    spread_out = mapped & (rings.sum(axis=1) > 0)
    zero_is_expected = np.isin(batch.selected, [*unconnected, *no_gradient])
    zero_is_expected &= batch.selected != predicted[:, None]
    flags = {
        "nan": nan,
        "inf": inf,
        "zero_gradient": usable & ((squared == 0) & ~zero_is_expected).any(axis=1),
        "unconnected": has_row & np.isin(predicted, list(unconnected)),
        "no_gradient": has_row & np.isin(predicted, list(no_gradient)),
    }
    ranked = usable & (singular.shape[1] > 1)  # the rank of one row is 1, whatever it is
    measured: dict[str, tuple[np.ndarray, np.ndarray]] = {  # values, and the images whose value is known
        "predicted": (chosen, chosen >= 0),
        "probability": (decision.predicted_probability(probabilities, predicted, task), every),
        "correct": (chosen == label_outputs, judged),
        "outputs": (batch.outputs, every),
        "selected": (batch.selected, _is_selected(batch)),
        "frobenius": (np.sqrt(trace), usable),
        "spectral": (singular[:, 0], usable),
        "stable_rank": (ratio(trace, singular[:, 0] ** 2), ranked),
        "effective_rank": (_effective_rank(singular), ranked),
        "singular_values": (singular, usable),
        "row_l2": (np.sqrt(squared), usable),
        "margin_l2": (margin_l2, every),
        "margin_linf": (margin_linf, every),
        "rival": (rival, rival >= 0),
        **{noise_column("survival", sigma): (survived[:, k], every) for k, sigma in enumerate(noise)},
        "loss_gradient_l2": (loss_gradient, every),
        **{name: (values, every) for name, values in map_statistics(batch.magnitude, mapped, border).items()},
        "high_frequency_share": (high_frequency_share(rings), spread_out),
        "frequency_shares": (band_shares(rings), spread_out),
        "alignment": (ratio(np.abs(batch.input_dot), norm_i), mapped),
        "flags": (_raised(flags, images), every),
    }
    sketch = batch.sketch_gram is not None
    if batch.sketch_gram is not None and batch.sketch_l1 is not None:
        finite = usable & np.isfinite(batch.sketch_gram).all(axis=(1, 2))
        products = np.where(finite[:, None, None], batch.sketch_gram, 0.0)
        for name, (values, errors) in estimates(products, batch.sketch_l1, inputs).items():
            measured |= {name: (values, finite), error_column(name): (errors, finite)}
    return {
        statistic.name: _column(statistic.type, *measured[statistic.name])
        for statistic in catalog(noise, sketch)
    }


def predicted_outputs(outputs: np.ndarray) -> np.ndarray:
    """(n,) int64, the output i whose row stands for the image: the largest; -1 where an output is NaN.

    With one output it is 0, whatever class the image is predicted to be.
    """
    return np.where(np.isnan(outputs).any(axis=1), -1, np.argmax(outputs, axis=1))


def _checked(label_outputs: np.ndarray, images: int, outputs: int, task: Task) -> np.ndarray:
    """label_outputs, all -1 for a regression."""
    label_outputs = np.asarray(label_outputs)
    if label_outputs.shape != (images,):
        raise ValueError(f"label_outputs: shape {label_outputs.shape}; {images} images need ({images},)")
    if task == "binary" and outputs != 1:
        raise ValueError(f"task: 'binary' is for a model with one output; this one has {outputs}")
    if task == "regression":
        return np.full(images, -1)
    classes = 2 if task == "binary" else outputs
    if images and not -1 <= label_outputs.min() <= label_outputs.max() < classes:
        found = f"{label_outputs.min()} to {label_outputs.max()}"
        raise ValueError(f"label_outputs: {found}; -1 to {classes - 1} are known")
    return label_outputs


def _position(selected: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the predicted row is in each image's selection (0 when absent), and whether it is there."""
    match = (selected == predicted[:, None]) & (predicted[:, None] >= 0)
    return match.argmax(axis=1), match.any(axis=1)


def _is_selected(batch: JacobianBatch) -> np.ndarray:
    """(n,) bool, whether rows were selected: -1 stands for the output of a label that is not known."""
    return np.asarray((batch.selected >= 0).all(axis=1))


def _finite(batch: JacobianBatch, has_row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three (n,) bools: the Jacobian can be measured; it holds a NaN; it holds an Inf.

    The diagonal of G tells NaN from Inf; beside it, an Inf in J shows as a NaN (Inf times 0). An image
    without selected rows cannot be measured, and has nothing wrong with it.
    """
    known = _is_selected(batch)
    squared = np.where(known[:, None], np.einsum("nrr->nr", batch.gram), 0.0)
    total = np.where(has_row, batch.magnitude.sum(axis=(1, 2), dtype=np.float64), 0.0)
    seen = np.concatenate([batch.outputs, squared, total[:, None]], axis=1)
    nan, inf = np.isnan(seen).any(axis=1), np.isinf(seen).any(axis=1)
    nan |= known & ~inf & ~np.isfinite(batch.gram).all(axis=(1, 2))
    return known & ~nan & ~inf, nan, inf


def _singular_values(gram: np.ndarray, inputs: int, noise: float) -> np.ndarray:
    """(n, min(R, inputs)) float64, descending: square roots of the eigenvalues of G.

    An eigenvalue is right to about 1e-16 of the largest, so a singular value to about 1e-8 of the largest.
    Where G is coarser, eigenvalues below `noise` times the mean of all are its rounding and count as zero.
    """
    eigenvalues = np.linalg.eigvalsh(gram)[:, ::-1]
    least = noise * eigenvalues.mean(axis=1, keepdims=True)
    eigenvalues = np.where(eigenvalues < least, 0.0, eigenvalues)[:, :inputs]
    return np.sqrt(np.maximum(eigenvalues, 0.0))


def _effective_rank(singular: np.ndarray) -> np.ndarray:
    """exp of the entropy of sigma / sum sigma (Roy and Vetterli 2007); NaN for a zero matrix."""
    share = ratio(singular, singular.sum(axis=1, keepdims=True))
    log = np.log(share, out=np.zeros_like(share), where=share > 0)
    return np.exp(-(share * log).sum(axis=1))


def _raised(flags: dict[str, np.ndarray], images: int) -> np.ndarray:
    """(n,) lists, the names of each image's flags."""
    raised = np.empty(images, object)
    raised[:] = [[name for name in FLAGS if flags[name][k]] for k in range(images)]
    return raised


def _column(kind: pa.DataType, values: np.ndarray, known: np.ndarray) -> pa.Array:
    """An Arrow array of a statistic's type, of values (n,), or (n, m) for a list of m per image.

    It is null but for the images that are `known`, (n,) bool, and where a real number is not finite.
    """
    if values.ndim == 2:
        offsets = np.concatenate([[0], np.cumsum(known * values.shape[1])]).astype(np.int32)
        flat = pa.array(values[known].ravel().astype(kind.value_type.to_pandas_dtype()))
        return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=pa.array(~known))
    if pa.types.is_floating(kind):
        known = known & np.isfinite(values)
    if pa.types.is_primitive(kind):
        values = values.astype(kind.to_pandas_dtype())
    return pa.array(values, kind, mask=~known)
