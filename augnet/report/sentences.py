"""What an audit found, in sentences; the command line and the page say the same."""

from __future__ import annotations

from typing import Any

from augnet.storage.reader import Audit


def output_name(audit: Audit, output: int) -> str:
    """'output 3 (cat)' where a label names the output, else 'output 3'."""
    labels = [label for label, index in audit.run["label_outputs"].items() if index == output]
    return f"output {output} ({labels[0]})" if labels and labels[0] != str(output) else f"output {output}"


def output_names(audit: Audit) -> list[str]:
    """The `output_name` of every output."""
    labels = {index: label for label, index in reversed(audit.run["label_outputs"].items())}
    count = max([audit.run["model"]["output_count"], *(index + 1 for index in labels)])
    named = ((k, labels.get(k, str(k))) for k in range(count))
    return [f"output {k} ({label})" if label != str(k) else f"output {k}" for k, label in named]


def shortcut_sentence(audit: Audit, shortcut: dict[str, Any]) -> str:
    """Where an output leans, by how much, and how much was expected."""
    rows = f"{shortcut['y']} to {shortcut['y'] + shortcut['height'] - 1}"
    columns = f"{shortcut['x']} to {shortcut['x'] + shortcut['width'] - 1}"
    return (
        f"{output_name(audit, shortcut['output'])} leans on rows {rows}, columns {columns}"
        f" ({_corner(audit, shortcut)}): {shortcut['share']:.0%} of its sensitivity lies there, "
        f"{shortcut['expected']:.0%} would be expected"
    )


def findings(audit: Audit) -> list[str]:
    """The sentences worth reading first."""
    lines = [f"possible shortcut: {shortcut_sentence(audit, item)}" for item in audit.summary["shortcuts"]]
    if audit.summary["judged"]:
        lines.append(f"accuracy {audit.summary['accuracy']:.1%} on {audit.summary['judged']} labelled images")
    if audit.triage["rows"]:
        lines.append(audit.triage["sentence"])
    lines += audit.summary["doubts"]
    return lines + [
        f"{count} images flagged {flag}" for flag, count in audit.summary["flags"].items() if count
    ]


def _corner(audit: Audit, place: dict[str, Any]) -> str:
    """Where in the picture a window lies, in words."""
    height, width, _ = audit.run["model"]["input_shape"]
    vertical = _third((place["y"] + place["height"] / 2) / height, ("upper", "middle", "lower"))
    horizontal = _third((place["x"] + place["width"] / 2) / width, ("left", "middle", "right"))
    if vertical == horizontal == "middle":
        return "the centre"
    if "middle" in (vertical, horizontal):
        return f"the {vertical if horizontal == 'middle' else horizontal} edge"
    return f"the {vertical} {horizontal} corner"


def _third(share: float, words: tuple[str, str, str]) -> str:
    return words[min(2, int(share * 3))]
