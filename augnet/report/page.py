"""The HTML page of an audit, rendered from its files alone."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined

from augnet.report import figures
from augnet.report.sentences import control_sentences, output_name, shortcut_sentence
from augnet.storage import names
from augnet.storage.catalog import SCALARS, Statistic
from augnet.storage.reader import Audit

SHOWN_MAPS = 30
SHOWN_FAILURES = 50
SHOWN_LABELS = 50
SHOWN_REVIEW = 20

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
}
"""Figure of a statistic -> its heading in the table."""


def render(audit: Audit) -> str:
    """Write report/index.html and its pictures; the same files give the same bytes.

    Returns:
        The page's full path.
    """
    failures = audit.failures.select(["image_id", "stage", "error"])
    page = _template().render(
        shortcuts=_shortcuts(audit),
        maps=_output_maps(audit),
        label_maps=_label_maps(audit),
        mean_image=_save(audit, "mean-image", figures.picture(_mean_picture(audit))),
        map_note=_map_note(audit),
        galleries=_galleries(audit),
        plots=_plots(audit),
        failures=[list(row.values()) for row in failures.slice(0, SHOWN_FAILURES).to_pylist()],
        **_texts(audit),
        **_tables(audit),
        **_triage(audit),
    )
    audit.folder.write_bytes(names.REPORT, page.encode())
    return audit.folder.path(names.REPORT)


def _save(audit: Audit, name: str, data: bytes) -> str:
    """Write a PNG beside the page, under a name that holds nothing of the data; returns its address."""
    audit.folder.write_bytes(f"{names.REPORT_FOLDER}/{name}.png", data)
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
    sizes, scale = f"{height} x {width} x {channels} inputs", preprocess["scale"]
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
        ("with respect to", f"{sizes}, per unit of {units}"),
        ("scale", f"{scale if isinstance(scale, str) else json.dumps(scale)}. {preprocess['reason']}"),
        ("labels", run["label_rule"]),
        ("stored", "{jacobians} rows, {format}, {dtype}".format(**config["store"])),
        ("fingerprint", run["fingerprint"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(run["versions"].items()))),
    ]
    title = config["model"]["path"].rstrip("/").rsplit("/", 1)[-1]
    return {
        "title": title,
        "counts": counts,
        "cards": cards,
        "details": details,
        "control": control_sentences(audit),
        "doubts": [*preprocess["warnings"], *summary["doubts"]],
        "model_text": f"Model {title}: {model['output_count']} outputs, {sizes}.",
        "images_text": f"Images {config['images']['path']}: {counts['planned']:,} planned.",
    }


def _shortcuts(audit: Audit) -> list[dict[str, Any]]:
    """Each flagged output: its sentence, its map with the place outlined, and the images that show it."""
    items = []
    for item in audit.summary["shortcuts"]:
        name, share = output_name(audit, item["output"]), audit.maps["share"][item["output"]]
        cells = np.tile(np.array(share.shape) / audit.run["model"]["input_shape"][:2], 2)
        window = np.array([item[side] for side in ("y", "x", "height", "width")])
        top, left, height, width = np.rint(window * cells).astype(int).tolist()
        picture = figures.heat_map(share, _mean_picture(audit), (top, left, top + height, left + width))
        shown = ", ".join(image["image_id"] for image in item["images"])
        text = f"{shortcut_sentence(audit, item)}. The images that show it most: {shown}"
        file = _save(audit, f"shortcut-{item['output']}", picture)
        items.append({"name": name, "text": text, "map": file})
    return items


def _output_maps(audit: Audit) -> list[dict[str, str]]:
    counts, maps = audit.maps["count"], audit.maps["mean_abs"]
    frequent = np.argsort(-counts, kind="stable")[: min(SHOWN_MAPS, np.count_nonzero(counts))]
    return [_tile(audit, f"output-{k}", output_name(audit, k), maps[k]) for k in sorted(frequent.tolist())]


def _label_maps(audit: Audit) -> list[dict[str, str]]:
    if "label_mean_abs" not in audit.maps:
        return []
    labels, maps = audit.run["labels"], audit.maps["label_mean_abs"]
    seen = np.flatnonzero(audit.maps["label_count"])[:SHOWN_MAPS].tolist()
    return [_tile(audit, f"label-{k}", f"label {labels[k]}", maps[k]) for k in seen]


def _tile(audit: Audit, file: str, name: str, maps: np.ndarray) -> dict[str, str]:
    """One map (height, width, channel), drawn over the mean image, and its mean per pixel."""
    magnitude = figures.over_channels(maps)
    picture = figures.heat_map(magnitude, _mean_picture(audit))
    return {"name": name, "file": _save(audit, file, picture), "mean": _number(float(magnitude.mean()))}


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


def _galleries(audit: Audit) -> list[dict[str, Any]]:
    """The pictures at both ends of a statistic, the end that deserves a look first."""
    galleries = []
    for name, (title, noun, note) in GALLERIES.items():
        ends = {"lowest": f"Smallest {noun}", "highest": f"Largest {noun}"}
        shown = [
            {"title": heading, "images": _exhibits(audit, name, end)}
            for end, heading in sorted(ends.items(), key=lambda item: item[0] != SCALARS[name].worst)
            if audit.summary["extremes"][name][end] and f"{name}.{end}.value" in audit.gallery
        ]
        if shown:
            text = f"{name} is {SCALARS[name].meaning}.{note}"
            galleries.append({"statistic": name, "title": title, "text": text, "ends": shown})
    return galleries


def _exhibits(audit: Audit, statistic: str, end: str) -> list[dict[str, str]]:
    parts = (
        audit.gallery[f"{statistic}.{end}.{part}"] for part in ("image_id", "value", "thumbnail", "heat")
    )
    exhibits = []
    for number, (image_id, value, thumbnail, heat) in enumerate(zip(*parts, strict=True)):
        file = f"{statistic}-{end}-{number}"
        exhibit = {"image_id": str(image_id), "value": f"{statistic} {_number(float(value))}", "heat": ""}
        exhibit["picture"] = _save(audit, file, figures.picture(thumbnail))
        if not np.isnan(heat).any():  # as it is where the predicted row was not computed
            exhibit["heat"] = _save(audit, f"{file}-heat", figures.heat_map(heat, thumbnail))
        exhibits.append(exhibit)
    return exhibits


def _plots(audit: Audit) -> list[dict[str, str]]:
    plots = []
    for statistic, figure in _described(audit):
        values = audit.column(statistic.name).drop_null().to_numpy()
        file = _save(audit, f"distribution-{statistic.name}", figures.histogram(values, figure["q50"]))
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
    described = _described(audit)
    return {
        "figure_columns": ["statistic", *COLUMNS.values()],
        "figures": [[kind.name, *(_number(figure[key]) for key in COLUMNS)] for kind, figure in described],
        "label_columns": ["label", "images", *(f"mean {name}" for name in LABEL_MEANS)],
        "label_rows": label_rows,
    }


def _triage(audit: Audit) -> dict[str, Any]:
    """What tells wrong predictions, and the first images to review."""
    found = audit.triage
    scores = [
        [
            f"{row['statistic']}, {row['end']}",
            *(_number(row[area]) for area in ("auroc", "aurc")),
            *("{:.4g} to {:.4g}".format(*row[f"{area}_interval"]) for area in ("auroc", "aurc")),
            "no" if row["baseline"] else "yes",
        ]
        for row in found["rows"]
    ]
    review = [
        [row["image_id"], str(row["predicted"]), row["label"] or "\u2013", _number(row["score"])]
        for row in found["review"][:SHOWN_REVIEW]
    ]
    return {"triage": found, "triage_rows": scores, "review_rows": review}


def _number(value: float | None) -> str:
    """Four digits, or a dash for what is not known."""
    if value is None or np.isnan(value):
        return "\u2013"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
