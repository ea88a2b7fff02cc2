"""Where each output looks, and where the model looks by label: maps over the whole dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from augnet.engine.batch import RINGS_TO_NYQUIST, VIEW_PIXELS
from augnet.report.assets import data_script, numbers, packed
from augnet.report.sprites import picture_address
from augnet.statistics.gallery import quantized
from augnet.statistics.moments import shrunk
from augnet.storage.reader import Audit

SHEET_MAPS = 25

KINDS = {
    "mean_abs": "mean magnitude",
    "rms": "root mean square",
    "mean": "magnitude of the mean",
    "signed": "signed mean",
}
"""Kind of map -> its name. The first three are l2 over channels, the last is the sum over channels."""


def map_groups(audit: Audit, names: Sequence[str]) -> list[dict[str, Any]]:
    """What the page knows of each group of maps before it loads any: names, counts, largest values, curves.

    Args:
        names: of the outputs.
    """
    outputs = _group(audit, "output", "", names, audit.maps["count"])
    curves = audit.outputs["frequency_curve"].to_pylist()
    outputs["curves"] = [numbers(curves[k] or [], 3) for k in outputs["numbers"]]
    outputs["nyquist"] = RINGS_TO_NYQUIST
    groups = [outputs]
    if "label_count" in audit.maps:
        labels = [f"label {label}" for label in audit.run["labels"]]
        groups.append(_group(audit, "label", "label_", labels, audit.maps["label_count"]))
    return groups


def map_sheets(audit: Audit) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of every sheet of SHEET_MAPS maps."""
    for key, prefix in (("output", ""), ("label", "label_")):
        count = audit.maps.get(f"{prefix}count")
        present = [] if count is None else np.flatnonzero(count).tolist()
        for start in range(0, len(present), SHEET_MAPS):
            part = present[start : start + SHEET_MAPS]
            scaled = [quantized(_kinds(audit, prefix, number)) for number in part]
            name = f"maps-{key}-{start // SHEET_MAPS:03d}"
            value = {
                "maps": packed(np.stack([steps for _, steps in scaled])),
                "scale": [numbers(scale) for scale, _ in scaled],
            }
            yield f"{name}.js", data_script(name, value)


def mean_picture(audit: Audit) -> np.ndarray:
    """The mean model input as a uint8 picture (h, w, 1 or 3), its contrast stretched to be seen."""
    mean = audit.maps["mean_input"]
    if mean.shape[-1] not in (1, 3):
        mean = mean.mean(axis=-1, keepdims=True)
    low, high = float(mean.min()), float(mean.max())
    return ((mean - low) / ((high - low) or 1.0) * 255).astype(np.uint8)


def mean_image(audit: Audit) -> dict[str, Any]:
    """The mean image as an address, and its size."""
    picture = mean_picture(audit)
    return {"address": picture_address(picture, lossless=True), "size": picture.shape[:2]}


def _group(audit: Audit, key: str, prefix: str, names: Sequence[str], count: np.ndarray) -> dict[str, Any]:
    present = np.flatnonzero(count).tolist()
    largest = np.array([np.abs(_kinds(audit, prefix, k)).max(axis=(1, 2)) for k in present])
    mean = np.array([_kinds(audit, prefix, k)[0].mean() for k in present])
    size = _kinds(audit, prefix, present[0]).shape[1:] if present else (0, 0)
    return {
        "key": key,
        "sheet": SHEET_MAPS,
        "size": size,
        "numbers": present,
        "names": [names[k] for k in present],
        "counts": count[present].tolist(),
        "mean": numbers(mean),
        "largest": dict(zip(KINDS, numbers(largest.max(axis=0)), strict=True)) if present else {},
    }


def _kinds(audit: Audit, prefix: str, number: int) -> np.ndarray:
    """(kind, h, w) of one output or label, in the order of KINDS, at most VIEW_PIXELS a side."""
    mean, magnitude, rms = (audit.maps[f"{prefix}{name}"][number] for name in ("mean", "mean_abs", "rms"))
    norms = [np.sqrt(np.square(part, dtype=np.float64).sum(axis=-1)) for part in (magnitude, rms, mean)]
    kinds = np.stack([*norms, mean.sum(axis=-1, dtype=np.float64)], axis=-1)
    return np.moveaxis(shrunk(kinds, VIEW_PIXELS), -1, 0)
