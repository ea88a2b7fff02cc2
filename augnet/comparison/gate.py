"""The gate: rules that decide whether AFTER may take the place of BEFORE, each judged by its interval."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import yaml

from augnet.comparison.differences import Change, quantile_of
from augnet.comparison.pair import Comparison
from augnet.comparison.predictions import Flips
from augnet.errors import ConfigError, did_you_mean
from augnet.statistics.intervals import CONFIDENCE, Interval
from augnet.storage.catalog import SCALARS, statistic_of
from augnet.storage.reader import Audit

Outcome = Literal["passed", "failed", "not enough images"]

DEFAULT_RULES = (
    "accuracy drops 2pp",
    "margin_l2.p50 drops 25%",
    "frobenius.mean rises 40%",
    "negative flips > 5%",
    "new shortcut",
)
"""What is judged where no rule is given. Wide enough that another training seed of the same recipe passes."""

SHARES = ("accuracy", "probability", "border_fraction", "high_frequency_share")
"""What changes by percent points, beside survival."""

MIN_IMAGES = 20
"""Below this, nothing is judged."""
MIN_BEYOND = 5
"""Images that must lie beyond a quantile: below that its resamples say nothing of it."""

GRAMMAR = (
    "is no rule; a rule is 'margin_l2.p05 drops 10%', 'frobenius.mean rises 0.5' (a statistic with mean or "
    "p01 .. p99, drops or rises, and how much: % of the value before, pp for percent points, or a number), "
    "'accuracy drops 0.5pp', 'flips > 2%', 'negative flips > 1%' or 'new shortcut'"
)
_CHANGE = re.compile(
    r"(?P<name>\w+?(_\d([\d.e+-]*\d)?)?)(\.(?P<figure>\w+))?\s+(?P<verb>drops|rises)\s+(?P<much>[\d.]+)\s*(?P<unit>%|pp)?"
)
_FLIPS = re.compile(r"(?P<negative>negative\s+)?flips\s*>\s*(?P<much>[\d.]+)\s*%")


@dataclass(frozen=True)
class Rule:
    """What must not happen.

    Attributes:
        text: as it was given.
        subject: "accuracy", "flips", "negative flips", "shortcut", or a statistic.
        figure: of a statistic.
        verb: "drops", "rises", or "" for a share.
        limit: the largest harmless change; of "%" and "pp" as a fraction.
        relative: whether the limit is a fraction of the value before.
    """

    text: str
    subject: str
    figure: str = ""
    verb: str = ""
    limit: float = 0.0
    relative: bool = False


@dataclass(frozen=True)
class Verdict:
    """What became of a rule.

    Attributes:
        observed: the change from BEFORE to AFTER, or the share; None where it is not a number.
        interval: of it, at CONFIDENCE.
        sentence: all of that in words.
    """

    rule: str
    outcome: Outcome
    sentence: str
    observed: float | None = None
    interval: Interval | None = None


def parse_rule(text: str, source: str = "--fail-if") -> Rule:
    """A rule from its text.

    Args:
        source: where it stands, for the message.

    Raises:
        ConfigError: it is none; the message shows what a rule is.
    """
    words = text.strip()
    if words == "new shortcut":
        return Rule(words, "shortcut")
    try:
        if found := _FLIPS.fullmatch(words):
            subject = "negative flips" if found["negative"] else "flips"
            return Rule(words, subject, limit=float(found["much"]) / 100)
        if found := _CHANGE.fullmatch(words):
            return _change_rule(words, found)
    except ValueError as error:
        raise ConfigError(f"{source}: {text!r}: {error}") from None
    raise ConfigError(f"{source}: {text!r} {GRAMMAR}")


def _change_rule(text: str, found: re.Match[str]) -> Rule:
    name, figure, unit = found["name"], found["figure"] or "", found["unit"]
    if name == "accuracy":
        if figure or unit is None:
            raise ValueError("accuracy has no figures, and changes by % or pp")
    elif not _is_described(name):
        known = ("accuracy", *SCALARS, "survival_SIGMA")
        raise ValueError(f"{name!r} is no statistic; known: {', '.join(known)}{did_you_mean(name, known)}")
    elif quantile_of(figure) is None and figure != "mean":
        raise ValueError("give the statistic's mean or quantile, as in margin_l2.p05")
    elif unit == "pp" and not _is_share(name):
        raise ValueError(f"pp is for shares ({', '.join(SHARES)}, survival_SIGMA); give % or a number")
    return Rule(
        text=text,
        subject=name,
        figure=figure,
        verb=found["verb"],
        limit=float(found["much"]) / (100 if unit else 1),
        relative=unit == "%",
    )


def _is_share(name: str) -> bool:
    return name in SHARES or statistic_of(name).per_noise


def _is_described(name: str) -> bool:
    try:
        return statistic_of(name).is_scalar
    except KeyError:
        return False


def read_rules(path: str) -> list[Rule]:
    """The rules under `fail_if` of a YAML file.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            tree = yaml.safe_load(stream)
    except OSError as error:
        raise ConfigError(f"--rules: cannot read {path!r} ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"--rules: {path!r} is not valid YAML: {error}") from None
    rules = tree.get("fail_if") if isinstance(tree, dict) and len(tree) == 1 else None
    if not rules or not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise ConfigError(
            f"--rules: {path!r} is to hold one key, fail_if, with a list of rules, each a line of text"
        )
    return [parse_rule(rule, f"--rules: {path}") for rule in rules]


def default_rules(before: Audit, after: Audit) -> list[Rule]:
    """DEFAULT_RULES, but for those on what neither audit knows: labels, margins, findings."""
    audits = (before, after)
    rules = [parse_rule(text) for text in DEFAULT_RULES]
    return [rule for rule in rules if any(_knows(audit, rule.subject) for audit in audits)]


def _knows(audit: Audit, subject: str) -> bool:
    if subject == "shortcut":
        return bool(audit.run["config"]["findings"]["enabled"])
    if subject in ("accuracy", "negative flips"):
        return bool(audit.summary["judged"])
    return bool(audit.summary["statistics"][subject]["count"])


def judge(rules: Iterable[Rule], comparison: Comparison) -> list[Verdict]:
    """The verdict of each rule, judged by its interval at CONFIDENCE and not by the figure alone.

    A rule fails where the whole interval lies beyond its limit: the change is surely larger. It passes where
    the whole interval lies within: the change is surely smaller. Between the two, these images cannot tell,
    and "not enough images" is the answer. Of the same audit twice there is nothing to be unsure of.
    """
    return [_judge(rule, comparison) for rule in rules]


def _judge(rule: Rule, comparison: Comparison) -> Verdict:
    if comparison.same:
        return Verdict(rule.text, "passed", "both are the same audit", 0.0, (0.0, 0.0))
    if rule.subject == "shortcut":
        return _judge_shortcut(rule, comparison)
    if rule.subject in ("flips", "negative flips"):
        return _judge_share(rule, comparison.flips)
    if rule.subject == "accuracy":
        return _judge_change(rule, comparison.accuracy)
    statistic = comparison.statistics.get(rule.subject)
    return _judge_change(rule, statistic.changes.get(rule.figure) if statistic else None)


def _judge_shortcut(rule: Rule, comparison: Comparison) -> Verdict:
    found = comparison.findings
    if found.reason:
        return Verdict(rule.text, "not enough images", found.reason)
    if found.new:
        return Verdict(rule.text, "failed", "; ".join(finding["sentence"] for finding in found.new))
    if found.perhaps_new:
        said = "; ".join(finding["sentence"] for finding in found.perhaps_new)
        return Verdict(
            rule.text, "not enough images", f"BEFORE could not have told whether it is new. {said}"
        )
    return Verdict(rule.text, "passed", "none is new")


def _judge_share(rule: Rule, flips: Flips | None) -> Verdict:
    found = flips and (flips.negative if rule.subject == "negative flips" else flips.changed)
    if not found or not found.images:
        return Verdict(rule.text, "not enough images", "no image has such a prediction in both audits")
    said = f"{found.count:,} of {found.images:,} images"
    return _within(rule, found.share, found.interval, said, ".2%")


def _judge_change(rule: Rule, found: Change | None) -> Verdict:
    if found is None:
        return Verdict(rule.text, "not enough images", f"{rule.subject} has no value that both audits know")
    value = found.relative if rule.relative else found.difference
    bounds = found.relative_interval if rule.relative else found.interval
    q = quantile_of(rule.figure) if rule.figure else None
    beyond = found.images if q is None else found.images * min(q, 1 - q)
    said = f"{found.before:.4g} before, {found.after:.4g} after, {found.images:,} images"
    if value is None or bounds is None or found.images < MIN_IMAGES or beyond < MIN_BEYOND:
        return Verdict(rule.text, "not enough images", said, value)
    points = _is_share(rule.subject) and not rule.relative
    return _within(rule, value, bounds, said, "+.2%" if rule.relative else "pp" if points else "+.4g")


def _within(rule: Rule, observed: float, bounds: Interval, said: str, style: str) -> Verdict:
    harm = [-bound if rule.verb == "drops" else bound for bound in bounds]
    outcome: Outcome = "not enough images"
    if min(harm) > rule.limit:
        outcome = "failed"
    elif max(harm) <= rule.limit:
        outcome = "passed"
    shown = [_number(value, style) for value in (observed, *bounds)]
    sentence = f"{shown[0]} ({CONFIDENCE:.0%} interval {shown[1]} to {shown[2]}); {said}"
    return Verdict(rule.text, outcome, sentence, observed, bounds)


def _number(value: float, style: str) -> str:
    """A value in a format, or in percent points where that is "pp"."""
    return f"{100 * value:+.2f} pp" if style == "pp" else format(value, style)


def exit_status(verdicts: Sequence[Verdict]) -> int:
    """0: every rule passed. 1: one failed. 3: none failed, but of one there are not enough images to tell."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return 1 if "failed" in outcomes else 3 if "not enough images" in outcomes else 0
