"""The catalog of statistics: what is measured of an image, one entry each.

The columns of `statistics/` and their types, the numbers that summary and slices describe, the captions and
the order of ends in the report, the direction of `Audit.worst` and the table of docs/STATISTICS.md follow.

A new statistic is its formula and its entry. Say, the sensitivity's share on the strongest pixel.
Its formula is a line among those of `augnet.statistics.image.image_statistics`:

    "peak_share": (ratio(batch.magnitude.max((1, 2)), batch.magnitude.sum((1, 2))), mapped),

and its entry a line among those of `CATALOG`:

    >>> Statistic("peak_share", "the largest a over the sum of a", label="1: on one pixel").is_scalar
    True

`python docs/statistics_table.py` then brings the documentation up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pyarrow as pa

End = Literal["lowest", "highest"]
"""The end of a statistic's values at which images are listed."""

INTEGER, REAL, REALS = pa.int32(), pa.float64(), pa.list_(pa.float64())


@dataclass(frozen=True)
class Statistic:
    """One measure of an image, and the column of `statistics/` that holds it.

    Attributes:
        meaning: what "NAME is" goes on with. J, G, f, a and i are as in docs/STATISTICS.md.
        type: of its values; a single float64 is described over the dataset, see `is_scalar`.
        label: of one that is described, a few words to stand behind the name in the report.
        unit: "" for a pure number. "input" is one unit of the input space that the audit was asked for,
            "model input" one of what the model is given, "output" one of a logit or, with model.space: model,
            of an output.
        worst: the end at which an image deserves a look, None where neither is alarming in itself.
        uses_label: whether it takes the label into account, and so cannot foretell a wrong prediction.
        source: the paper that defines it.
        per_noise: whether it has a column for each of `statistics.noise`, named as `noise_column` says.
        estimated: whether it is no exact value but comes of `jacobian.sketch`, without which there is no such
            column; its standard error is in the column that `error_column` names.
    """

    name: str
    meaning: str
    type: pa.DataType = REAL
    label: str = ""
    unit: str = ""
    worst: End | None = None
    uses_label: bool = False
    source: str = ""
    per_noise: bool = False
    estimated: bool = False

    @property
    def is_scalar(self) -> bool:
        """Whether it is one real number per image that says something of it: what summary, slices and report
        describe."""
        return bool(self.type == REAL and self.label)


GAIN = "output / input"

