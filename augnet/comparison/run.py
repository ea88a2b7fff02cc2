"""`augnet compare`: two or more finished audits compared, judged and written down."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from augnet.comparison.control import (
    ControlVerdict,
    control_verdict,
    is_control,
    is_control_of,
    refuse_stranger,
)
from augnet.comparison.documents import headline, open_output, sentences, write_documents
from augnet.comparison.gate import Rule, Verdict, default_rules, exit_status, judge
from augnet.comparison.join import refuse_incomparable
from augnet.comparison.page import render
from augnet.comparison.pair import Comparison, compare_pair
from augnet.comparison.series import Series, compare_series
from augnet.storage.reader import Audit


@dataclass(frozen=True)
class Outcome:
    """What `compare` found.

    Attributes:
        comparison: of the first audit and the last.
        series: of three and more audits.
        control: where one of the two is the other's control.
        page: its path, "" where nothing was written.
        status: the exit status, see `exit_status`.
        lines: all of it in words.
    """

    comparison: Comparison
    series: Series | None
    control: ControlVerdict | None
    verdicts: list[Verdict]
    page: str
    status: int
    lines: list[str]


def compare(paths: Sequence[str], rules: Sequence[Rule] = (), output: str | None = None) -> Outcome:
    """Compare finished audits: the first with the last, and three and more as a series.

    Args:
        paths: folders of the audits, in order.
        rules: of the gate; none: those of `default_rules`, unless one is a control of the other, or both are
            controls.
        output: folder to write to; None writes nothing.

    Raises:
        AuditError: a folder holds no finished audit, or a damaged one.
        ConfigError: the audits' figures are not of one kind, or `output` holds something else.
    """
    audits = [Audit.open(path) for path in paths]
    folder = None if output is None else open_output(output, audits)
    before, after = audits[0], audits[-1]
    refuse_incomparable(before, after)
    control = _control_of(before, after)
    if not rules and control is None:
        rules = default_rules(before, after)
    figures: dict[str, set[str]] = defaultdict(set)
    for rule in rules:
        if rule.figure:
            figures[rule.subject].add(rule.figure)
    comparison = compare_pair(before, after, figures)
    series = compare_series(audits) if len(audits) > 2 else None
    verdicts = judge(rules, comparison)
    page = ""
    if folder is not None:
        write_documents(folder, comparison, verdicts, control, series)
        page = render(folder, comparison, verdicts, control, series, audits)
    lines = [*sentences(comparison, control), *(_line(verdict) for verdict in verdicts), headline(verdicts)]
    return Outcome(comparison, series, control, verdicts, page, exit_status(verdicts), lines)


def _control_of(before: Audit, after: Audit) -> ControlVerdict | None:
    if is_control_of(after, before):
        return control_verdict(before, after)
    if is_control_of(before, after):
        return control_verdict(after, before)
    if is_control(before) and is_control(after):
        return control_verdict(before, after)
    for control, trained in ((before, after), (after, before)):
        if is_control(control):
            refuse_stranger(control, trained)
    return None


def _line(verdict: Verdict) -> str:
    return f"{verdict.outcome}: {verdict.rule}: {verdict.sentence}"
