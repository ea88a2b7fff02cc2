"""Error triage on made-up audits whose answer is known, and on a real one."""

import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from augnet.engine import ModelSpec
from augnet.findings import errors
from augnet.findings.errors import MIN_EACH, REVIEWED, triage
from augnet.statistics.confidence import CONFIDENCES
from augnet.storage import schema
from augnet.storage.catalog import SCALARS

FREE = set(CONFIDENCES)


class Audit:
    """Columns of statistics/ in two parts: null but for those given."""

    def __init__(self, **columns):
        n = len(columns["correct"])
        given = {"image_id": [f"{k:05d}.png" for k in range(n)], "predicted": [0] * n} | columns
        arrays = [
            pa.array(given.get(field.name, [None] * n), field.type, from_pandas=True)
            for field in schema.STATISTICS
        ]
        table = pa.table(arrays, schema=schema.STATISTICS)
        self.parts = [table.slice(0, n // 3), table.slice(n // 3)]

    scalars = SCALARS

    def column_parts(self, name):
        return (part[name] for part in self.parts)

    def column(self, name):
        return pa.concat_tables(self.parts)[name]


def run_of(activation="softmax", outputs=3, space="logits", labelled=True):
    model = ModelSpec((1, 1, 1), outputs, activation, space, model_rescales=False)
    return SimpleNamespace(model=model, label_outputs={"a": 0} if labelled else {})


def made(n=600, seed=0, error_rate=0.2, known=0.0, **signals):
    """An audit of a model with three classes whose logits know something of its errors.

    `signals` gives by statistic how far the values of wrong predictions are above those of right ones, in
    standard deviations; `known` the same for the logits.
    """
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < error_rate
    logits = rng.normal(size=(n, 3)) * np.exp(-known * wrong)[:, None]
    columns = {name: rng.normal(size=n) + shift * wrong for name, shift in signals.items()}
    audit = Audit(correct=list(~wrong), outputs=list(logits.astype(np.float32)), **columns)
    return audit, wrong, columns


def by_name(found):
    return {row["statistic"]: row for row in found["rows"]}


def test_a_statistic_that_knows_more_than_the_outputs_is_named():
    audit, wrong, columns = made(frobenius=3.0, gini=-0.5, known=0.5)
    found = triage(audit, run_of())
    json.dumps(found, allow_nan=False)
    assert (found["best"], found["beats_baselines"]) == ("frobenius", True)
    assert (found["errors"], found["judged"]) == (wrong.sum(), 600)
    assert found["sentence"].startswith(f"{wrong.sum()} of 600 judged predictions are wrong. frobenius tells")
    rows = by_name(found)
    assert set(rows) == FREE | {"frobenius", "gini"}
    assert {name for name, row in rows.items() if row["baseline"]} == FREE
    assert [row["auroc"] for row in found["rows"]] == sorted(
        (row["auroc"] for row in found["rows"]), reverse=True
    )
    for row in found["rows"]:
        for area in ("auroc", "aurc"):
            low, high = row[f"{area}_interval"]
            assert low < row[area] < high
    assert (rows["frobenius"]["end"], rows["gini"]["end"]) == ("highest", "lowest")
    order = np.argsort(-columns["frobenius"], kind="stable")[:REVIEWED]
    assert [row["image_id"] for row in found["review"]] == [f"{k:05d}.png" for k in order]
    assert [row["score"] for row in found["review"]] == [columns["frobenius"][k] for k in order]


def test_where_no_statistic_knows_more_the_report_says_so():
    audit, _, _ = made(frobenius=0.3, gini=0.0, known=1.5)
    found = triage(audit, run_of())
    assert not found["beats_baselines"] and found["best"] in FREE
    assert "No statistic of the Jacobian is seen to tell them better" in found["sentence"]
    assert found["rows"][0]["statistic"] == found["best"]
    margins = [row["score"] for row in found["review"]]
    assert margins == sorted(margins, reverse=found["rows"][0]["end"] == "highest")


def test_the_luckiest_of_many_is_not_taken_for_better():
    """Neither outputs nor statistics know anything: some statistic always leads by luck."""
    noise = dict.fromkeys(("gini", "entropy", "spread", "alignment", "frobenius", "centre_x"), 0.0)
    beats = [triage(made(n=200, seed=seed, **noise)[0], run_of())["beats_baselines"] for seed in range(40)]
    assert sum(beats) <= 4


def test_what_knows_the_label_and_what_does_not_vary_are_left_out():
    audit, _, _ = made(loss_gradient_l2=5.0, gini=1.0)
    n = 600
    rounded = np.ones(n) + 1e-9 * np.random.default_rng(0).random(n)
    columns = {name: audit.column(name).to_pylist() for name in ("correct", "outputs", "gini")}
    audit = Audit(**columns, loss_gradient_l2=np.arange(n), stable_rank=rounded, probability=np.arange(n))
    assert set(by_name(triage(audit, run_of()))) == FREE | {"gini"}


def test_images_without_a_value_are_not_suspected():
    audit, wrong, columns = made(frobenius=2.0)
    values = columns["frobenius"].copy()
    values[~wrong] = np.nan
    parts = {name: audit.column(name).to_pylist() for name in ("correct", "outputs")}
    found = triage(Audit(**parts, frobenius=values), run_of())
    assert by_name(found)["frobenius"]["auroc"] == 1
    assert len(found["review"]) == min(REVIEWED, wrong.sum())


def test_images_without_a_label_are_to_review_and_not_judged():
    audit, wrong, columns = made(frobenius=4.0)
    correct = [None if k % 2 else not bad for k, bad in enumerate(wrong)]
    outputs = audit.column("outputs").to_pylist()
    found = triage(Audit(correct=correct, outputs=outputs, **columns), run_of())
    assert (found["judged"], found["errors"]) == (300, wrong[::2].sum())
    assert found["review"][0]["image_id"] == f"{np.argmax(columns['frobenius']):05d}.png"


@pytest.mark.parametrize("errors_there", [0, MIN_EACH - 1])
def test_few_errors_judge_nothing(errors_there):
    rng = np.random.default_rng(0)
    correct = [k >= errors_there for k in range(200)]
    outputs = list(rng.normal(size=(200, 3)).astype(np.float32))
    found = triage(Audit(correct=correct, outputs=outputs, gini=rng.random(200)), run_of())
    assert found["rows"] == [] and found["best"] == "maximum_probability" and len(found["review"]) == REVIEWED
    assert f"{errors_there} of 200" in found["sentence"] and "not known" in found["sentence"]


def test_without_labels_the_least_sure_predictions_are_listed():
    audit = Audit(correct=[None] * 50, outputs=list(np.eye(3, dtype=np.float32)[np.arange(50) % 3]))
    found = triage(audit, run_of(labelled=False))
    assert (found["judged"], found["rows"], len(found["review"])) == (0, [], 50)
    assert found["sentence"].startswith("No image has a label")


@pytest.mark.parametrize("activation, labelled", [("sigmoid", True), (None, False)])
def test_multilabel_models_and_regressions_have_no_errors(activation, labelled):
    rng = np.random.default_rng(0)
    audit = Audit(correct=[None] * 30, outputs=list(rng.normal(size=(30, 3))), gini=rng.random(30))
    found = triage(audit, run_of(activation, labelled=labelled))
    assert (found["best"], found["review"], found["rows"]) == (None, [], [])


def test_a_binary_model_has_the_baselines_that_two_classes_have():
    rng = np.random.default_rng(0)
    f = rng.normal(size=400) * 3
    wrong = rng.random(400) < 0.5 * np.exp(-np.abs(f))
    audit = Audit(correct=list(~wrong), outputs=list(f[:, None].astype(np.float32)))
    rows = by_name(triage(audit, run_of("sigmoid", 1)))
    assert set(rows) == FREE - {"normalised_maximum_logit"}  # of two classes always the same
    assert len({round(row["auroc"], 9) for row in rows.values()}) == 1  # all are one function of |f|


def test_outputs_that_never_differ():
    wrong = np.arange(100) < 20
    found = triage(Audit(correct=list(~wrong), outputs=[[1.0, 0.0, 0.0]] * 100), run_of())
    assert found["rows"] == [] and not found["beats_baselines"] and "not known" in found["sentence"]


def test_intervals_from_a_sample_are_as_wide_as_those_from_all_images(monkeypatch):
    audit, _, _ = made(n=4000, frobenius=1.0)
    whole = by_name(triage(audit, run_of()))["frobenius"]
    monkeypatch.setattr(errors, "RESAMPLED", 1000)
    sampled = by_name(triage(audit, run_of()))["frobenius"]
    for area in ("auroc", "aurc"):
        assert sampled[area] == whole[area]
        widths = [np.ptp(row[f"{area}_interval"]) for row in (sampled, whole)]
        assert widths[0] == pytest.approx(widths[1], rel=0.25)


def test_a_sample_holds_enough_of_rare_errors(monkeypatch):
    audit, wrong, _ = made(n=3000, error_rate=0.01, frobenius=1.0)
    whole = triage(audit, run_of())
    monkeypatch.setattr(errors, "RESAMPLED", 100)  # which would hold one of them
    assert MIN_EACH <= wrong.sum() < errors.RARER and triage(audit, run_of()) == whole


def test_every_statistic_but_two_is_judged():
    named = {score.name for score in errors.scores_of(SCALARS)}
    assert named == FREE | set(SCALARS) - {"probability", "loss_gradient_l2"}
