"""The findings of an audit, each with its evidence, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augnet.report.sentences import shortcut_sentence
from augnet.storage import names
from augnet.storage.reader import Audit

FINDINGS, CONTROL = "findings.json", "control.json"
"""What may lie beside the figures: an audit has them or not."""


def read_findings(audit: Audit) -> dict[str, Any]:
    """findings.json; of an audit without one, the places that gradients show, none of them confirmed."""
    if audit.folder.exists(FINDINGS):
        return audit.folder.read_json(FINDINGS)
    seen = [_place(audit, item) for item in audit.summary.get("shortcuts", [])]
    return {"confirmed": [], "looks_at": seen, "tried": [], "doubts": audit.summary.get("doubts", [])}


def shown_findings(findings: dict[str, Any], outputs: Sequence[str]) -> list[dict[str, Any]]:
    """Every finding for the template, the confirmed first.

    Args:
        outputs: their names.
    """
    shown = []
    for kind, certain in (("confirmed", True), ("looks_at", False)):
        for item in findings.get(kind, []):
            shown.append(
                {
                    "confirmed": certain,
                    "output": item["output"],
                    "name": outputs[item["output"]],
                    "kind": item["kind"],
                    "sentence": _sentence(item["sentence"]),
                    "places": item["places"],
                    "figures": _figures(item),
                    "images": item["images"],
                }
            )
    return shown


def power(tried: Sequence[dict[str, Any]]) -> list[str]:
    """What was tried, and what would have been seen."""
    return [
        f"{item['kind']}: {item['candidates']:,} candidates; an effect below {item['smallest_effect']:.2g} "
        "would have gone unseen"
        for item in tried
    ]


def triage(audit: Audit, findings: dict[str, Any]) -> dict[str, Any]:
    """How well statistics tell wrong predictions from right ones: a sentence, rows, and images to review."""
    found = findings.get("triage")
    if found is None and audit.folder.exists(names.TRIAGE):
        found = audit.triage
    found = found if isinstance(found, dict) else {"rows": found or []}
    rows = [
        {
            "statistic": row["statistic"],
            "end": row.get("end", ""),
            "auroc": f"{row['auroc']:.3f}",
            "interval": _interval(row.get("auroc_interval") or row.get("interval"), ".3f"),
            "sentence": row.get("sentence", ""),
        }
        for row in found["rows"]
    ]
    review = [row["image_id"] for row in found.get("review", [])]
    return {"sentence": found.get("sentence", ""), "rows": rows, "review": review}


def control(audit: Audit) -> list[str]:
    """What a control with random weights beside the audit says of it; nothing where there is none."""
    return audit.folder.read_json(CONTROL)["sentences"] if audit.folder.exists(CONTROL) else []


def _place(audit: Audit, shortcut: dict[str, Any]) -> dict[str, Any]:
    """A flag of the gradients in the form of a finding."""
    return {
        "kind": "place",
        "output": shortcut["output"],
        "places": [{side: shortcut[side] for side in ("y", "x", "height", "width")}],
        "images": shortcut["images"],
        "sentence": shortcut_sentence(audit, shortcut),
    }


def _figures(item: dict[str, Any]) -> list[tuple[str, str]]:
    """What the intervention gave, in words and numbers; nothing for a finding of gradients alone."""
    figures = []
    unit = item.get("unit", "")
    if item.get("effect") is not None:
        figures.append(
            ("effect", f"{_amount(item['effect'], unit)} {_interval(item.get('interval'), '.2f')}")
        )
    for key, words in (("changed", "with the intervention"), ("control", "with the matched control")):
        if item.get(key) is not None:
            figures.append((words, _amount(item[key], unit)))
    if item.get("q_value") is not None:
        figures.append(("false discovery rate", f"{item['q_value']:.2g}"))
    if item.get("donors") is not None:
        figures.append(("images", f"{item['donors']} donors, {item['receivers']} receivers"))
    return figures


def _amount(value: float, unit: str) -> str:
    """A share of predictions in per cent, anything else in its unit."""
    return f"{value:.0%} of the predictions" if unit == "predictions" else f"{value:.2f} {unit}".strip()


def _interval(interval: Sequence[float] | None, digits: str) -> str:
    return f"({interval[0]:{digits}} to {interval[1]:{digits}})" if interval else ""


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
