"""What an audit found, in sentences; the command line and the page say the same."""

from __future__ import annotations

from typing import Any

from augnet.findings.words import output_name
from augnet.statistics.sample import MIN_IMAGES
from augnet.storage.reader import Audit


def output_names(audit: Audit) -> list[str]:
    """What every output is called in sentences."""
    labels = {index: label for label, index in reversed(audit.run["label_outputs"].items())}
    count = max([audit.run["model"]["output_count"], *(index + 1 for index in labels)])
    return [output_name(k, labels.get(k)) for k in range(count)]


def findings(audit: Audit) -> list[str]:
    """The sentences worth reading first."""
    lines = [f"{item['sentence']} (effect {effect_text(item)})" for item in audit.findings["confirmed"]]
    lines = lines or [nothing_found(audit)]
    if audit.summary["judged"]:
        lines.append(f"accuracy {audit.summary['accuracy']:.1%} on {audit.summary['judged']} labelled images")
    if audit.triage["rows"]:
        lines.append(audit.triage["sentence"])
    lines += audit.findings["doubts"]
    return lines + [
        f"{count} images flagged {flag}" for flag, count in audit.summary["flags"].items() if count
    ]


def effect_text(finding: dict[str, Any]) -> str:
    """'68 points, 95 % interval 61 to 75'; in standard deviations for a regression."""
    unit = finding["unit"]
    low, high = (_number(value, unit) for value in finding["interval"])
    return f"{amount_text(finding['effect'], unit)} over its controls, 95 % interval {low} to {high}"


def amount_text(value: float, unit: str) -> str:
    """A share of the way to another prediction in points, anything else in its unit."""
    return f"{_number(value, unit)} {'points' if unit == 'predictions' else unit}"


def _number(value: float, unit: str) -> str:
    value = round(value, 2) + 0.0  # no -0
    return f"{100 * value:.0f}" if unit == "predictions" else f"{value:.2f}"


def nothing_found(audit: Audit) -> str:
    """That nothing is leaned on, and how small an effect would have been seen."""
    tried = audit.findings["tried"]
    if not tried:
        if not audit.run["config"]["findings"]["enabled"]:
            return "nothing was tried of what the model may lean on (findings.enabled)"
        return (
            f"nothing was tried of what the model may lean on: that takes {MIN_IMAGES} images of a "
            f"prediction, and {MIN_IMAGES} of others"
        )
    kinds: dict[str, list[str]] = {}
    for entry in sorted(tried, key=lambda entry: entry["smallest_effect"]):
        kinds.setdefault(f"{entry['smallest_effect']:.0%}", []).append(entry["kind"])
    seen = ", ".join(f"{smallest} ({', '.join(names)})" for smallest, names in kinds.items())
    count = sum(entry["candidates"] for entry in tried)
    return (
        f"nothing found that an output leans on: {count} places and properties were tried; effects from "
        f"these sizes on would have been seen: {seen}"
    )


def space(audit: Audit) -> str:
    """What figures per unit of input are per unit of."""
    return "0..255 pixel" if audit.run["config"]["jacobian"]["input_space"] == "pixel" else "model input"


def capitalized(text: str) -> str:
    """A sentence with a capital and a full stop."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
