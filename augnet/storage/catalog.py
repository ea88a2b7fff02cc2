"""The catalog of statistics: what is measured of an image, one entry each.

The columns of `statistics/` and their types, the numbers that summary and slices describe, the captions and
the order of ends in the report, the direction of `Audit.worst` and the table of docs/STATISTICS.md follow.

A new statistic is its formula and its entry. Say, the sensitivity's share on the strongest pixel.
Its formula is a line among those of `augnet.statistics.image.image_statistics`:

    "peak_share": (ratio(batch.magnitude.max((1, 2)), batch.magnitude.sum((1, 2))), mapped),

and its entry a line among those of `CATALOG`:

    >>> Statistic(
    ...     "peak_share",
    ...     pa.float64(),
    ...     "share of the sensitivity on the strongest pixel",
    ...     "the largest a of a pixel over the sum of a",
    ...     worst="highest",
    ... ).is_scalar
    True

`python docs/statistics_table.py` then brings the documentation up to date.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

End = Literal["lowest", "highest"]
"""The end of a statistic's values at which images are listed."""

INTEGER, REAL, REALS = pa.int32(), pa.float64(), pa.list_(pa.float64())


@dataclass(frozen=True)
class Statistic:
    """One measure of an image, and the column of `statistics/` that holds it.

    Attributes:
        name: of the column.
        type: of its values; a single float64 is described over the dataset, see `is_scalar`.
        label: a few words to stand behind the name, for people.
        meaning: what "NAME is" goes on with. J, G, f, a and i are as in docs/STATISTICS.md.
        unit: "" for a pure number. "input" is one unit of the input space that the audit was asked for,
            "output" one of a logit or, with model.space: model, of an output.
        worst: the end at which an image deserves a look, None where neither is alarming in itself.
        source: the paper that defines it.
    """

    name: str
    type: pa.DataType
    label: str
    meaning: str
    unit: str = ""
    worst: End | None = None
    source: str = ""

    @property
    def is_scalar(self) -> bool:
        """Whether it is one real number per image: what summary, slices and report describe."""
        return bool(self.type == REAL)


CATALOG = (
    Statistic(
        "predicted",
        INTEGER,
        "the predicted class",
        "the number of the largest output; of a model with one yes-or-no output, class 0 or 1",
    ),
    Statistic(
        "probability",
        REAL,
        "of the predicted class",
        "the probability of the predicted class; null for a regression",
        worst="lowest",
    ),
    Statistic("correct", pa.bool_(), "predicted as labelled", "whether the predicted class is the label's"),
    Statistic(
        "outputs",
        pa.list_(pa.float32()),
        "all outputs",
        "f, every output of the model, before a final softmax or sigmoid where the space is logits",
        unit="output",
    ),
    Statistic(
        "selected", pa.list_(INTEGER), "outputs whose rows were computed", "the output of each row of J"
    ),
    Statistic(
        "frobenius",
        REAL,
        "norm of the Jacobian",
        "the norm of the whole Jacobian: how much all outputs together react to a small change of the image",
        unit="output / input",
        worst="highest",
        source="Novak et al. 2018, arXiv 1802.08760; Hoffman et al. 2019, arXiv 1908.02729",
    ),
    Statistic(
        "spectral",
        REAL,
        "largest singular value",
        "the largest singular value of J: the reaction to the worst direction of change",
        unit="output / input",
        worst="highest",
        source="Sokolic et al. 2017, arXiv 1605.08254",
    ),
    Statistic(
        "stable_rank",
        REAL,
        "frobenius\u00b2 / spectral\u00b2",
        "frobenius\u00b2 / spectral\u00b2: in how many directions J is about as large as in its largest",
    ),
    Statistic(
        "effective_rank",
        REAL,
        "exponential of the singular values' entropy",
        "exp(-sum p ln p), p the singular values over their sum",
        source="Roy and Vetterli 2007",
    ),
    Statistic(
        "singular_values",
        REALS,
        "descending",
        "the square roots of the eigenvalues of G, descending",
        unit="output / input",
    ),
    Statistic(
        "row_l2",
        REALS,
        "norm of each selected row",
        "the norm of each row of J, in the order of `selected`",
        unit="output / input",
    ),
    Statistic(
        "margin_l2",
        REAL,
        "l2 distance to the nearest boundary, linearised",
        "the distance, in model input units, to the nearest point where the linearised model would predict "
        "another class",
        unit="input",
        worst="lowest",
        source="DeepFool, arXiv 1511.04599",
    ),
    Statistic(
        "margin_linf",
        REAL,
        "the same in the largest change of a pixel",
        "the same distance, measured by the largest change of a single pixel",
        unit="input",
        worst="lowest",
        source="DeepFool, arXiv 1511.04599",
    ),
    Statistic(
        "rival", INTEGER, "output of the nearest boundary", "the output beyond the boundary of margin_l2"
    ),
    Statistic(
        "loss_gradient_l2",
        REAL,
        "norm of the cross-entropy's gradient",
        "the norm of (p - y)^T J, the gradient of the cross-entropy at the label",
        unit="1 / input",
        worst="highest",
        source="Arpit et al. 2017, arXiv 1706.05394",
    ),
    Statistic(
        "gini",
        REAL,
        "1: all sensitivity on one pixel; 0: evenly spread",
        "sum_k (2k - n - 1) a_(k) / (n sum a), a ascending over the n pixels",
        source="Chalasani et al. 2020, arXiv 1810.06583",
    ),
    Statistic(
        "entropy",
        REAL,
        "1: evenly spread; 0: on one pixel",
        "-sum p ln p / ln n, p = a / sum a over the n pixels",
        source="Bhatt et al. 2020, arXiv 2005.00631",
    ),
    Statistic(
        "border_fraction",
        REAL,
        "share of the sensitivity in the outer frame",
        "the part of sum a that lies in the outer frame, `statistics.border` of the shorter side wide",
        worst="highest",
    ),
    Statistic(
        "centre_y",
        REAL,
        "centre of the sensitivity, 0 top, 1 bottom",
        "the first moment of a from top to bottom, over the height",
    ),
    Statistic(
        "centre_x",
        REAL,
        "centre of the sensitivity, 0 left, 1 right",
        "the first moment of a from left to right, over the width",
    ),
    Statistic(
        "spread",
        REAL,
        "of the sensitivity, relative to the diagonal",
        "the square root of the trace of a's second central moment, over the diagonal",
    ),
    Statistic(
        "alignment",
        REAL,
        "|<image, row>| / norm of the row",
        "|<x, J_i>| / ||J_i||, x the model input",
        unit="input",
        source="Etmann et al. 2019, arXiv 1905.04172",
    ),
    Statistic(
        "flags",
        pa.list_(pa.string()),
        "what is wrong with the Jacobian",
        "what is wrong with the Jacobian: nan, inf, zero_gradient, unconnected, no_gradient",
    ),
)
"""In the order of the columns."""

SCALARS = {statistic.name: statistic for statistic in CATALOG if statistic.is_scalar}
"""By name: what is described over the dataset."""
