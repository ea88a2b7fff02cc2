"""The first screen: what an audit found, in plain words, with its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from augnet.report.sentences import capitalized, nothing_found, space
from augnet.storage.reader import Audit

NAMED_FINDINGS = 3


def headline(audit: Audit, findings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sentences by what they are about: images, what stands out, other facts, what was guessed.

    Args:
        findings: as of `evidence.shown_findings`.
    """
    confirmed = [item for item in findings if item["confirmed"]]
    return {
        "images": _images(audit),
        "stands_out": [item["sentence"] for item in confirmed[:NAMED_FINDINGS]],
        "nothing": "" if confirmed else capitalized(nothing_found(audit)),
        "more": len(confirmed[NAMED_FINDINGS:]),
        "confirmed": len(confirmed),
        "facts": [*_predictions(audit), *_flags(audit)],
        "guessed": list(audit.run["preprocess"]["warnings"]),
    }


def suggestions(audit: Audit) -> list[dict[str, Any]]:
    """Selections of images that are worth opening first: their names, and the filters that make them."""
    known = {name for name, figures in audit.summary["statistics"].items() if figures["count"]}
    judged = audit.summary["judged"]
    right = {"correct": "right"} if judged else {}
    found: list[tuple[str, str, dict[str, str]]] = []
    if "margin_l2" in known:
        name = "Right, but nearest to a boundary" if judged else "Nearest to a decision boundary"
        found.append((name, "margin_l2", {"order": "lowest", **right}))
    if audit.summary["wrong"]:
        found.append(("Wrong, most certain first", "probability", {"order": "highest", "correct": "wrong"}))
    if any(audit.summary["flags"].values()):
        found.append(("Flagged", "frobenius", {"order": "highest", "flag": "any"}))
    if "border_fraction" in known:
        found.append(("Largest border share", "border_fraction", {"order": "highest"}))
    if "frobenius" in known:
        found.append(("Most sensitive", "frobenius", {"order": "highest"}))
    return [{"name": name, "filters": {"sort": sort, **filters}} for name, sort, filters in found]


def _images(audit: Audit) -> str:
    counts = audit.counts
    failed = f"{counts['failed']:,} of {counts['planned']:,} failed" if counts["failed"] else "none failed"
    return f"{counts['audited']:,} images were audited; {failed}."


def _predictions(audit: Audit) -> list[str]:
    summary, sentences = audit.summary, []
    if summary["judged"]:
        sentences.append(
            f"{summary['accuracy']:.1%} of the {summary['judged']:,} images with a known label are predicted "
            f"right; {summary['wrong']:,} are wrong."
        )
    margin = summary["statistics"].get("margin_l2", {})
    if margin.get("count"):
        sentences.append(
            f"Half of the images are nearer than {_number(margin['q50'])} to a decision boundary, and one in "
            f"twenty nearer than {_number(margin['q05'])} (l2, in units of the {space(audit)})."
        )
    changed = [f"{summary[name]:,} were {name}" for name in ("resized", "recolored") if summary[name]]
    return [*sentences, *([f"On the way in, {' and '.join(changed)}."] if changed else [])]


def _flags(audit: Audit) -> list[str]:
    raised = [
        f"{count:,} {flag.replace('_', ' ')}" for flag, count in audit.summary["flags"].items() if count
    ]
    return [f"Images flagged: {', '.join(raised)}." if raised else "No image is flagged."]


def _number(value: float) -> str:
    """Three digits, or every digit before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
