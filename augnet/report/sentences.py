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
    values = (finding["effect"], *finding["interval"])
    if finding["unit"] == "predictions":
        effect, low, high = (f"{100 * value:.0f}" for value in values)
        return f"{effect} points over its controls, 95 % interval {low} to {high}"
    effect, low, high = (f"{value:.2f}" for value in values)
    return f"{effect} {finding['unit']} over its controls, 95 % interval {low} to {high}"


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
