"""Stored Jacobians of several audits, image by image, and how far those of two agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from augnet.comparison.join import JoinedOutputs
from augnet.comparison.ranks import rank_correlations
from augnet.statistics.describe import describe
from augnet.storage.reader import Audit

MOST_IMAGES = 10_000
"""Stored Jacobians are read for about this many images at most: whole shards, chosen at random."""
LISTED = 20


@dataclass(frozen=True)
class StoredImages:
    """Images whose Jacobians lie in one shard of each of several audits.

    Attributes:
        positions: (m,) of the images among those joined.
        outputs: of each audit, (m, row) int32, -1 for no row.
        rows: of each audit, (m, row, height, width, channel).
    """

    positions: np.ndarray
    outputs: list[np.ndarray]
    rows: list[np.ndarray]


def stored_together(audits: list[Audit], images: list[np.ndarray], seed: int = 0) -> Iterator[StoredImages]:
    """The stored Jacobians of images that several audits share, one shard of each in memory at a time.

    Args:
        images: of each audit, (n,) rows of `statistics`: the same images in the same order.
        seed: of the shards chosen where there are more than MOST_IMAGES images.
    """
    files = [
        audit.column("jacobian_file").take(pa.array(rows)) for audit, rows in zip(audits, images, strict=True)
    ]
    places = [
        audit.column("jacobian_row").take(pa.array(rows)) for audit, rows in zip(audits, images, strict=True)
    ]
    encoded = [file.combine_chunks().dictionary_encode() for file in files]
    codes = np.stack([pc.fill_null(part.indices, -1).to_numpy() for part in encoded])
    groups, member = np.unique(codes, axis=1, return_inverse=True)
    order, taken = np.random.default_rng(seed).permutation(groups.shape[1]), 0
    chosen = []
    for group in order.tolist():
        if (groups[:, group] >= 0).all() and taken < MOST_IMAGES:
            chosen.append(group)
            taken += int(np.sum(member == group))
    for group in sorted(chosen):
        positions = np.flatnonzero(member == group)
        loaded = [
            audit.stored_rows(part.dictionary[int(code)].as_py(), place.take(pa.array(positions)).to_numpy())
            for audit, part, code, place in zip(audits, encoded, groups[:, group], places, strict=True)
        ]
        yield StoredImages(positions, [outputs for outputs, _ in loaded], [rows for _, rows in loaded])


def rows_of(outputs: np.ndarray, rows: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of m images have a row of the output wanted (m,), and those rows (k, height, width, channel)."""
    found = (outputs == wanted[:, None]) & (wanted[:, None] >= 0)
    has = found.any(axis=1)
    return has, rows[has, found[has].argmax(axis=1)]


@dataclass(frozen=True)
class Agreement:
    """How far the Jacobians of two audits agree.

    Attributes:
        images: compared.
        reason: why there are none, or "".
        cosine: distribution of the cosine of J[r] of both, over images and outputs, as of `describe`.
        by_output: of each joined output: its name, rows compared and their mean cosine.
        correlation: distribution over images of the rank correlation of both magnitude maps of the output
            that BEFORE predicts.
        least: the images whose maps correlate least.
    """

    images: int
    reason: str
    cosine: dict[str, Any] | None = None
    by_output: list[dict[str, Any]] | None = None
    correlation: dict[str, Any] | None = None
    least: list[dict[str, Any]] | None = None


