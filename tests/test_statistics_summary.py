"""The dataset-wide tables against NumPy, scikit-learn and plain loops."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_statistics_aggregate import SHAPE, Images

from augnet.errors import AuditError
from augnet.statistics.aggregate import Aggregate, Shape
from augnet.statistics.describe import QUANTILES, Slicer, describe, varies
from augnet.statistics.focus import map_statistics, uniform_border_fraction
from augnet.statistics.summary import outputs_table, summarize
from augnet.storage import schema
from augnet.storage.catalog import SCALARS

LABELS = ("bird", "cat")


class Audit:
    """The columns of an audit of made-up images, in three parts, and its aggregate."""

    def __init__(self, n=90, shape=SHAPE, **kwargs):
        images = Images(n=n, shape=shape, **kwargs)
        parts = [list(range(0, 10)), list(range(10, n)), []] if n else [[], []]
        names = [None if label < 0 else LABELS[label] for label in images.labels]
        self.images = images
        self.tables = []
        for part in parts:
            columns = dict(images.statistics(part)) if part else {}
            columns |= {
                "image_id": [images.ids[k] for k in part],
                "label": [names[k] for k in part],
                "uri": [f"/data/{images.ids[k]}" for k in part],
                "metadata": [[] for k in part],
                "jacobian_file": ["jacobians/a.parquet" if k % 2 else None for k in part],
                "jacobian_row": list(range(len(part))),
            }
            arrays = [columns.get(field.name, pa.array([], field.type)) for field in schema.STATISTICS]
            self.tables.append(pa.table(arrays, schema=schema.STATISTICS))
        self.table = pa.concat_tables(self.tables)
        self.aggregate = images.aggregate(*[part for part in parts if part])

    def summarize(self, **kwargs):
        asked = []

        def column(name):
            asked.append(name)
            return self.table[name]

        result = summarize(column, self.aggregate, border=0.1, label_names=LABELS[: SHAPE.labels], **kwargs)
        assert len(asked) < 60
        return result

    def values(self, name):
        return np.array(self.table[name].to_pylist(), np.float64)


@pytest.fixture(scope="module")
def audit():
    return Audit()


@pytest.fixture(scope="module")
def result(audit):
    return audit.summarize()


def test_statistics_are_numpys(audit, result):
    assert set(result.figures["statistics"]) == set(SCALARS)
    for name, figures in result.figures["statistics"].items():
        values = audit.values(name)
        values = values[~np.isnan(values)]
        expected = {
            "count": len(values),
            "mean": values.mean(),
            "std": values.std(ddof=1),
            "standard_error": values.std(ddof=1) / np.sqrt(len(values)),
            "min": values.min(),
            "max": values.max(),
        }
        expected |= {f"q{round(100 * q):02d}": np.quantile(values, q) for q in QUANTILES}
        assert {key: figures[key] for key in expected} == pytest.approx(expected), name


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_quantiles_are_numpys(values):
    figures = describe(np.sort(values))
    for q in QUANTILES:
        assert figures[f"q{round(100 * q):02d}"] == pytest.approx(np.quantile(values, q), rel=1e-9, abs=1e-9)


def test_too_few_values_are_null():
    assert describe(np.array([])) == dict.fromkeys(describe(np.array([1.0])), None) | {"count": 0}
    one = describe(np.array([2.0]))
    assert (one["mean"], one["q50"], one["std"], one["standard_error"]) == (2.0, 2.0, None, None)
    assert list(one) == [name for name in schema.SLICES.names[3:]]


def test_slices_are_the_figures_of_their_images(audit, result):
    found = {(row["column"], row["value"], row["statistic"]): row for row in result.slices.to_pylist()}
    expected = 0
    for column, values in (("label", LABELS), ("predicted", (0, 1, 2)), ("correct", (False, True))):
        for value in values:
            chosen = np.array([entry == value for entry in audit.table[column].to_pylist()])
            for name in SCALARS:
                inside = audit.values(name)[chosen]
                inside = inside[~np.isnan(inside)]
                row = found[column, str(value).lower(), name]
                assert row["count"] == len(inside)
                assert row["mean"] == pytest.approx(inside.mean())
                assert row["q75"] == pytest.approx(np.quantile(inside, 0.75))
                assert row["max"] == inside.max()
                expected += 1
    assert len(found) == expected
    assert result.slices.schema == schema.SLICES
    assert [row["value"] for row in result.slices.to_pylist()][:: len(SCALARS)][:5] == [
        *LABELS,
        "0",
        "1",
        "2",
    ]


def test_slices_of_numbers_are_in_the_order_of_the_numbers():
    slicer = Slicer.of(pa.chunked_array([[10, None, 9], [], [10, 2]], pa.int32()))
    assert slicer.values == ("2", "9", "10")
    assert {value: part.tolist() for value, part in slicer.cut(np.array([4, 3, 2, 1, 0]))} == {
        0: [0],
        1: [2],
        2: [1, 4],
    }


def test_extremes_are_the_images_at_the_ends(audit, result):
    ids, files = audit.table["image_id"].to_pylist(), audit.table["jacobian_file"].to_pylist()
    for name, ends in result.figures["extremes"].items():
        values = audit.values(name)
        order = [int(k) for k in np.argsort(values, kind="stable") if not np.isnan(values[k])]
        for end, rows in (
            ("lowest", order[:20]),
            ("highest", sorted(order, key=lambda k: (-values[k], k))[:20]),
        ):
            expected = [{"image_id": ids[k], "value": values[k], "jacobian_file": files[k]} for k in rows]
            assert ends[end] == expected, (name, end)


def test_of_equal_images_the_first_are_listed():
    audit = Audit(n=30)
    same = pa.chunked_array([[0.5] * 10, [0.5] * 19 + [0.25], []], pa.float64())
    audit.table = audit.table.set_column(
        audit.table.schema.names.index("gini"), schema.STATISTICS.field("gini"), same
    )
    ends = audit.summarize(listed=4).figures["extremes"]["gini"]
    assert [entry["image_id"] for entry in ends["lowest"]] == [audit.images.ids[k] for k in (29, 0, 1, 2)]
    assert [entry["image_id"] for entry in ends["highest"]] == [audit.images.ids[k] for k in (0, 1, 2, 3)]


def test_what_is_the_same_but_for_rounding_has_no_ends():
    """As stable_rank of one row, and the norms of a linear model."""
    audit = Audit(n=30)
    rounded = pa.chunked_array([2 + 2e-7 * np.random.default_rng(0).random(30)])
    column = audit.table.schema.names.index("frobenius")
    audit.table = audit.table.set_column(column, schema.STATISTICS.field("frobenius"), rounded)
    figures = audit.summarize().figures
    assert figures["extremes"]["frobenius"] == {"lowest": [], "highest": []}
    assert figures["statistics"]["frobenius"]["count"] == 30
    assert len(figures["extremes"]["gini"]["lowest"]) == 20


@pytest.mark.parametrize(
    "values, expected",
    [
        ([], False),
        ([3.0], True),
        ([np.nan, 3.0], True),
        ([1.0, 1.0 + 1e-7, np.nan], False),
        ([-5.0, -5.0 + 1e-6], False),
        ([0.0, 0.0], False),
        ([0.0, 1e-30], True),
        ([1.0, 1.001], True),
    ],
)
def test_what_counts_as_rounding(values, expected):
    assert varies(np.array(values)) is expected


def test_the_summary_is_json_and_adds_up(audit, result):
    figures = json.loads(json.dumps(result.figures, allow_nan=False))
    correct = audit.table["correct"].to_pylist()
    assert figures["images"] == 90
    assert figures["judged"] == sum(value is not None for value in correct)
    assert figures["wrong"] == correct.count(False)
    assert figures["accuracy"] == pytest.approx(correct.count(True) / figures["judged"])
    assert figures["labels"] == {name: audit.table["label"].to_pylist().count(name) for name in LABELS}
    assert figures["flags"] == {"nan": 0, "inf": 0, "zero_gradient": 0, "unconnected": 0, "no_gradient": 0}
    assert figures["uniform_border_fraction"] == uniform_border_fraction(5, 7, 0.1)


def test_outputs_and_pairs(audit, result):
    rows = audit.images.rows.astype(np.float64)
    norms = np.linalg.norm(rows.reshape(90, 3, -1), axis=2)
    outputs = result.outputs.to_pylist()
    assert result.outputs.schema == schema.OUTPUT_FIGURES
    for r, row in enumerate(outputs):
        expected = {
            "output": r,
            "count": 90,
            "mean_row_l2": norms[:, r].mean(),
            "std_row_l2": norms[:, r].std(ddof=1),
            "max_row_l2": norms[:, r].max(),
            "mean_abs": np.abs(rows[:, r]).mean(),
            "rms": np.sqrt((rows[:, r] ** 2).mean()),
            "max_abs": np.abs(rows[:, r]).max(),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected)
    pairs = result.output_pairs.to_pylist()
    assert result.output_pairs.schema == schema.OUTPUT_PAIRS
    assert [(row["output"], row["other"]) for row in pairs] == [
        (0, 1),
        (0, 2),
        (1, 0),
        (1, 2),
        (2, 0),
        (2, 1),
    ]
    for row in pairs:
        one, other = (rows[:, row[key]].reshape(90, -1) for key in ("output", "other"))
        cosine = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert row["mean_cosine"] == pytest.approx(cosine.mean())
    assert sum(row["rival_count"] for row in pairs) == 90


def test_every_output_is_described_by_its_own_rows():
    shape = Shape(outputs=3, labels=2, height=5, width=7, channels=2)
    audit = Audit(n=40, shape=shape)
    rows = audit.images.rows.astype(np.float64)
    magnitude = np.sqrt((rows**2).sum(axis=-1).mean(axis=0))  # root mean square over the images
    expected = map_statistics(magnitude.astype(np.float32), np.ones(3, bool), 0.1)
    outputs = audit.summarize().outputs
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name].to_numpy(), values, rtol=1e-5, err_msg=name)


def test_of_one_image_the_predicted_output_is_described_as_the_image():
    images, pooled = Images(n=1, shape=replace(SHAPE, map_pool=1)), Images(n=1, shape=SHAPE)
    predicted = images.outputs[0].argmax()
    exact, blocks = (
        outputs_table(source.aggregate([0]), border=0.1).to_pylist()[predicted] for source in (images, pooled)
    )
    for name in ("gini", "entropy", "border_fraction", "centre_y", "centre_x", "spread"):
        assert exact[name] == pytest.approx(images.statistics([0])[name][0].as_py(), rel=1e-5), name
        assert blocks[name] == pytest.approx(exact[name], abs=0.25), name  # over 2 x 2 pixels


def test_maps(audit):
    shape = Shape(outputs=3, labels=2, height=5, width=7, channels=2)
    audit = Audit(n=40, shape=shape)
    maps = audit.summarize().maps
    rows, labels = audit.images.rows.astype(np.float64), audit.images.labels
    expected = {
        "mean": rows.mean(axis=0),
        "mean_abs": np.abs(rows).mean(axis=0),
        "rms": np.sqrt((rows**2).mean(axis=0)),
        "std": rows.std(axis=0),
        "max_abs": np.abs(rows).max(axis=0),
        "mean_input": audit.images.inputs.mean(axis=0),
    }
    own = rows[np.arange(40), audit.images.outputs.argmax(axis=1)]
    expected |= {
        "label_mean_abs": np.stack([np.abs(own[labels == label]).mean(axis=0) for label in range(2)])
    }
    for name, values in expected.items():
        assert maps[name].dtype == np.float32
        np.testing.assert_allclose(maps[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(maps["share"].sum(axis=(1, 2)), 1, rtol=1e-6)
    assert maps["count"].tolist() == [40] * 3
    assert maps["map_pool"] == 1


def test_an_output_without_rows_has_no_figures():
    audit = Audit(n=25, selected=lambda outputs: np.zeros((len(outputs), 1), int))
    result = audit.summarize()
    row = result.outputs.to_pylist()[2]
    assert row == dict.fromkeys(row) | {"output": 2, "count": 0}
    assert np.isnan(result.maps["mean"][1:]).all() and np.isfinite(result.maps["mean"][0]).all()
    assert result.output_pairs.num_rows == 0
    json.dumps(result.figures, allow_nan=False)


def test_no_images_and_no_labels():
    audit = Audit(n=0)
    audit.aggregate = Aggregate.empty(SHAPE)
    result = audit.summarize()
    assert result.figures["accuracy"] is None
    assert result.figures["statistics"]["gini"]["mean"] is None
    assert result.slices.num_rows == 0
    json.dumps(result.figures, allow_nan=False)


def test_parts_of_different_runs_are_refused(audit):
    with pytest.raises(AuditError, match="90 images and aggregates/ 89"):
        other = Audit(n=89).aggregate
        summarize(lambda name: audit.table[name], other, border=0.1)
