"""Rules are read as they are meant, and judged by their intervals."""

from dataclasses import replace

import pytest
from comparison_helpers import finding, findings, made_audit

from augnet.comparison.differences import Change
from augnet.comparison.gate import (
    DEFAULT_RULES,
    MIN_IMAGES,
    Rule,
    Verdict,
    default_rules,
    exit_status,
    judge,
    parse_rule,
    read_rules,
)
from augnet.comparison.pair import compare_pair
from augnet.comparison.predictions import Flips, Share
from augnet.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("margin_l2.p05 drops 10%", Rule("", "margin_l2", "p05", "drops", 0.1, True)),
        ("frobenius.mean rises 20 %", Rule("", "frobenius", "mean", "rises", 0.2, True)),
        ("frobenius.mean  rises 0.5", Rule("", "frobenius", "mean", "rises", 0.5)),
        ("survival_0.05.p50 drops 5pp", Rule("", "survival_0.05", "p50", "drops", 0.05)),
        ("survival_1e-05.mean drops 5%", Rule("", "survival_1e-05", "mean", "drops", 0.05, True)),
        ("survival_2.mean drops 0.1", Rule("", "survival_2", "mean", "drops", 0.1)),
        ("accuracy drops 0.5pp", Rule("", "accuracy", "", "drops", 0.005)),
        ("accuracy drops 1%", Rule("", "accuracy", "", "drops", 0.01, True)),
        ("flips > 2%", Rule("", "flips", limit=0.02)),
        ("negative flips>1.5%", Rule("", "negative flips", limit=0.015)),
        (" new shortcut ", Rule("", "shortcut")),
    ],
)
def test_a_rule_is_read(text, rule):
    assert parse_rule(text) == replace(rule, text=text.strip())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("margin drops 10%", "'margin' is no statistic; known: accuracy, probability"),
        ("margin_12.p05 drops 10%", "did you mean margin_l2?"),
        (
            "margin_l2.p05 drops 10pp",
            "pp is for shares (accuracy, probability, border_fraction",
        ),
        ("survival.mean drops 10%", "'survival' is no statistic"),
        ("survival_0.05 drops 10%", "'' is no figure; known: mean, p01 .. p99"),
        ("margin_l2 drops 10%", "'' is no figure; known: mean, p01 .. p99"),
        ("margin_l2.p5 drops 10%", "'p5' is no figure"),
        ("margin_l2.p00 drops 10%", "'p00' is no figure"),
        ("accuracy.mean drops 10%", "accuracy has no figures"),
        ("accuracy drops 0.5", "changes by % or pp"),
        ("margin_l2.p05 falls 10%", "is no rule; a rule is 'margin_l2.p05 drops 10%'"),
        ("flips > 2", "is no rule"),
        ("frobenius.mean rises 1.2.3%", "could not convert"),
        ("", "is no rule"),
    ],
)
def test_what_is_no_rule_is_refused(text, said):
    with pytest.raises(ConfigError) as raised:
        parse_rule(text)
    assert said in str(raised.value) and "--fail-if" in str(raised.value)


def test_rules_of_a_file(tmp_path):
    path = tmp_path / "gate.yaml"
    path.write_text("fail_if:\n  - accuracy drops 0.5pp\n  - new shortcut\n")
    assert [rule.subject for rule in read_rules(str(path))] == ["accuracy", "shortcut"]
    wrong = ("fail_if: new shortcut", "- new shortcut", "fail_if: [1]", "rules: []", "fail_if: [", "")
    for text in (*wrong, "fail_if: []", "fail_if: [flips]"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"gate\.yaml"):
            read_rules(str(path))
    with pytest.raises(ConfigError, match="cannot read"):
        read_rules(str(tmp_path / "none.yaml"))


def test_what_neither_audit_knows_is_not_judged_by_default(tmp_path):
    bare = made_audit(tmp_path / "bare", 30, label_outputs={}, columns={"margin_l2": [None] * 30})
    whole = made_audit(tmp_path / "whole", 30, findings=findings())
    assert [rule.text for rule in default_rules(bare, bare)] == ["frobenius.mean rises 40%"]
    for pair in ((whole, bare), (bare, whole), (whole, whole)):
        assert [rule.text for rule in default_rules(*pair)] == list(DEFAULT_RULES)


