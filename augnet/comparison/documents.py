"""What a comparison writes beside its page: JSON with everything, tables, JUnit XML, a Markdown summary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa

from augnet.comparison.bootstrap import RESAMPLES
from augnet.comparison.control import ControlVerdict
from augnet.comparison.differences import Change
from augnet.comparison.gate import Verdict
from augnet.comparison.pair import Comparison
from augnet.comparison.series import Series, most_varied, variance_table
from augnet.errors import ConfigError
from augnet.statistics.intervals import CONFIDENCE
from augnet.storage import schema
from augnet.storage.files import OutputFolder
from augnet.storage.reader import Audit
from augnet.storage.shards import write_table

COMPARISON, JUNIT, MARKDOWN, PAGE = "comparison.json", "junit.xml", "summary.md", "index.html"
TOLD = ("margin_l2", "frobenius")
"""Statistics whose change is told in words."""
SLICES, VARIANCE = "slices.parquet", "gradient_variance.parquet"
WRITTEN = {COMPARISON, JUNIT, MARKDOWN, PAGE, SLICES, VARIANCE}


def open_output(path: str, audits: Iterable[Audit]) -> OutputFolder:
    """The folder to write a comparison to, new, empty or with an earlier one.

    Raises:
        ConfigError: it may not be written to, lies in one of the audits, or holds other files.
    """
    folder = OutputFolder(path)
    folder.refuse_unwritable()
    place = folder.path("")
    if inside := [audit for audit in audits if place.startswith(audit.folder.path(""))]:
        raise ConfigError(f"output: {folder} is a part of the audit {inside[0].folder}; give another folder")
    if strange := next((name for name in folder.entries() if name not in WRITTEN), None):
        raise ConfigError(
            f"output: {folder} holds other files ({strange!r}, ...); give a new or empty folder"
        )
    return folder


def write_documents(
    folder: OutputFolder,
    comparison: Comparison,
    verdicts: Sequence[Verdict],
    control: ControlVerdict | None,
    series: Series | None,
) -> None:
    """Write everything but the page; the same audits and rules give the same bytes."""
    tree = as_tree(comparison, verdicts, control)
    folder.remove(VARIANCE)  # of an earlier comparison
    if series:
        tree["series"] = _series_tree(series, comparison.before)
        if series.variance:
            with folder.writing(VARIANCE) as path:
                write_table(path, variance_table(comparison.before, series.variance))
    folder.write_json(COMPARISON, tree)
    with folder.writing(SLICES) as path:
        write_table(path, pa.Table.from_pylist(comparison.slices, schema.SLICE_CHANGES))
    folder.write_bytes(JUNIT, junit(verdicts))
    folder.write_bytes(MARKDOWN, markdown(comparison, verdicts, control).encode())


def as_tree(
    comparison: Comparison, verdicts: Sequence[Verdict], control: ControlVerdict | None
) -> dict[str, Any]:
    """Everything that was compared, as plain JSON values; slices are in a table of their own."""
    images, outputs = comparison.images, comparison.outputs
    return {
        "before": _audit_tree(comparison.before),
        "after": _audit_tree(comparison.after),
        "same": comparison.same,
        "notes": comparison.notes,
        "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE},
        "images": {
            "both": len(images),
            "only_before": images.only_before,
            "only_after": images.only_after,
            "listed_before": list(images.listed_before),
            "listed_after": list(images.listed_after),
            "relabelled": images.relabelled,
        },
        "outputs": asdict(outputs),
        "accuracy": comparison.accuracy and asdict(comparison.accuracy),
        "flips": comparison.flips and asdict(comparison.flips),
        "statistics": {name: asdict(found) for name, found in comparison.statistics.items()},
        "jacobians": asdict(comparison.jacobians),
        "findings": asdict(comparison.findings),
        "control": control and asdict(control),
        "gate": [asdict(verdict) for verdict in verdicts],
    }


def _audit_tree(audit: Audit) -> dict[str, Any]:
    run = audit.run
    return {
        "folder": str(audit.folder),
        "fingerprint": run["fingerprint"],
        "model": run["config"]["model"]["path"],
        "images": run["config"]["images"]["path"],
        "control_of": run.get("control_of"),
        "counts": audit.counts,
    }


def _series_tree(series: Series, first: Audit) -> dict[str, Any]:
    tree = {key: part for key, part in vars(series).items() if key != "variance"}
    varied = series.variance and {
        "images": len(series.variance.value),
        "mean": float(series.variance.value.mean()),
        "most": most_varied(first, series.variance),
    }
    return tree | {"variance": varied}


def junit(verdicts: Sequence[Verdict]) -> bytes:
    """One test case for each rule; "not enough images" is an error, not a failure."""
    failed = sum(verdict.outcome == "failed" for verdict in verdicts)
    unsure = sum(verdict.outcome == "not enough images" for verdict in verdicts)
    counts = {"tests": str(len(verdicts)), "failures": str(failed), "errors": str(unsure)}
    suite = ElementTree.Element("testsuite", {"name": "augnet compare"} | counts)
    for verdict in verdicts:
        case = ElementTree.SubElement(
            suite, "testcase", classname="augnet.compare", name=_xml_text(verdict.rule)
        )
        if verdict.outcome == "passed":
            ElementTree.SubElement(case, "system-out").text = _xml_text(verdict.sentence)
        else:
            kind = "failure" if verdict.outcome == "failed" else "error"
            ElementTree.SubElement(case, kind, type=verdict.outcome, message=_xml_text(verdict.sentence))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n"


def _xml_text(text: str) -> str:
    """Without the control characters that XML has no way to write."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


