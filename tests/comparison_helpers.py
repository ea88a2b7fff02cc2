"""Small audits with known figures, for the tests of comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from augnet import open_audit
from augnet.config import config_json, load_config
from augnet.storage import names, schema
from augnet.storage.catalog import SCALARS
from augnet.storage.files import OutputFolder
from augnet.storage.shards import NpzJacobianWriter, ParquetJacobianWriter, write_table

CLASSES = {"ant": 0, "bee": 1, "cow": 2}


def made_audit(
    path: Path,
    images: int = 60,
    seed: int = 0,
    *,
    columns: dict[str, Any] | None = None,
    order: np.ndarray | None = None,
    jacobians: np.ndarray | None = None,
    format: str = "parquet",
    findings: dict[str, Any] | None = None,
    label_outputs: dict[str, int] | None = None,
    model: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
):
    """A finished audit of images `bee/0007.png`, with random figures but for the columns given.

    Args:
        columns: of schema.STATISTICS, one value for each image.
        order: of the images; a part of them leaves others out.
        jacobians: (images, output, height, width, channel), stored by all outputs.
        model, config, run: what differs in run.json.
    """
    folder, rng = OutputFolder(str(path)), np.random.default_rng(seed)
    label_outputs = CLASSES if label_outputs is None else label_outputs
    labels = [list(CLASSES)[k % 3] for k in range(images)]
    found: dict[str, Any] = {field.name: pa.nulls(images, field.type) for field in schema.STATISTICS}
    found |= {name: rng.lognormal(0, 0.5, images) for name in SCALARS}
    found["image_id"] = [f"{label}/{k:04d}.png" for k, label in enumerate(labels)]
    found |= {"uri": found["image_id"], "label": labels}
    found["predicted"] = np.array([label_outputs.get(label, 0) for label in labels], np.int32)
    found |= columns or {}
    right = [label_outputs.get(label) for label in labels]
    found.setdefault("correct", None)
    if columns is None or "correct" not in columns:
        found["correct"] = [
            None if wanted is None else bool(guess == wanted)
            for guess, wanted in zip(np.asarray(found["predicted"]), right, strict=True)
        ]
    if jacobians is not None:
        shard = names.shard("jacobians", 0, 1, suffix=format)
        outputs = np.tile(np.arange(jacobians.shape[1], dtype=np.int32), (images, 1))
        writers = {"parquet": ParquetJacobianWriter, "npz": NpzJacobianWriter}
        with folder.writing(shard) as file:
            writer = writers[format](file, jacobians.shape[2:], "float32")
            found["jacobian_row"] = writer.write(found["image_id"], outputs, jacobians)
            writer.close()
        found["jacobian_file"] = [shard] * images
    table = pa.table(found, schema.STATISTICS)
    if order is not None:
        table = table.take(pa.array(order))
    with folder.writing(names.shard("statistics", 0, 1)) as file:
        write_table(file, table)
    keys = {"model.path": "model.keras", "images.path": str(path.parent), "output": str(path)}
    keys |= {"store.jacobians": "none" if jacobians is None else "all"} | (config or {})
    keys |= {"findings.enabled": findings is not None}
    shape = {"input_shape": [4, 5, 1], "output_count": 3, "activation": "softmax", "space": "logits"}
    whole = {
        "fingerprint": path.name,
        "identity": {"model": f"model of {path.name}", "images": "the same", "config": {"model": {}}},
        "config": config_json(load_config(flags=keys)),
        "model": shape | (model or {}),
        "preprocess": {"scale": "unit"},
        "label_outputs": label_outputs,
    }
    folder.write_sealed(names.RUN, whole | (run or {}))
    summary = {
        "images": len(table),
        "failures": 0,
        "judged": len(table) - table["correct"].null_count,
        "statistics": {name: {"count": len(table) - table[name].null_count} for name in SCALARS},
    }
    folder.write_json(names.SUMMARY, summary)
    nothing: dict[str, Any] = {"confirmed": [], "looks_at": [], "tried": []}
    folder.write_json(names.FINDINGS, findings or nothing)
    folder.write_sealed(names.MANIFEST, {})
    return open_audit(str(path))


def finding(output: int = 0, low: float = 0.4, kind: str = "place", **place: int) -> dict[str, Any]:
    """One entry of findings.json."""
    place = {"y": 0, "x": 0, "height": 2, "width": 2} | place
    return {
        "kind": kind,
        "output": output,
        "places": [place] if kind == "place" else [],
        "effect": low + 0.1,
        "interval": [low, low + 0.2],
        "sentence": f"output {output} leans on {kind} {place['y']}",
    }


def findings(*confirmed: dict[str, Any], looks_at: tuple = (), smallest: float = 0.2) -> dict[str, Any]:
    """findings.json, of an audit that would have seen effects from `smallest` on."""
    tried = [{"kind": kind, "candidates": 3, "smallest_effect": smallest} for kind in ("place", "colour")]
    return {"confirmed": list(confirmed), "looks_at": list(looks_at), "tried": tried, "doubts": []}