def test_the_default_rules_are_rules():
    assert [parse_rule(text).text for text in DEFAULT_RULES] == list(DEFAULT_RULES)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gate")
    return compare_pair(made_audit(folder / "before"), made_audit(folder / "after", seed=1))


def with_change(comparison, low, high, images=1000, figure="mean"):
    change = Change(images, 1.0, 1.0, (low + high) / 2, (low, high), (low + high) / 2, (low, high))
    statistic = replace(comparison.statistics["margin_l2"], changes={figure: change})
    return replace(comparison, statistics={"margin_l2": statistic}, accuracy=change)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.30, -0.11, "failed"),
        (-0.30, -0.09, "not enough images"),
        (-0.09, 0.50, "passed"),
        (-0.10, 0.10, "passed"),
        (0.20, 0.40, "passed"),
    ],
)
def test_a_change_is_judged_by_its_interval(comparison, low, high, outcome):
    for text in ("margin_l2.mean drops 10%", "margin_l2.mean drops 0.1", "accuracy drops 10pp"):
        assert judge([parse_rule(text)], with_change(comparison, low, high))[0].outcome == outcome
    for text in ("margin_l2.mean rises 10%", "accuracy rises 10%"):
        assert judge([parse_rule(text)], with_change(comparison, -high, -low))[0].outcome == outcome


def test_too_few_images_are_said_whatever_the_interval(comparison):
    rule = parse_rule("margin_l2.mean drops 10%")
    few = with_change(comparison, -0.9, -0.8, images=MIN_IMAGES - 1)
    assert judge([rule], few)[0].outcome == "not enough images"
    rule = parse_rule("margin_l2.p05 drops 10%")
    for images, outcome in ((99, "not enough images"), (101, "failed")):
        found = with_change(comparison, -0.9, -0.8, images=images, figure="p05")
        assert judge([rule], found)[0].outcome == outcome


def test_a_statistic_without_values_is_not_passed(comparison):
    bare = replace(comparison, statistics={}, accuracy=None, flips=None)
    for text in ("margin_l2.mean drops 10%", "accuracy drops 1pp", "flips > 2%"):
        assert judge([parse_rule(text)], bare)[0].outcome == "not enough images"


@pytest.mark.parametrize(("count", "outcome"), [(5, "passed"), (20, "not enough images"), (60, "failed")])
def test_flips_are_judged(comparison, count, outcome):
    share = Share.of(count, 1000)
    found = replace(comparison, flips=Flips(share, share, share, directions=[], lost=[]))
    for text in ("flips > 2%", "negative flips > 2%"):
        assert judge([parse_rule(text)], found)[0].outcome == outcome


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        (findings(), findings(finding()), "failed"),
        (findings(finding()), findings(finding()), "passed"),
        (findings(finding(y=1)), findings(finding()), "passed"),  # they share a row
        (findings(finding(y=2)), findings(finding()), "failed"),
        (findings(finding(output=1)), findings(finding()), "failed"),
        (findings(), findings(finding(kind="colour")), "failed"),
        (findings(finding()), findings(), "passed"),
        (findings(smallest=0.5), findings(finding()), "not enough images"),
        (findings(looks_at=(finding(low=0.3),)), findings(finding()), "not enough images"),
        (findings(looks_at=(finding(low=0.0),)), findings(finding()), "failed"),
        (None, findings(finding()), "not enough images"),
    ],
)
def test_new_shortcuts_are_judged(tmp_path, before, after, outcome):
    found = compare_pair(
        made_audit(tmp_path / "before", 30, findings=before),
        made_audit(tmp_path / "after", 30, findings=after),
    )
    assert judge([parse_rule("new shortcut")], found)[0].outcome == outcome


def test_findings_follow_outputs_by_name(tmp_path):
    other = {"cow": 0, "bee": 1, "ant": 2}
    found = compare_pair(
        made_audit(tmp_path / "before", 30, findings=findings(finding(output=0))),
        made_audit(tmp_path / "after", 30, findings=findings(finding(output=2)), label_outputs=other),
    ).findings
    assert (len(found.same), found.new, found.gone) == (1, [], [])


def test_the_exit_status_is_that_of_the_worst_verdict():
    passed, failed, unsure = (Verdict("", said, "") for said in ("passed", "failed", "not enough images"))
    assert exit_status([]) == exit_status([passed]) == 0
    assert exit_status([passed, unsure]) == 3
    assert exit_status([unsure, failed, passed]) == 1
