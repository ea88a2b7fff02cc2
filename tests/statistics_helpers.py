"""Batches of known Jacobians, measured by loops: the oracle of the statistics' tests."""

from __future__ import annotations

import numpy as np

from augnet.engine.batch import RINGS, JacobianBatch, MapMoments


def batch_of(
    rows,
    outputs,
    *,
    selected=None,
    inputs=None,
    probabilities=None,
    label_ids=None,
    label_count=0,
    map_pool=1,
    attributions=None,
    separate=None,
):
    """The batch that an engine would measure.

    Args:
        rows: (n, K, height, width, channel), the Jacobian of every output.
        outputs: (n, K).
        selected: (n, R) or (R,), default every output; -1 for no row.
        inputs: (n, height, width, channel), default zeros.
        label_ids: (n,), the labels' groups in the moments.
        separate: whether each output decides by its own sign, default with one output.
    """
    rows, outputs = np.asarray(rows, np.float64), np.asarray(outputs, np.float64)
    n, count, height, width, channel = rows.shape
    selected = np.arange(count) if selected is None else np.asarray(selected)
    selected = np.broadcast_to(selected, (n, selected.shape[-1])).astype(np.int32)
    inputs = np.zeros((n, height, width, channel)) if inputs is None else inputs
    taken = [rows[k, selected[k]] for k in range(n)]
    flat = [part.reshape(len(part), -1) for part in taken]
    found = [np.flatnonzero(selected[k] == np.argmax(outputs[k])) for k in range(n)]
    own = [
        taken[k][place[0]] if len(place) else np.full(rows.shape[2:], np.nan) for k, place in enumerate(found)
    ]
    separate = count == 1 if separate is None else separate
    drawn = selected.shape[1] // 2
    start = [0.0 if separate else own[k].ravel() for k in range(n)]
    with np.errstate(invalid="ignore"):  # rows of NaN and Inf are meant
        rivals, views = views_of(taken, own, outputs, selected)
        return JacobianBatch(
            outputs=outputs,
            probabilities=probabilities,
            selected=selected,
            gram=np.stack([part @ part.T for part in flat]),
            boundary_l1=np.stack([np.abs(start[k] - flat[k]).sum(axis=1) for k in range(n)]),
            magnitude=np.stack([np.sqrt((row**2).sum(axis=-1)) for row in own]).astype(np.float32),
            input_dot=np.array([(inputs[k] * own[k]).sum() for k in range(n)]),
            rings=np.array([[rings_of(own[k]), rings_of(taken[k][drawn])] for k in range(n)]).reshape(
                n, 2, -1
            ),
            drawn=selected[:, drawn],
            stored=selected,
            rows=None,
            moments=moments_of(groups_of(taken, own, selected, count, label_ids, label_count), map_pool),
            rival=rivals,
            views=views,
            attributions=attributions,
        )


def rings_of(row):
    """(RINGS,) the part of a row's energy at each radius of frequency, by the whole complex DFT."""
    height, width, _ = row.shape
    energy = np.square(np.abs(np.fft.fft2(row, axes=(0, 1), norm="ortho"))).sum(axis=-1)
    found = np.zeros(RINGS)
    for v, u in np.ndindex(height, width):
        radius = 2 * np.hypot(min(v, height - v) / height, min(u, width - u) / width)
        found[max(0, int(np.ceil(16 * radius)) - 1)] += energy[v, u]
    return found / energy.sum() if energy.any() else found


def views_of(taken, own, outputs, selected):
    """The other selected row of each image with the nearest boundary, and the views of both rows."""
    rivals, views = [], []
    for rows, row, scores, chosen in zip(taken, own, outputs, selected, strict=True):
        apart = [np.linalg.norm(other - row) for other in rows]
        gaps = [abs(scores[output] - scores.max()) for output in chosen]
        distances = [gap / far if far > 0 else np.inf for gap, far in zip(gaps, apart, strict=True)]
        nearest = int(np.argmin(distances))
        met = np.isfinite(distances[nearest])
        rivals.append(chosen[nearest] if met else -1)
        rival = rows[nearest] if met else np.full_like(row, np.nan)
        signed = [row.sum(axis=-1), rival.sum(axis=-1)]
        views.append(signed + [np.sqrt((part**2).sum(axis=-1)) for part in (row, rival, row - rival)])
    return np.array(rivals, np.int32), np.array(views, np.float32)


def groups_of(taken, own, selected, outputs, label_ids, label_count):
    """For every group, its finite rows: those of each output, then the predicted ones of each label."""
    groups = [[] for _ in range(outputs + label_count)]
    for k, rows in enumerate(taken):
        for output, row in zip(selected[k], rows, strict=True):
            if output >= 0 and np.isfinite(row).all():
                groups[output].append(row)
        if label_count and label_ids[k] >= 0 and np.isfinite(own[k]).all():
            groups[outputs + label_ids[k]].append(own[k])
    shape = own[0].shape
    return [np.array(rows).reshape(-1, *shape) for rows in groups]


def moments_of(groups, pool=1):
    """MapMoments of lists of rows (m, height, width, channel), block by block of pixels."""
    shape = groups[0].shape[1:]
    size = (-(-shape[0] // pool), -(-shape[1] // pool), shape[2])
    maps = [np.zeros((len(groups), *size)) for _ in range(4)]
    for g, rows in enumerate(groups):
        for y, x, c in np.ndindex(size) if len(rows) else ():
            block = rows[:, y * pool : (y + 1) * pool, x * pool : (x + 1) * pool, c]
            mean = block.mean()
            m2 = ((block - mean) ** 2).mean(axis=(1, 2)).sum()
            for target, value in zip(
                maps, (mean, m2, np.abs(block).mean(), np.abs(block).max()), strict=True
            ):
                target[g, y, x, c] = value
    return MapMoments(np.array([len(rows) for rows in groups], np.int64), *maps)


def random_batch(rng, n=6, outputs=4, shape=(5, 6, 3), **kwargs):
    """Rows and outputs of normal numbers; float32 rows, as an engine's."""
    rows = rng.normal(size=(n, outputs, *shape)).astype(np.float32)
    return batch_of(rows, rng.normal(size=(n, outputs)), inputs=rng.random((n, *shape)), **kwargs)