def compare_jacobians(
    audits: tuple[Audit, Audit], images: tuple[np.ndarray, np.ndarray], outputs: JoinedOutputs
) -> Agreement:
    """The agreement of stored Jacobians, over the images that both audits stored."""
    shapes = [_stored_shape(audit) for audit in audits]
    if None in shapes:
        missing = ", ".join(
            str(audit.folder) for audit, shape in zip(audits, shapes, strict=True) if not shape
        )
        return Agreement(0, f"{missing} stored no Jacobians; audit with store.jacobians other than none")
    if shapes[0] != shapes[1]:
        return Agreement(
            0, "they were stored in different shapes; audit both with the same store.pool and store.channels"
        )
    pairs = _row_pairs(audits, outputs)
    predicted = audits[0].column("predicted").take(pa.array(images[0]))
    shown = pc.fill_null(predicted, -1).to_numpy()
    if audits[0].has_one_output:
        shown = np.zeros_like(shown)
    cosines: dict[int, list[np.ndarray]] = {pair: [] for pair, _ in pairs}
    correlations, compared = [(np.empty(0, np.int64), np.empty(0))], 0
    for stored in stored_together(list(audits), list(images)):
        compared += len(stored.positions)
        own = shown[stored.positions]
        for before, after in pairs:
            both, first, second = _both(stored, before, after)
            cosines[before].append(_cosines(first, second))
            mapped = own[both] == before
            found = rank_correlations(_magnitude(first[mapped]), _magnitude(second[mapped]))
            correlations.append((stored.positions[both][mapped], found))
    values = {pair: np.concatenate(parts) for pair, parts in cosines.items() if parts}
    positions, correlation = (np.concatenate(parts) for parts in zip(*correlations, strict=True))
    return Agreement(
        images=compared,
        reason="" if compared else "no image has a stored Jacobian in both",
        cosine=_described(np.concatenate([np.empty(0), *values.values()])),
        by_output=[
            {
                "output": outputs.name(k) if k < len(outputs.pairs) else f"output {before}",
                **_mean(values[before]),
            }
            for k, (before, _) in enumerate(pairs)
            if before in values and len(values[before])
        ],
        correlation=_described(correlation),
        least=_least(audits[0], images[0], positions, correlation),
    )


def _stored_shape(audit: Audit) -> list[Any] | None:
    store, shape = audit.run["config"]["store"], audit.run["model"]["input_shape"]
    return None if store["jacobians"] == "none" else [shape, store["pool"], store["channels"]]


def _row_pairs(audits: tuple[Audit, Audit], outputs: JoinedOutputs) -> list[tuple[int, int]]:
    """Pairs of rows; a yes-or-no output has one row, whatever its two classes are called."""
    single = [audit.has_one_output for audit in audits]
    return [(0, 0)] if all(single) else list(outputs.pairs)


def _both(stored: StoredImages, before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which images have the row in both audits, and these rows."""
    wanted = [np.full(len(stored.positions), output) for output in (before, after)]
    has = [
        (outputs == output[:, None]).any(axis=1)
        for outputs, output in zip(stored.outputs, wanted, strict=True)
    ]
    both = has[0] & has[1]
    rows = [
        rows_of(outputs[both], rows[both], output[both])[1]
        for outputs, rows, output in zip(stored.outputs, stored.rows, wanted, strict=True)
    ]
    return both, rows[0], rows[1]


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(k,) cosines of (k, height, width, channel) rows; NaN where one is zero."""
    one, other = first.astype(np.float64), second.astype(np.float64)
    products = [np.einsum("khwc,khwc->k", *pair) for pair in ((one, other), (one, one), (other, other))]
    norms = np.sqrt(products[1] * products[2])
    return np.divide(products[0], norms, out=np.full(len(norms), np.nan), where=norms > 0)


def _magnitude(rows: np.ndarray) -> np.ndarray:
    """(k, pixel) l2 norm over channels."""
    squared = np.square(rows, dtype=np.float64).sum(axis=-1)
    return np.sqrt(squared).reshape(len(rows), rows.shape[1] * rows.shape[2])


def _described(values: np.ndarray) -> dict[str, Any] | None:
    known = np.sort(values[np.isfinite(values)])
    return describe(known) if len(known) else None


def _mean(values: np.ndarray) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    return {"images": len(known), "mean_cosine": float(known.mean()) if len(known) else None}


def _least(
    audit: Audit, images: np.ndarray, positions: np.ndarray, correlation: np.ndarray
) -> list[dict[str, Any]]:
    known = np.flatnonzero(np.isfinite(correlation))
    chosen = known[np.lexsort((positions[known], correlation[known]))][:LISTED]
    names = audit.column("image_id").take(pa.array(images[positions[chosen]])).to_pylist()
    return [
        {"image_id": name, "correlation": float(value)}
        for name, value in zip(names, correlation[chosen], strict=True)
    ]
