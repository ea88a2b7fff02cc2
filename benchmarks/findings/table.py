"""The results as tables: what was named, what was false, beside the baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import binomtest

from benchmarks.findings.scoring import Score, is_control, is_used
from benchmarks.findings.spec import KINDS

AUDIT, GRADIENTS = "augnet audit", "gradients only"
STRONG = 0.5
GROUPS = {
    "kind": "{}",
    "network": "{} network",
    "strength": "{:.0%} of the class",
    "size": "{0} x {0} pixels",
    "data": "{}",
}
"""Keys of a case, and how a row names a value."""


@dataclass(frozen=True)
class Result:
    """One case and, by method (AUDIT or a baseline), how its findings scored."""

    case: dict[str, Any]
    scores: dict[str, Score]


def tables(results: Sequence[Result]) -> list[str]:
    """Lines of Markdown; cases that are neither used nor a control count nowhere."""
    used = [result for result in results if is_used(result.case)]
    controls = [result for result in results if is_control(result.case)]
    return [*_by_method(used, controls), "", *_by_group(used, controls)]


def _by_method(used: Sequence[Result], controls: Sequence[Result]) -> list[str]:
    strong = [result for result in used if result.case["effect"] > STRONG]
    clean, everywhere = ([r for r in controls if r.case["kind"] == kind] for kind in ("clean", "all_classes"))
    lines = [
        f"| method | used shortcuts named | of those with an effect above {STRONG:.0%} "
        "| clean models with a false finding | with it in all classes | false findings | true, but not it |",
        "|---|---|---|---|---|---|---|",
    ]
    methods = (used or controls)[0].scores if used or controls else ()
    for method in methods:
        scores = [result.scores[method] for result in (*used, *controls)]
        false, true_too = sum(score.false for score in scores), sum(score.true_too for score in scores)
        cells = [
            _rate_with_interval(used, _named(method)),
            _rate(strong, _named(method)),
            _rate_with_interval(clean, _flagged(method)),
            _rate(everywhere, _flagged(method)),
            _share(false, sum(score.right for score in scores) + true_too + false),
            str(true_too),
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def _by_group(used: Sequence[Result], controls: Sequence[Result]) -> list[str]:
    lines = [
        f"| cases | named by {AUDIT} | named by {GRADIENTS} | controls with a false finding |",
        "|---|---|---|---|",
    ]
    for key, wording in GROUPS.items():
        values = {result.case[key] for result in used}
        for value in sorted(values, key=KINDS.index if key == "kind" else None):
            chosen = [result for result in used if result.case[key] == value]
            flagged = [result for result in controls if result.case[key] == value]
            cells = [
                _rate(chosen, _named(AUDIT)),
                _rate(chosen, _named(GRADIENTS)),
                _rate(flagged, _flagged(AUDIT)),
            ]
            lines.append(f"| {wording.format(value)} | {' | '.join(cells)} |")
    return lines


def _named(method: str) -> Callable[[Result], bool]:
    return lambda result: result.scores[method].named


def _flagged(method: str) -> Callable[[Result], bool]:
    return lambda result: result.scores[method].false > 0


def _rate(results: Sequence[Result], holds: Callable[[Result], bool]) -> str:
    return _share(sum(map(holds, results)), len(results))


def _rate_with_interval(results: Sequence[Result], holds: Callable[[Result], bool]) -> str:
    if not results:
        return ""
    count = sum(map(holds, results))
    interval = binomtest(count, len(results)).proportion_ci(method="wilson")
    return f"{_share(count, len(results))} ({interval.low:.0%} to {interval.high:.0%})"


def _share(count: int, total: int) -> str:
    return f"{count} of {total}, {count / total:.0%}" if total else ""
