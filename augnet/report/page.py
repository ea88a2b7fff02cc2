"""The HTML page of an audit, rendered from its files alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined

from augnet.report import figures
from augnet.report.sentences import output_name, shortcut_sentence
from augnet.storage import names
from augnet.storage.catalog import SCALARS, Statistic
from augnet.storage.reader import Audit

SHOWN_MAPS = 30
SHOWN_FAILURES = 50
SHOWN_LABELS = 50

GALLERIES = {
    "margin_l2": (
        "Near and far from a decision boundary",
        "margin",
        " Images with small margins are those that the model could easily be talked out of.",
    ),
    "frobenius": ("Most and least sensitive", "norm", ""),
}
"""Statistic -> heading, what its images have most or least of, and what to make of it."""

LABEL_MEANS = ("margin_l2", "frobenius", "border_fraction", "entropy", "loss_gradient_l2")
"""The statistics whose mean is shown for each label."""

COLUMNS = {
    "count": "images",
    "mean": "mean",
    "std": "std",
    "min": "min",
    "q05": "5 %",
    "q25": "25 %",
    "q50": "median",
    "q75": "75 %",
    "q95": "95 %",
    "max": "max",
    "auroc_wrong": "AUROC of error",
}
"""Figure of a statistic -> its heading in the table."""


def render(audit: Audit) -> str:
    """Write report/index.html and its pictures; the same files give the same bytes.

    Returns:
        The page's full path.
    """
    pictures = _Pictures(audit)
    page = _template().render(
        title=_short(audit.run["config"]["model"]["path"]),
        shortcuts=_shortcuts(audit, pictures),
        maps=_output_maps(audit, pictures),
        label_maps=_label_maps(audit, pictures),
        mean_image=pictures.add("mean-image", figures.picture(_mean_picture(audit))),
        map_note=_map_note(audit),
        galleries=_galleries(audit, pictures),
        plots=_plots(audit, pictures),
        failures=audit.failures.slice(0, SHOWN_FAILURES).to_pylist(),
        **_texts(audit),
        **_tables(audit),
    )
    audit.folder.write_bytes(names.REPORT, page.encode())
    return audit.folder.path(names.REPORT)


class _Pictures:
    """The page's pictures: written beside it, under names that hold nothing of the data."""

    def __init__(self, audit: Audit):
        self._folder = audit.folder

    def add(self, name: str, data: bytes) -> str:
        """Write one PNG; returns its address in the page."""
        self._folder.write_bytes(f"{names.REPORT_FOLDER}/{name}.png", data)
        return f"{name}.png"


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("augnet.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("template.html")


def _texts(audit: Audit) -> dict[str, Any]:
    """Headline, cards, and how the audit was made."""
    run, counts, summary = audit.run, audit.counts, audit.summary
    config, model, preprocess = run["config"], run["model"], run["preprocess"]
    height, width, channels = model["input_shape"]
    logits = model["space"] == "logits"
    space = f"before the final {model['activation']}" if logits else "as the model gives them"
    cards = [("images audited", f"{counts['audited']:,}"), ("failed", f"{counts['failed']:,}")]
    if summary["judged"]:
        cards.append(("accuracy", f"{summary['accuracy']:.1%}"))
    cards += [(name, f"{summary[name]:,}") for name in ("resized", "recolored") if summary[name]]
    cards += [(f"flagged {flag}", f"{count:,}") for flag, count in summary["flags"].items() if count]
    units = "0..255 pixel step" if config["jacobian"]["input_space"] == "pixel" else "model input"
    details = [
        ("model", config["model"]["path"]),
        ("images", config["images"]["path"]),
        ("Jacobian of", f"{model['output_count']} outputs, {space}; rows: {config['jacobian']['outputs']}"),
        ("with respect to", f"{height} x {width} x {channels} inputs, per unit of {units}"),
        ("scale", f"{_scale(preprocess['scale'])}. {preprocess['reason']}"),
        ("labels", run["label_rule"]),
        ("stored", "{jacobians} rows, {format}, {dtype}".format(**config["store"])),
        ("fingerprint", run["fingerprint"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(run["versions"].items()))),
    ]
    return {
        "counts": counts,
        "cards": cards,
        "details": details,
        "model_text": f"Model {_short(config['model']['path'])}: {model['output_count']} outputs, "
        f"{height} x {width} x {channels} inputs.",
        "images_text": f"Images {config['images']['path']}: {counts['planned']:,} planned.",
    }


def _shortcuts(audit: Audit, pictures: _Pictures) -> list[dict[str, Any]]:
    """Each flagged output: its sentence, its map with the place outlined, and the images that show it."""
    items = []
    for item in audit.summary["shortcuts"]:
        name, share = output_name(audit, item["output"]), audit.maps["share"][item["output"]]
        cells = np.tile(np.array(share.shape) / audit.run["model"]["input_shape"][:2], 2)
        window = np.array([item[side] for side in ("y", "x", "height", "width")])
        top, left, height, width = np.rint(window * cells).astype(int).tolist()
        picture = figures.heat_map(share, _mean_picture(audit), (top, left, top + height, left + width))
        items.append(
            {
                "name": name,
                "text": f"{shortcut_sentence(audit, item)}. The images that show it most: "
                + ", ".join(image["image_id"] for image in item["images"]),
                "map": pictures.add(f"shortcut-{item['output']}", picture),
            }
        )
    return items


def _output_maps(audit: Audit, pictures: _Pictures) -> list[dict[str, str]]:
    counts = audit.maps["count"]
    frequent = sorted(np.argsort(-counts, kind="stable")[: min(SHOWN_MAPS, np.count_nonzero(counts))])
    named = {int(k): (f"output-{k}", output_name(audit, int(k))) for k in frequent}
    return _maps(audit, pictures, "mean_abs", named)


def _label_maps(audit: Audit, pictures: _Pictures) -> list[dict[str, str]]:
    if "label_mean_abs" not in audit.maps:
        return []
    seen = np.flatnonzero(audit.maps["label_count"])[:SHOWN_MAPS].tolist()
    named = {k: (f"label-{k}", f"label {audit.run['labels'][k]}") for k in seen}
    return _maps(audit, pictures, "label_mean_abs", named)


def _maps(
    audit: Audit, pictures: _Pictures, kind: str, named: dict[int, tuple[str, str]]
) -> list[dict[str, str]]:
    """The maps of a kind whose numbers are given with a file name and a caption."""
    tiles = []
    for number, (file, name) in named.items():
        magnitude = figures.over_channels(audit.maps[kind][number])
        picture = pictures.add(file, figures.heat_map(magnitude, _mean_picture(audit)))
        tiles.append({"name": name, "file": picture, "mean": _number(float(magnitude.mean()))})
    return tiles


def _map_note(audit: Audit) -> str:
    outputs, pool = int(np.count_nonzero(audit.maps["count"])), int(audit.maps["map_pool"])
    note = ""
    if outputs > SHOWN_MAPS:
        note += f" The {SHOWN_MAPS} outputs with the most rows of {outputs} are shown."
    if pool > 1:
        note += f" The maps are means over blocks of {pool} x {pool} pixels."
    return note


def _mean_picture(audit: Audit) -> np.ndarray:
    """The mean model input as a uint8 picture, its contrast stretched to be seen."""
    mean = audit.maps["mean_input"]
    low, high = float(mean.min()), float(mean.max())
    return ((mean - low) / ((high - low) or 1.0) * 255).astype(np.uint8)


def _galleries(audit: Audit, pictures: _Pictures) -> list[dict[str, Any]]:
    """The pictures at both ends of a statistic, the end that deserves a look first."""
    galleries = []
    for name, (title, noun, note) in GALLERIES.items():
        ends = {"lowest": f"Smallest {noun}", "highest": f"Largest {noun}"}
        shown = [
            {"title": heading, "images": _exhibits(audit, pictures, name, end)}
            for end, heading in sorted(ends.items(), key=lambda item: item[0] != SCALARS[name].worst)
            if f"{name}.{end}.value" in audit.gallery
        ]
        if shown:
            text = f"{name} is {SCALARS[name].meaning}.{note}"
            galleries.append({"statistic": name, "title": title, "text": text, "ends": shown})
    return galleries


def _exhibits(audit: Audit, pictures: _Pictures, statistic: str, end: str) -> list[dict[str, str]]:
    parts = (
        audit.gallery[f"{statistic}.{end}.{part}"] for part in ("image_id", "value", "thumbnail", "heat")
    )
    exhibits = []
    for number, (image_id, value, thumbnail, heat) in enumerate(zip(*parts, strict=True)):
        file = f"{statistic}-{end}-{number}"
        exhibit = {"image_id": str(image_id), "value": f"{statistic} {_number(float(value))}"}
        exhibit["picture"] = pictures.add(file, figures.picture(thumbnail))
        known = not np.isnan(heat).any()  # unknown where the predicted row was not computed
        exhibit["heat"] = pictures.add(f"{file}-heat", figures.heat_map(heat, thumbnail)) if known else ""
        exhibits.append(exhibit)
    return exhibits


def _plots(audit: Audit, pictures: _Pictures) -> list[dict[str, str]]:
    plots = []
    for statistic, figure in _described(audit):
        values = audit.column(statistic.name).drop_null().to_numpy()
        file = pictures.add(f"distribution-{statistic.name}", figures.histogram(values, figure["q50"]))
        caption = statistic.label + (f"; unit: {statistic.unit}" if statistic.unit else "")
        plots.append({"name": statistic.name, "caption": caption, "file": file})
    return plots


def _described(audit: Audit) -> list[tuple[Statistic, dict[str, Any]]]:
    """The statistics that have values, with their figures."""
    found = ((statistic, audit.summary["statistics"][name]) for name, statistic in SCALARS.items())
    return [(statistic, figure) for statistic, figure in found if figure["count"]]


def _tables(audit: Audit) -> dict[str, Any]:
    """The tables of figures, as text."""
    slices = audit.slices.filter(pc.equal(audit.slices["column"], "label"))
    by_label: dict[str, dict[str, Any]] = {}
    for row in slices.to_pylist():
        by_label.setdefault(row["value"], {})[row["statistic"]] = row
    label_rows = []
    for label, found in list(by_label.items())[:SHOWN_LABELS]:
        count = max(row["count"] for row in found.values())
        means = (_number(found.get(name, {}).get("mean")) for name in LABEL_MEANS)
        label_rows.append([label, f"{count:,}", *means])
    return {
        "figure_columns": COLUMNS.values(),
        "figures": [
            [statistic.name, *(_number(figure[key]) for key in COLUMNS)]
            for statistic, figure in _described(audit)
        ],
        "label_columns": ["label", "images", *(f"mean {name}" for name in LABEL_MEANS)],
        "label_rows": label_rows,
    }


def _number(value: float | None) -> str:
    """Four digits, or a dash for what is not known."""
    if value is None or np.isnan(value):
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _scale(scale: Any) -> str:
    return scale if isinstance(scale, str) else json.dumps(scale)


def _short(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]