SIGNS = {"passed": "passed", "failed": "**failed**", "not enough images": "**not enough images**"}


def markdown(comparison: Comparison, verdicts: Sequence[Verdict], control: ControlVerdict | None) -> str:
    """The summary for a pull request."""
    lines = ["## augnet compare", "", headline(verdicts), ""]
    if verdicts:
        lines += ["| rule | outcome | found |", "|---|---|---|"]
        lines += [
            f"| {_cell(verdict.rule)} | {SIGNS[verdict.outcome]} | {_cell(verdict.sentence)} |"
            for verdict in verdicts
        ]
        lines.append("")
    lines += [f"- {_cell(sentence)}" for sentence in sentences(comparison, control)]
    lines += [
        "",
        "| statistic | before | after | change | 95 % interval | images worse |",
        "|---|---|---|---|---|---|",
    ]
    for row in figure_rows(comparison):
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def headline(verdicts: Sequence[Verdict]) -> str:
    """'1 of 5 rules failed: accuracy drops 2pp.'"""
    if not verdicts:
        return "No rule was judged."
    for outcome, said in (
        ("failed", "failed"),
        ("not enough images", "could not be judged, as there are not enough images"),
    ):
        rules = [verdict.rule for verdict in verdicts if verdict.outcome == outcome]
        if rules:
            return f"{len(rules)} of {len(verdicts)} rules {said}: {', '.join(rules)}."
    return (
        f"All {len(verdicts)} rules passed." if len(verdicts) > 1 else f"The rule passed: {verdicts[0].rule}."
    )


def sentences(comparison: Comparison, control: ControlVerdict | None) -> list[str]:
    """What changed, in words: the command line, the summary and the page say the same."""
    lines = list(comparison.notes)
    if comparison.same:
        lines.append("Both are the same audit: of one model, config and list of images.")
    if accuracy := comparison.accuracy:
        lines.append(f"Accuracy went from {accuracy.before:.1%} to {accuracy.after:.1%}.")
    for name in TOLD:
        if found := comparison.statistics.get(name):
            lines.append(_change_sentence(name, found.changes["mean"]))
    if flips := comparison.flips:
        lines.append(
            f"{flips.changed.count:,} of {flips.changed.images:,} predictions changed: "
            f"{flips.negative.count:,} from right to wrong, {flips.positive.count:,} from wrong to right."
        )
    agreement = comparison.jacobians
    if agreement.cosine and agreement.correlation:
        lines.append(
            f"Jacobians of {agreement.images:,} images: mean cosine {agreement.cosine['mean']:.3f}, mean "
            f"rank correlation of the maps of the prediction {agreement.correlation['mean']:.3f}."
        )
    elif agreement.reason:
        lines.append(f"Jacobians were not compared: {agreement.reason}.")
    findings = comparison.findings
    for word, items in (
        ("new", findings.new),
        ("perhaps new", findings.perhaps_new),
        ("gone", findings.gone),
        ("perhaps gone", findings.perhaps_gone),
        ("as before", [after for _, after in findings.same]),
    ):
        lines += [f"Shortcut {word}: {item['sentence']}." for item in items]
    if findings.reason:
        lines.append(f"Shortcuts were not compared: {findings.reason}.")
    return lines + (control.sentences if control else [])


def _change_sentence(name: str, change: Change) -> str:
    if change.relative is None or change.relative_interval is None:
        return f"The mean {name} went from {change.before:.4g} to {change.after:.4g}."
    low, high = change.relative_interval
    moved = "is larger" if low > 0 else "is smaller" if high < 0 else "is about the same"
    return (
        f"The mean {name} {moved}: {change.before:.4g} before, {change.after:.4g} after "
        f"({change.relative:+.1%}, {CONFIDENCE:.0%} interval {low:+.1%} to {high:+.1%})."
    )


def figure_rows(comparison: Comparison, figure: str = "mean") -> list[list[str]]:
    """One row for each statistic: name, before, after, change, interval, share of images that got worse."""
    rows = []
    for name, found in comparison.statistics.items():
        change = found.changes[figure]
        relative, bounds, worse = change.relative, change.relative_interval, found.worse
        rows.append(
            [
                name,
                f"{change.before:.4g}",
                f"{change.after:.4g}",
                "" if relative is None else f"{relative:+.1%}",
                "" if bounds is None else f"{bounds[0]:+.1%} to {bounds[1]:+.1%}",
                "" if worse is None else f"{worse['share']:.0%}",
            ]
        )
    return rows


def _cell(text: str) -> str:
    """Text from data as text in a Markdown table: names cannot make markup, links or mentions."""
    plain = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in "\\`*_{}[]<>#|@!" else sign for sign in plain)
