"""The findings of an audit, each with its evidence, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augnet.report.sentences import amount_text, capitalized, effect_text
from augnet.storage import names
from augnet.storage.reader import Audit

LOCAL = ("place", "moving")
"""Kinds that are a part of an image: a map over it shows them; it would hide others, such as colour."""


def shown_findings(findings: dict[str, Any], outputs: Sequence[str]) -> list[dict[str, Any]]:
    """Every finding for the template, the confirmed first.

    Args:
        outputs: their names.
    """
    shown = []
    for kind, certain in (("confirmed", True), ("looks_at", False)):
        for item in findings[kind]:
            shown.append(
                {
                    "confirmed": certain,
                    "output": item["output"],
                    "name": outputs[item["output"]],
                    "kind": item["kind"],
                    "sentence": capitalized(item["sentence"]),
                    "places": item["places"],
                    "local": item["kind"] in LOCAL,
                    "figures": _figures(item),
                    "images": item["images"],
                }
            )
    return shown


def power(tried: Sequence[dict[str, Any]]) -> list[str]:
    """What was tried, and what would have been seen."""
    return [
        f"{item['kind']}: {item['candidates']:,} candidate{'s' * (item['candidates'] != 1)}; an effect below "
        f"{item['smallest_effect']:.2g} would have gone unseen"
        for item in tried
    ]


def triage(audit: Audit) -> dict[str, Any]:
    """How well statistics tell wrong predictions from right ones: a sentence, rows, and images to review."""
    rows = [
        {
            "statistic": row["statistic"],
            "end": row["end"],
            "auroc": f"{row['auroc']:.3f}",
            "interval": _interval(row["auroc_interval"]),
            "baseline": row["baseline"],
        }
        for row in audit.triage["rows"]
    ]
    review = [row["image_id"] for row in audit.triage["review"]]
    return {"sentence": audit.triage["sentence"], "rows": rows, "review": review}


def control(audit: Audit) -> list[str]:
    """What a control with random weights beside the audit says of it; nothing where there is none."""
    exists = audit.folder.exists(names.CONTROL)
    return audit.folder.read_json(names.CONTROL)["sentences"] if exists else []


def _figures(item: dict[str, Any]) -> list[tuple[str, str]]:
    """What the intervention gave, in words and numbers."""
    return [
        ("effect", effect_text(item)),
        ("with the intervention", amount_text(item["changed"], item["unit"])),
        ("with the matched control", amount_text(item["control"], item["unit"])),
        ("false discovery rate", f"{item['q_value']:.2g}" if item["q_value"] >= 1e-6 else "below 1e-6"),
        ("images", f"{item['donors']} donors, {item['receivers']} receivers"),
    ]


def _interval(interval: Sequence[float] | None) -> str:
    return f"({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