CATALOG = (
    Statistic(
        "predicted",
        "i, the largest output, of a regression too; of a model with one yes-or-no output, class 0 or 1",
        type=INTEGER,
    ),
    Statistic("probability", "p of the predicted class", label="of the predicted class", worst="lowest"),
    Statistic("correct", "whether the predicted class is the label's", type=pa.bool_()),
    Statistic(
        "outputs",
        "f, every output of the model, before a final softmax or sigmoid where the space is logits",
        type=pa.list_(pa.float32()),
        unit="output",
    ),
    Statistic("selected", "the output of each row of J", type=pa.list_(INTEGER)),
    Statistic(
        "frobenius",
        "the norm of the whole Jacobian: how much all outputs together react to a small change of the image",
        label="norm of the Jacobian",
        unit=GAIN,
        worst="highest",
        source="Novak et al. 2018, arXiv 1802.08760; Hoffman et al. 2019, arXiv 1908.02729",
    ),
    Statistic(
        "spectral",
        "the largest singular value of J: the reaction to the worst direction of change",
        label="largest singular value",
        unit=GAIN,
        worst="highest",
        source="Sokolic et al. 2017, arXiv 1605.08254",
    ),
    Statistic(
        "stable_rank",
        "frobenius² / spectral²: in how many directions J is about as large as in its largest; null where J "
        "has one row",
        label="frobenius² / spectral²",
    ),
    Statistic(
        "effective_rank",
        "exp(-sum s ln s), s the singular values over their sum; null where J has one row",
        label="exponential of the singular values' entropy",
        source="Roy and Vetterli 2007",
    ),
    Statistic(
        "singular_values",
        "the square roots of the eigenvalues of G, descending; of 128 rows or more, where G is of float32 "
        "products, eigenvalues below 4e-6 of the mean squared norm of a row are rounding and count as zero",
        type=REALS,
        unit=GAIN,
    ),
    Statistic("row_l2", "the norm of each row of J, in the order of `selected`", type=REALS, unit=GAIN),
    Statistic(
        "margin_l2",
        "the distance to the nearest point where the linearised model would predict another class",
        label="l2 distance to the nearest boundary, linearised",
        unit="input",
        worst="lowest",
        source="DeepFool, arXiv 1511.04599",
    ),
    Statistic(
        "margin_linf",
        "the same distance, measured by the largest change of a single input; a minimum of its own, which "
        "need not be that of the rival",
        label="the same in the largest change of an input",
        unit="input",
        worst="lowest",
        source="DeepFool, arXiv 1511.04599",
    ),
    Statistic(
        "rival",
        "the output beyond the boundary of margin_l2, the lowest of equals; null for one output",
        type=INTEGER,
    ),
    Statistic(
        "survival",
        "the probability that normal noise on the input, of this standard deviation in units of the input, "
        "leaves the prediction as it is; an estimate, whose error is in summary.json; one column for each of "
        "`statistics.noise`",
        label="probability that the prediction survives such noise",
        worst="lowest",
        source="Han et al. 2024, arXiv 2307.13885",
        per_noise=True,
    ),
    Statistic(
        "loss_gradient_l2",
        "the norm of (p - y)^T J, the gradient of the cross-entropy at the label",
        label="norm of the cross-entropy's gradient",
        unit="1 / input",
        worst="highest",
        uses_label=True,
        source="Arpit et al. 2017, arXiv 1706.05394",
    ),
    Statistic(
        "gini",
        "sum_k (2k - n - 1) a_(k) / (n sum a), a ascending over the n pixels",
        label="1: all sensitivity on one pixel; 0: evenly spread",
        source="Chalasani et al. 2020, arXiv 1810.06583",
    ),
    Statistic(
        "entropy",
        "-sum s ln s / ln n, s = a / sum a over the n pixels",
        label="1: evenly spread; 0: on one pixel",
        source="Bhatt et al. 2020, arXiv 2005.00631",
    ),
    Statistic(
        "border_fraction",
        "the part of sum a that lies in the outer frame, round(`statistics.border` x shorter side) pixels "
        "wide, at least 1",
        label="share of the sensitivity in the outer frame",
        worst="highest",
    ),
    Statistic(
        "centre_y",
        "the first moment of a from top to bottom, over the height",
        label="centre of the sensitivity, 0 top, 1 bottom",
    ),
    Statistic(
        "centre_x",
        "the first moment of a from left to right, over the width",
        label="centre of the sensitivity, 0 left, 1 right",
    ),
    Statistic(
        "spread",
        "the square root of the trace of a's second central moment, over the diagonal",
        label="of the sensitivity, relative to the diagonal",
    ),
    Statistic(
        "high_frequency_share",
        "the part of the energy of J_i, in its unitary 2-D DFT, at frequencies above half of Nyquist's",
        label="share of the energy at high frequencies",
        source="arXiv 2301.13514; Yin et al. 2019, arXiv 1906.08988",
    ),
    Statistic(
        "frequency_shares",
        "the parts of that energy in rings up to 1/8, 1/4, 1/2 and 1 of Nyquist's frequency, and beyond, at "
        "the corners; they add up to 1",
        type=REALS,
    ),
    Statistic(
        "alignment",
        "|<x, J_i>| / ||J_i||, x the model input",
        label="|<image, row>| / norm of the row",
        unit="model input",
        source="Etmann et al. 2019, arXiv 1905.04172",
    ),
    Statistic(
        "sketch_frobenius",
        "`frobenius` of the rows of all outputs, estimated from `jacobian.sketch` combinations of them",
        label="approximate: norm of the Jacobian of all outputs",
        unit=GAIN,
        worst="highest",
        source="Hutchinson 1990; Hoffman et al. 2019, arXiv 1908.02729",
        estimated=True,
    ),
    Statistic(
        "sketch_spectral",
        "`spectral` of the rows of all outputs, likewise",
        label="approximate: largest singular value of that of all outputs",
        unit=GAIN,
        worst="highest",
        source="Halko et al. 2011, arXiv 0909.4061; Bai and Ding 2012",
        estimated=True,
    ),
    Statistic(
        "sketch_magnitude",
        "the mean over the D inputs of the norm, over all outputs, of their derivatives, likewise",
        label="approximate: mean sensitivity of all outputs to an input",
        unit=GAIN,
        worst="highest",
        source="Hutchinson 1990",
        estimated=True,
    ),
    Statistic(
        "flags",
        "what is wrong with the Jacobian: nan, inf, zero_gradient, unconnected, no_gradient",
        type=pa.list_(pa.string()),
    ),
)
"""In the order of the columns."""


_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]\d+)?")


def noise_column(name: str, sigma: float) -> str:
    """Of a statistic per noise, the column for one standard deviation: `survival_0.05`."""
    return f"{name}_{sigma:g}"


def error_column(name: str) -> str:
    """Of an estimated statistic, the column of its standard error."""
    return f"{name}_error"


def catalog(noise: Sequence[float] = (), sketch: bool = False) -> tuple[Statistic, ...]:
    """The statistics of an audit, one for each column, in their order.

    Args:
        noise: `statistics.noise`.
        sketch: whether there is a `jacobian.sketch`.
    """
    found: list[Statistic] = []
    for entry in CATALOG:
        if entry.per_noise:
            found += [replace(entry, name=noise_column(entry.name, sigma)) for sigma in noise]
        elif entry.estimated:
            found += [entry, _error_of(entry)] if sketch else []
        else:
            found.append(entry)
    return tuple(found)


def _error_of(entry: Statistic) -> Statistic:
    meaning = f"the standard error of `{entry.name}`: the exact value is within two in 95 % of the images"
    return Statistic(error_column(entry.name), meaning, unit=entry.unit, estimated=True)


def scalars(statistics: Iterable[Statistic]) -> dict[str, Statistic]:
    """By name: those that are one number for each image, and are described over the dataset."""
    return {statistic.name: statistic for statistic in statistics if statistic.is_scalar}


def statistic_of(column: str) -> Statistic:
    """The statistic that a column holds, of an audit with whatever `statistics.noise` and `jacobian.sketch`.

    Raises:
        KeyError: it holds none.

    >>> statistic_of("survival_0.05").worst
    'lowest'
    """
    sigma = column.rpartition("_")[2]
    noise = [float(sigma)] if _NUMBER.fullmatch(sigma) else []
    return {statistic.name: statistic for statistic in catalog(noise, sketch=True)}[column]


SCALARS = scalars(catalog())
"""Those of every audit."""
