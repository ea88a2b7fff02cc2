"""Two audits side by side, against plain NumPy on figures that are known."""

import numpy as np
import pyarrow as pa
import pytest
from comparison_helpers import CLASSES, made_audit

from augnet.comparison import bootstrap, control
from augnet.comparison.control import find_control
from augnet.comparison.join import join_images, join_outputs, rows_in_all
from augnet.comparison.pair import compare_pair
from augnet.comparison.series import compare_series, variance_table
from augnet.errors import ConfigError
from augnet.storage import names
from augnet.storage.catalog import SCALARS

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    """Enough for ends of intervals that are known to a tenth of their length."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 2000)


def test_an_audit_against_itself_differs_by_exactly_zero(tmp_path):
    rows = RNG.normal(size=(60, 3, 4, 5, 1)).astype(np.float32)
    audit = made_audit(tmp_path / "audit", jacobians=rows)
    found = compare_pair(audit, audit)
    assert found.same and set(found.statistics) == set(SCALARS)
    for statistic in found.statistics.values():
        for change in statistic.changes.values():
            assert change.difference == 0 and change.interval == (0, 0)
        assert {statistic.paired[key] for key in ("min", "mean", "max", "std")} == {0}
        assert not statistic.worst and (statistic.worse is None or statistic.worse["images"] == 0)
        assert statistic.before == statistic.after
    assert found.flips.changed.count == 0 and found.accuracy.difference == 0
    assert {(row["change"], row["low"], row["high"]) for row in found.slices} == {(0, 0, 0)}
    assert found.jacobians.cosine["min"] == found.jacobians.correlation["min"] == 1
    assert not found.notes


def test_differences_are_those_of_the_joined_images(tmp_path):
    before = made_audit(tmp_path / "before")
    order = RNG.permutation(60)[:45]
    after = made_audit(tmp_path / "after", seed=1, order=order)
    found = compare_pair(before, after)
    kept = np.sort(order)
    ours = before.column("margin_l2").to_numpy()[kept]
    theirs = np.empty(60)
    theirs[order] = after.column("margin_l2").to_numpy()
    theirs = theirs[kept]
    margin = found.statistics["margin_l2"]
    assert margin.paired["mean"] == pytest.approx(np.mean(theirs - ours))
    assert margin.paired["q25"] == pytest.approx(np.quantile(theirs - ours, 0.25))
    assert margin.changes["p50"].difference == pytest.approx(np.median(theirs) - np.median(ours))
    assert margin.changes["mean"].relative == pytest.approx(theirs.mean() / ours.mean() - 1)
    assert margin.worse["images"] == np.sum(theirs < ours)
    assert found.statistics["frobenius"].worse is not None and found.statistics["gini"].worse is None
    most = np.argmin(theirs - ours)
    assert margin.worst[0]["image_id"] == before.column("image_id")[int(kept[most])].as_py()
    assert (len(found.images), found.images.only_before, found.images.only_after) == (45, 15, 0)
    missing = sorted(set(range(60)) - set(order.tolist()))
    listed = before.column("image_id").take(pa.array(missing)).to_pylist()
    assert found.images.listed_before == tuple(listed) and "15 are in BEFORE only" in found.notes[0]


def test_slices_have_their_own_means(tmp_path):
    before, after = made_audit(tmp_path / "before"), made_audit(tmp_path / "after", seed=1)
    rows = {(row["value"], row["statistic"]): row for row in compare_pair(before, after).slices}
    assert len(rows) == 3 * (len(SCALARS) + 1)
    for number, label in enumerate(CLASSES):
        ours, theirs = (audit.column("entropy").to_numpy()[number::3] for audit in (before, after))
        row = rows[label, "entropy"]
        assert row["count"] == 20 and row["change"] == pytest.approx(theirs.mean() - ours.mean())
        half = 1.96 * (theirs - ours).std() / np.sqrt(20)
        assert row["high"] - row["low"] == pytest.approx(2 * half, rel=0.1)
        assert rows[label, "correct"]["before"] == 1


def metadata(count, **columns):
    """The column `metadata` of `count` images: of each name, its values in turn."""
    return {
        "metadata": [
            [(name, values[k % len(values)]) for name, values in columns.items()] for k in range(count)
        ]
    }


def test_metadata_cuts_slices_as_before_has_it(tmp_path):
    names_of_all = [str(k) for k in range(101)]
    before = made_audit(tmp_path / "before", columns=metadata(60, camera=["left", "right"]))
    after = made_audit(
        tmp_path / "after",
        seed=1,
        columns=metadata(60, camera=["x"], site=["a", "b", "c"]),
        order=RNG.permutation(60),
    )
    rows = {
        (row["column"], row["value"], row["statistic"]): row for row in compare_pair(before, after).slices
    }
    assert {key[:2] for key in rows if key[0] != "label"} == {
        ("camera", "left"),
        ("camera", "right"),
        ("site", "a"),
        ("site", "b"),
        ("site", "c"),
    }
    theirs = made_audit(tmp_path / "sorted", seed=1)
    for (column, value), step in {
        ("camera", "right"): slice(1, None, 2),
        ("site", "c"): slice(2, None, 3),
    }.items():
        row = rows[column, value, "entropy"]
        means = [audit.column("entropy").to_numpy()[step].mean() for audit in (before, theirs)]
        assert (row["before"], row["after"]) == pytest.approx(means)
    many = made_audit(tmp_path / "many", 101, columns=metadata(101, name=names_of_all))
    assert {row["column"] for row in compare_pair(many, many).slices} == {"label"}


def test_slices_of_other_images_are_those_of_both(tmp_path):
    before = made_audit(tmp_path / "before", columns=metadata(60, camera=["left", "right"], site=["a"]))
    others = {"image_id": [f"other {k}" for k in range(60)]}
    after = made_audit(
        tmp_path / "after", seed=1, columns=others | metadata(60, camera=["both", "right"], time=["x"])
    )
    found = compare_pair(before, after).slices
    assert {(row["column"], row["value"]) for row in found} == {
        ("camera", "right"),
        *(("label", x) for x in CLASSES),
    }
    row = next(row for row in found if (row["value"], row["statistic"]) == ("right", "gini"))
    means = [audit.column("gini").to_numpy()[1::2].mean() for audit in (before, after)]
    assert row["change"] == pytest.approx(means[1] - means[0])


def test_audits_of_other_images_are_compared_by_their_distributions(tmp_path):
    names_of = [f"other {k}" for k in range(40)]
    before = made_audit(tmp_path / "before")
    after = made_audit(tmp_path / "after", 40, 1, columns={"image_id": names_of})
    found = compare_pair(before, after)
    ours, theirs = (audit.column("spread").to_numpy() for audit in (before, after))
    change = found.statistics["spread"].changes["mean"]
    assert change.difference == pytest.approx(theirs.mean() - ours.mean())
    half = 1.96 * np.sqrt(ours.var() / 60 + theirs.var() / 40)
    assert change.interval[1] - change.interval[0] == pytest.approx(2 * half, rel=0.1)
    assert found.flips is None and found.statistics["spread"].paired is None and found.slices
    assert found.accuracy.difference == 0 and "No image is in both" in found.notes[0]


def test_outputs_are_joined_by_name_and_else_by_position(tmp_path):
    before = made_audit(tmp_path / "before")
    after = made_audit(tmp_path / "after", label_outputs={"cow": 0, "ant": 1}, model={"output_count": 4})
    found = join_outputs(before, after)
    assert found.pairs == ((0, 1), (2, 0)) and found.names == ("ant", "cow")
    assert (found.only_before, found.only_after) == ((1,), (2, 3))
    assert "2 outputs are in both models" in compare_pair(before, after).notes[0]
    nameless = made_audit(tmp_path / "nameless", label_outputs={})
    assert join_outputs(before, nameless).pairs == ((0, 0), (1, 1), (2, 2))


def test_flips_follow_the_classes_and_have_directions(tmp_path):
    before = made_audit(tmp_path / "before", 30)
    other = {"cow": 0, "bee": 1, "ant": 2}
    predicted = np.array([2, 1, 0] * 10, np.int32)  # the right ones
    predicted[:2] = 0  # an ant and a bee that are cows now
    after = made_audit(tmp_path / "after", 30, columns={"predicted": predicted}, label_outputs=other)
    flips = compare_pair(before, after).flips
    assert (flips.changed.count, flips.negative.count, flips.positive.count) == (2, 2, 0)
    assert flips.directions == [
        {"before": "ant", "after": "cow", "images": 1},
        {"before": "bee", "after": "cow", "images": 1},
    ]
    assert set(flips.lost) == {"ant/0000.png", "bee/0001.png"}


def test_images_of_one_name_and_two_labels_are_noted(tmp_path):
    before = made_audit(tmp_path / "before", 30)
    labels = before.column("label").to_pylist()
    after = made_audit(tmp_path / "after", 30, columns={"label": labels[1:] + labels[:1]})
    assert compare_pair(before, after).images.relabelled == 30


def test_joins_do_not_depend_on_the_order(tmp_path):
    tables = [
        pa.table({"image_id": [str(k) for k in order], "label": ["a"] * 5})
        for order in ([3, 1, 4, 0, 2], [9, 2, 1, 3, 8])
    ]
    found = join_images(*tables)
    assert (found.before.tolist(), found.after.tolist()) == ([0, 1, 4], [3, 2, 1])
    audits = [made_audit(tmp_path / str(k), 9, order=RNG.permutation(9)[: 8 - k]) for k in range(3)]
    rows = rows_in_all(audits)
    ids = [a.column("image_id").take(pa.array(r)).to_pylist() for a, r in zip(audits, rows, strict=True)]
    assert ids[0] == ids[1] == ids[2] and rows[0].tolist() == sorted(rows[0].tolist())


@pytest.mark.parametrize("format", ["parquet", "npz"])
def test_jacobians_agree_as_cosines_say(tmp_path, format):
    ours = RNG.normal(size=(30, 3, 4, 5, 1)).astype(np.float32)
    theirs = ours + RNG.normal(size=ours.shape).astype(np.float32)
    order = RNG.permutation(30)
    before = made_audit(tmp_path / "before", 30, jacobians=ours)
    after = made_audit(tmp_path / "after", 30, jacobians=theirs, order=order, format=format)
    found = compare_pair(before, after).jacobians
    flat = [part.reshape(30, 3, -1) for part in (ours, theirs)]
    dots = (flat[0] * flat[1]).sum(-1) / np.linalg.norm(flat[0], axis=-1) / np.linalg.norm(flat[1], axis=-1)
    assert found.images == 30 and found.cosine["mean"] == pytest.approx(dots.mean(), rel=1e-5)
    assert found.by_output[1] == {
        "output": "bee",
        "images": 30,
        "mean_cosine": pytest.approx(dots[:, 1].mean(), rel=1e-5),
    }
    assert found.correlation["count"] == 30 and 0 < found.correlation["mean"] < 1


def test_outputs_without_stored_rows_agree_in_nothing(tmp_path):
    rows = RNG.normal(size=(30, 1, 4, 5, 1)).astype(np.float32)  # of output 0 only
    before, after = (made_audit(tmp_path / name, 30, jacobians=rows) for name in ("before", "after"))
    found = compare_pair(before, after).jacobians
    assert found.images == 30 and found.cosine["mean"] == pytest.approx(1)
    assert [entry["images"] for entry in found.by_output] == [30]


def test_why_jacobians_were_not_compared_is_said(tmp_path):
    rows = np.ones((30, 3, 4, 5, 1), np.float32)
    stored, bare = made_audit(tmp_path / "stored", 30, jacobians=rows), made_audit(tmp_path / "bare", 30)
    assert "bare stored no Jacobians" in compare_pair(stored, bare).jacobians.reason
    pooled = made_audit(tmp_path / "pooled", 30, jacobians=rows, config={"store.pool": 2})
    assert "store.pool" in compare_pair(stored, pooled).jacobians.reason


@pytest.mark.parametrize(
    ("model", "config", "setting"),
    [
        ({"input_shape": [4, 6, 1]}, {}, "preprocess.size"),
        ({"input_shape": [4, 5, 3]}, {}, "preprocess.color"),
        ({"space": "model"}, {}, "model.space"),
        ({}, {"jacobian.input_space": "pixel"}, "jacobian.input_space"),
        ({}, {"jacobian.outputs": "predicted", "store.jacobians": "none"}, "jacobian.outputs"),
        ({}, {"jacobian.reduce": "mean"}, "jacobian.reduce"),
        ({}, {"statistics.border": 0.2}, "statistics.border"),
    ],
)
def test_audits_that_do_not_match_end_with_the_setting_to_change(tmp_path, model, config, setting):
    before = made_audit(tmp_path / "before", 9)
    after = made_audit(tmp_path / "after", 9, model=model, config=config)
    with pytest.raises(ConfigError, match=rf"audit both with the same {setting}$"):
        compare_pair(before, after)


def test_a_classifier_and_a_regression_are_refused(tmp_path):
    logits = {"activation": None}
    before = made_audit(tmp_path / "before", 9, model=logits)
    after = made_audit(tmp_path / "after", 9, model=logits, label_outputs={})
    with pytest.raises(
        ConfigError, match=r"are classes, .* numbers: .* same images\.labels and images\.classes"
    ):
        compare_pair(before, after)


def test_an_audit_of_another_version_is_refused(tmp_path):
    before, after = made_audit(tmp_path / "before", 9), made_audit(tmp_path / "after", 9)
    del after.run["config"]["findings"]
    for pair in ((before, after), (after, before)):
        with pytest.raises(ConfigError, match=r"after is of another version of augnet, .* \(--fresh\)"):
            compare_pair(*pair)


def test_labels_that_only_one_audit_knows_are_noted(tmp_path):
    before, after = made_audit(tmp_path / "before"), made_audit(tmp_path / "after", label_outputs={})
    found = compare_pair(before, after)
    assert found.accuracy is None and "Only BEFORE knows which predictions are right" in found.notes[0]
    assert "Only AFTER" in compare_pair(after, before).notes[0]


def test_scales_and_columns_that_differ_are_refused(tmp_path):
    before, after = made_audit(tmp_path / "before", 9), made_audit(tmp_path / "after", 9)
    after.run["preprocess"]["scale"] = "imagenet"
    with pytest.raises(ConfigError, match=r"audit both with jacobian\.input_space: pixel"):
        compare_pair(before, after)
    after = made_audit(tmp_path / "older", 9)
    del after.summary["statistics"]["gini"]
    with pytest.raises(ConfigError, match=r"gini: only one of .* with the same version of augnet"):
        compare_pair(before, after)


def test_a_series_has_the_figures_of_each_audit_and_the_variance_of_each_gradient(tmp_path):
    rows = RNG.normal(size=(4, 30, 3, 4, 5, 1)).astype(np.float32)
    audits = [made_audit(tmp_path / str(k), 30, k, jacobians=rows[k]) for k in range(4)]
    found = compare_series(audits)
    expected = [audit.column("margin_l2").to_numpy().mean() for audit in audits]
    assert found.statistics["margin_l2"]["mean"] == pytest.approx(expected)
    assert found.accuracy == [1.0] * 4 and found.images == 30 and found.shortcuts == [None] * 4
    own = rows[:, np.arange(30), np.arange(30) % 3].astype(np.float64)
    variance = own.std(axis=0).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found.variance.value, variance, rtol=1e-12)
    for k in range(3):
        part = variance[k::3]
        np.testing.assert_allclose(
            found.variance.normalised[k::3], (part - part.mean()) / part.std(), rtol=1e-9
        )
    table = variance_table(audits[0], found.variance)
    assert table.column_names == ["image_id", "label", "variance", "normalised"] and len(table) == 30


def test_checkpoints_without_a_common_image_are_refused(tmp_path):
    ids = [{"image_id": [f"{part} {k}" for k in range(9)]} for part in "abc"]
    audits = [made_audit(tmp_path / str(k), 9, columns=columns) for k, columns in enumerate(ids)]
    with pytest.raises(ConfigError, match=r"no image is in all of .* the same images\.path"):
        compare_series(audits)


def test_a_damaged_shard_is_named(tmp_path):
    from augnet.errors import AuditError

    before, after = made_audit(tmp_path / "before", 9), made_audit(tmp_path / "after", 9)
    before.folder.write_bytes(names.shard("statistics", 0, 1), b"no Parquet")
    with pytest.raises(AuditError, match="augnet check"):
        compare_pair(before, after)


def test_folders_of_others_beside_an_audit_are_no_control(tmp_path):
    audit = made_audit(tmp_path / "audit", 10)
    made_audit(tmp_path / "another", 10)
    for name, text in (("damaged", "{"), ("foreign", "{}")):
        (tmp_path / name).mkdir()
        for file in ("run.json", "manifest.json"):
            (tmp_path / name / file).write_text(text)
    assert find_control(audit) is None


def test_a_control_is_looked_for_in_the_likeliest_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "LOOKED_AT", 2)
    audit = made_audit(tmp_path / "model", 10)
    of_it = {"control_of": "model of model"}
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    assert find_control(audit) is None
    made_audit(tmp_path / "z", 10, run=of_it)
    assert find_control(audit) is None  # too many are before it
    made_audit(tmp_path / "model-control", 10, run=of_it)
    assert find_control(audit).run["fingerprint"] == "model-control"


def test_a_control_of_other_settings_is_none(tmp_path):
    audit = made_audit(tmp_path / "audit", 10)
    of_it = {"control_of": "model of audit"}
    made_audit(tmp_path / "a", 10, run=of_it, config={"jacobian.input_space": "pixel"})
    assert find_control(audit) is None
    made_audit(tmp_path / "b", 10, run=of_it)
    assert find_control(audit).run["fingerprint"] == "b"


def test_who_may_not_look_beside_an_audit_finds_no_control(tmp_path, monkeypatch):
    audit = made_audit(tmp_path / "audit", 10)

    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(audit.folder.fs, "ls", refuse)
    assert find_control(audit) is None
