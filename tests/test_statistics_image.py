"""Per-image statistics against closed forms first, then against plain loops."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from statistics_helpers import batch_of, random_batch

from augnet.statistics.decision import task_of
from augnet.statistics.focus import uniform_border_fraction
from augnet.statistics.image import image_statistics
from augnet.storage import schema
from augnet.storage.catalog import SCALARS

FROM_ROWS = [name for name in SCALARS if name != "probability"]


def measure(batch, labels=None, task="multiclass", border=0.1, **kwargs):
    labels = np.full(len(batch), -1) if labels is None else np.array(labels)
    return image_statistics(batch, task=task, label_outputs=labels, border=border, **kwargs)


def values(columns, name):
    return np.array(columns[name].to_pylist(), np.float64)


def cross_entropy(logits, label):
    return np.log(np.exp(logits - logits[label]).sum())


# ---- closed forms


@pytest.fixture
def linear(rng):
    """f(x) = W x + b for five images; J is W, everywhere."""
    kernel, bias = rng.normal(size=(4, 6, 5, 2)), rng.normal(size=4)
    images = rng.normal(size=(5, 6, 5, 2))
    outputs = np.tensordot(images, kernel, axes=([1, 2, 3], [1, 2, 3])) + bias
    return (
        kernel,
        images,
        outputs,
        batch_of(np.broadcast_to(kernel, (5, *kernel.shape)), outputs, inputs=images),
    )


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_the_columns_are_those_of_the_schema(rng):
    columns = measure(random_batch(rng), labels=[0, 1, 2, 3, -1, 0])
    written = {"image_id", "uri", "label", "metadata", "jacobian_file", "jacobian_row"}
    assert set(columns) == set(schema.STATISTICS.names) - written
    for name, column in columns.items():
        assert column.type == schema.STATISTICS.field(name).type, name
        assert len(column) == 6
    assert columns["flags"].to_pylist() == [[]] * 6


def test_linear_model_has_the_norms_of_its_weights(linear):
    kernel, _, _, batch = linear
    columns, flat = measure(batch), kernel.reshape(4, -1)
    sigma = np.linalg.svd(flat, compute_uv=False)
    np.testing.assert_allclose(values(columns, "frobenius"), np.linalg.norm(flat))
    np.testing.assert_allclose(values(columns, "spectral"), sigma[0])
    np.testing.assert_allclose(values(columns, "stable_rank"), (sigma**2).sum() / sigma[0] ** 2)
    share = sigma / sigma.sum()
    np.testing.assert_allclose(values(columns, "effective_rank"), np.exp(-(share * np.log(share)).sum()))
    np.testing.assert_allclose(columns["singular_values"].to_pylist(), np.tile(sigma, (5, 1)))
    np.testing.assert_allclose(columns["row_l2"].to_pylist(), np.tile(np.linalg.norm(flat, axis=1), (5, 1)))


def test_moving_a_linear_model_by_its_margin_reaches_the_rival(linear):
    kernel, _, outputs, batch = linear
    columns, flat = measure(batch), kernel.reshape(4, -1)
    for k in range(5):
        i, j, margin = (columns[name][k].as_py() for name in ("predicted", "rival", "margin_l2"))
        away = flat[j] - flat[i]
        moved = outputs[k] + flat @ (margin * away / np.linalg.norm(away))
        assert i == outputs[k].argmax()
        assert moved[i] == pytest.approx(moved[j])
        assert moved[j] == pytest.approx(moved.max())
        step = columns["margin_linf"][k].as_py()
        moved = [
            outputs[k] + flat @ (step * np.sign(flat[other] - flat[i])) for other in range(4) if other != i
        ]
        assert min(m[i] - np.delete(m, i).max() for m in moved) == pytest.approx(0, abs=1e-12)


def test_the_loss_gradient_is_that_of_finite_differences(linear):
    kernel, _, _, batch = linear
    labels, flat = np.array([0, 1, 2, 3, -1]), kernel.reshape(4, -1)
    found = measure(batch, labels)["loss_gradient_l2"].to_pylist()
    assert found[4] is None
    for k in range(4):
        steps = 1e-6 * np.eye(flat.shape[1])
        slope = [
            (
                cross_entropy(batch.outputs[k] + flat @ s, labels[k])
                - cross_entropy(batch.outputs[k] - flat @ s, labels[k])
            )
            for s in steps
        ]
        assert found[k] == pytest.approx(np.linalg.norm(slope) / 2e-6, rel=1e-6)


def test_a_confident_image_keeps_its_small_loss_gradient():
    rows = np.zeros((1, 2, 1, 2, 1))
    rows[0, 0, 0, 0], rows[0, 1, 0, 1] = 1, 1
    found = measure(batch_of(rows, [[60.0, 0.0]]), [0])["loss_gradient_l2"][0].as_py()
    assert found == pytest.approx(math.sqrt(2) * math.exp(-60))


def test_quadratic_model_aligns_with_its_image(rng):
    """f_r = x^T A_r x / 2 has J_r = A_r x, and <x, J_r> = 2 f_r."""
    forms = rng.normal(size=(3, 12, 12))
    forms += forms.transpose(0, 2, 1)
    images = rng.normal(size=(4, 3, 2, 2))
    flat = images.reshape(4, 12)
    rows = np.einsum("rij,nj->nri", forms, flat)
    outputs = np.einsum("nri,ni->nr", rows, flat) / 2
    columns = measure(batch_of(rows.reshape(4, 3, 3, 2, 2), outputs, inputs=images))
    best = outputs.argmax(axis=1)
    norms = np.linalg.norm(rows[np.arange(4), best], axis=1)
    np.testing.assert_allclose(values(columns, "alignment"), 2 * np.abs(outputs.max(axis=1)) / norms)
    np.testing.assert_array_equal(values(columns, "predicted"), best)


# ---- plain loops


@pytest.mark.parametrize("shape", [(5, 6, 3), (1, 7, 1), (9, 9, 2)])
@pytest.mark.parametrize("border", [0.1, 0.3])
def test_all_scalars_agree_with_plain_loops(rng, shape, border):
    n, count = 5, 4
    rows, outputs = rng.normal(size=(n, count, *shape)), rng.normal(size=(n, count))
    rows[:, :, :, 0] = 0  # an edge without gradient
    inputs, labels = rng.random((n, *shape)), rng.integers(0, count, n)
    columns = measure(batch_of(rows, outputs, inputs=inputs), labels, border=border)
    for k in range(n):
        i, flat = outputs[k].argmax(), rows[k].reshape(count, -1)
        others = [j for j in range(count) if j != i]
        l2 = {j: (outputs[k, i] - outputs[k, j]) / np.linalg.norm(flat[i] - flat[j]) for j in others}
        linf = [(outputs[k, i] - outputs[k, j]) / np.abs(flat[i] - flat[j]).sum() for j in others]
        p = np.exp(outputs[k]) / np.exp(outputs[k]).sum()
        expected = {
            "probability": p[i],
            "frobenius": np.linalg.norm(flat),
            "margin_l2": min(l2.values()),
            "margin_linf": min(linf),
            "loss_gradient_l2": np.linalg.norm((p - np.eye(count)[labels[k]]) @ flat),
            "alignment": abs((inputs[k] * rows[k, i]).sum()) / np.linalg.norm(rows[k, i]),
            **map_loops(np.sqrt((rows[k, i] ** 2).sum(axis=-1)), border),
        }
        for name, value in expected.items():
            rounding = 1e-12 if name in ("probability", "frobenius", "margin_l2", "margin_linf") else 1e-5
            assert columns[name][k].as_py() == pytest.approx(value, rel=rounding, abs=1e-9), name
        assert columns["rival"][k].as_py() == min(l2, key=l2.get)
        assert columns["correct"][k].as_py() == (i == labels[k])


def map_loops(a, border):
    height, width = a.shape
    n, total = a.size, a.sum()
    gini = sum((2 * k - n - 1) * b for k, b in enumerate(sorted(a.ravel()), start=1)) / (n * total)
    p = a.ravel() / total
    frame = max(1, round(border * min(a.shape)))
    inside = [
        (y, x)
        for y in range(height)
        for x in range(width)
        if frame <= y < height - frame and frame <= x < width - frame
    ]
    centre_y = sum((y + 0.5) / height * a[y].sum() for y in range(height)) / total
    centre_x = sum((x + 0.5) / width * a[:, x].sum() for x in range(width)) / total
    squares = sum(
        a[y, x] * ((y + 0.5 - centre_y * height) ** 2 + (x + 0.5 - centre_x * width) ** 2)
        for y in range(height)
        for x in range(width)
    )
    return {
        "gini": gini,
        "entropy": -sum(q * math.log(q) for q in p if q) / math.log(n),
        "border_fraction": 1 - sum(a[place] for place in inside) / total,
        "centre_y": centre_y,
        "centre_x": centre_x,
        "spread": math.sqrt(squares / total) / math.hypot(height, width),
    }


def test_the_order_of_the_selected_rows_does_not_matter(rng):
    rows, outputs = rng.normal(size=(6, 4, 3, 3, 1)), rng.normal(size=(6, 4))
    labels = [0, 1, 2, 3, 0, 1]
    shuffled = np.stack([rng.permutation(4) for _ in range(6)])
    one = measure(batch_of(rows, outputs), labels)
    other = measure(batch_of(rows, outputs, selected=shuffled), labels)
    for name in (*SCALARS, "rival", "predicted"):
        np.testing.assert_allclose(values(other, name), values(one, name), err_msg=name)
    by_output = np.take_along_axis(np.array(one["row_l2"].to_pylist()), shuffled, axis=1)
    np.testing.assert_allclose(other["row_l2"].to_pylist(), by_output)


# ---- what is not known is null


def test_margins_and_loss_need_every_row(rng):
    batch = random_batch(rng, selected=[0, 1, 3])
    columns = measure(batch, [0] * 6)
    for name in ("margin_l2", "margin_linf", "rival", "loss_gradient_l2"):
        assert columns[name].null_count == 6, name
    absent = batch.outputs.argmax(axis=1) == 2
    assert absent.any() and not absent.all()
    for name in ("gini", "entropy", "border_fraction", "centre_y", "centre_x", "spread", "alignment"):
        np.testing.assert_array_equal(columns[name].is_null().to_numpy(False), absent, err_msg=name)
    assert (
        columns["frobenius"].null_count
        == columns["probability"].null_count
        == columns["correct"].null_count
        == 0
    )
    assert columns["flags"].to_pylist() == [[]] * 6


def test_an_unknown_label_selects_no_row(rng):
    batch = random_batch(rng, selected=[[2], [-1], [0], [-1], [1], [3]])
    columns = measure(batch, [2, -1, 0, -1, 1, 3])
    for name in ("frobenius", "spectral", "row_l2", "singular_values", "selected"):
        assert [value is None for value in columns[name].to_pylist()] == [False, True] * 2 + [False] * 2, name
    assert columns["flags"].to_pylist() == [[]] * 6
    assert columns["probability"].null_count == 0


def test_one_row_has_no_rank(rng):
    """It would be 1, and its images told apart by rounding."""
    for columns in (
        measure(random_batch(rng, outputs=1), [0] * 6, "binary"),
        measure(random_batch(rng, outputs=1), task="regression"),
        measure(random_batch(rng, selected=[2])),
        measure(random_batch(rng, shape=(1, 1, 1))),
    ):
        assert columns["stable_rank"].null_count == columns["effective_rank"].null_count == 6
        assert columns["frobenius"].null_count == columns["singular_values"].null_count == 0


def test_binary_model(rng):
    rows = rng.normal(size=(4, 1, 3, 4, 2))
    logits = np.array([[2.0], [-1.0], [0.0], [-3.0]])
    labels = [1, 1, 0, -1]
    batch = batch_of(rows, logits)
    columns = measure(batch, labels, "binary")
    norms = np.linalg.norm(rows.reshape(4, -1), axis=1)
    p = 1 / (1 + np.exp(-logits[:, 0]))
    assert columns["predicted"].to_pylist() == [1, 0, 0, 0]
    assert columns["correct"].to_pylist() == [True, False, True, None]
    np.testing.assert_allclose(values(columns, "probability"), np.maximum(p, 1 - p))
    np.testing.assert_allclose(values(columns, "margin_l2"), np.abs(logits[:, 0]) / norms)
    np.testing.assert_allclose(
        values(columns, "margin_linf"), np.abs(logits[:, 0]) / np.abs(rows).reshape(4, -1).sum(axis=1)
    )
    np.testing.assert_allclose(
        values(columns, "loss_gradient_l2"), [*(np.abs(p - [1, 1, 0, 0]) * norms)[:3], np.nan]
    )
    assert columns["rival"].null_count == 4


def test_binary_model_in_its_own_space_has_its_boundary_at_one_half(rng):
    rows, p = rng.normal(size=(2, 1, 3, 4, 2)), np.array([[0.9], [0.2]])
    columns = measure(batch_of(rows, p, probabilities=p), [1, 1], "binary", logits=False)
    np.testing.assert_allclose(
        values(columns, "margin_l2"), [0.4, 0.3] / np.linalg.norm(rows.reshape(2, -1), axis=1)
    )
    assert columns["predicted"].to_pylist() == [1, 0]
    assert columns["loss_gradient_l2"].null_count == 2


def test_multilabel_model(rng):
    rows, outputs = rng.normal(size=(6, 4, 5, 6, 3)), rng.normal(size=(6, 4))
    columns = measure(batch_of(rows, outputs, separate=True), [0, 1, 2, 3, 0, 1], "multilabel")
    flat = rows.reshape(6, 4, -1)
    distance = np.abs(outputs) / np.linalg.norm(flat, axis=2)
    largest_change = np.abs(outputs) / np.abs(flat).sum(axis=2)
    np.testing.assert_allclose(values(columns, "margin_l2"), distance.min(axis=1))
    np.testing.assert_allclose(values(columns, "margin_linf"), largest_change.min(axis=1))
    np.testing.assert_array_equal(values(columns, "rival"), distance.argmin(axis=1))
    np.testing.assert_allclose(values(columns, "probability"), 1 / (1 + np.exp(-outputs.max(axis=1))))
    for name in ("correct", "loss_gradient_l2"):
        assert columns[name].null_count == 6, name


def test_regression_has_neither_margins_nor_loss(rng):
    batch = random_batch(rng)
    columns = measure(batch, [0, 1, 2, 3, 9, 9], "regression")
    for name in ("margin_l2", "margin_linf", "rival", "loss_gradient_l2", "probability", "correct"):
        assert columns[name].null_count == 6, name
    np.testing.assert_array_equal(values(columns, "predicted"), batch.outputs.argmax(axis=1))
    assert columns["gini"].null_count == 0


def test_probabilities_have_no_loss_gradient(rng):
    p = rng.dirichlet(np.ones(4), size=6)
    columns = measure(random_batch(rng, probabilities=p), [0] * 6, logits=False)
    assert columns["loss_gradient_l2"].null_count == 6
    assert columns["margin_l2"].null_count == 0


# ---- the edges


def test_ties_and_boundaries_that_are_never_reached():
    rows = np.zeros((4, 3, 1, 3, 1))
    rows[:, 0, 0, 0] = rows[:, 1, 0, 1] = rows[:, 2, 0, 2] = 1
    rows[1, :2] = 0.1  # images 1 and 2: outputs 0 and 1 have the same row
    rows[2, :2] = 0.1
    rows[2, 1] += np.float32(1e-9)  # but for rounding
    rows[3, :] = 0.1
    outputs = [[1, 1, 1], [3, 2, 1], [3, 2, 1], [3, 2, 1]]
    columns = measure(batch_of(rows, outputs))
    assert columns["margin_l2"].to_pylist()[0] == columns["margin_linf"].to_pylist()[0] == 0
    assert columns["rival"].to_pylist() == [1, 2, 2, None]  # of equals the lowest; the reachable; none
    expected = 2 / math.sqrt(0.1**2 + 0.1**2 + 0.9**2)
    assert columns["margin_l2"].to_pylist()[1:] == [pytest.approx(expected), pytest.approx(expected), None]
    assert columns["margin_linf"].to_pylist()[1:] == [pytest.approx(2 / 1.1), pytest.approx(2 / 1.1), None]


@pytest.mark.parametrize("bad, flag", [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "inf")])
def test_a_jacobian_that_is_not_finite_spoils_no_other_image(rng, bad, flag):
    rows, outputs = rng.normal(size=(4, 3, 4, 4, 1)), rng.normal(size=(4, 3))
    labels = [0, 1, 2, 0]
    good = measure(batch_of(rows, outputs), labels)
    rows[2, 1, 0, 0, 0] = bad
    columns = measure(batch_of(rows, outputs), labels)
    assert columns["flags"].to_pylist() == [[], [], [flag], []]
    for name in FROM_ROWS:
        assert columns[name][2].as_py() is None, name
        np.testing.assert_array_equal(np.delete(values(columns, name), 2), np.delete(values(good, name), 2))
    assert columns["row_l2"][2].as_py() is columns["singular_values"][2].as_py() is None
    assert columns["predicted"].null_count == columns["probability"].null_count == 0


def test_outputs_that_are_not_finite(rng):
    rows, outputs = rng.normal(size=(3, 3, 4, 4, 1)), rng.normal(size=(3, 3))
    outputs[0, 1], outputs[1, 2] = np.nan, np.inf
    columns = measure(batch_of(rows, outputs), [0, 1, 2])
    assert columns["flags"].to_pylist() == [["nan"], ["inf"], []]
    assert [value is None for value in columns["predicted"].to_pylist()] == [True, False, False]
    assert [value is None for value in columns["correct"].to_pylist()] == [True, False, False]
    for name in SCALARS:
        assert columns[name].to_pylist()[:2] == [None, None], name


def test_zero_rows_and_unconnected_outputs(rng):
    rows = rng.normal(size=(4, 3, 4, 4, 1))
    outputs = np.array([[3.0, 2, 1], [1, 3, 2], [1, 2, 3], [3, 2, 1]])
    rows[0], rows[:, 2] = 0, 0
    columns = measure(batch_of(rows, outputs), unconnected=[2])
    assert columns["flags"].to_pylist() == [["zero_gradient"], [], ["zero_gradient", "unconnected"], []]
    columns = measure(batch_of(rows, outputs), no_gradient=[2])
    assert columns["flags"].to_pylist() == [["zero_gradient"], [], ["zero_gradient", "no_gradient"], []]
    assert columns["frobenius"][0].as_py() == columns["spectral"][0].as_py() == 0
    nulls = ("gini", "entropy", "border_fraction", "centre_y", "spread", "alignment")
    for name in (*nulls, "stable_rank", "effective_rank", "margin_l2"):
        assert columns[name][0].as_py() is None, name
    for name in nulls:
        assert columns[name][2].as_py() is None, name


def test_an_even_map_and_a_single_bright_pixel():
    rows = np.zeros((2, 1, 6, 8, 1))
    rows[0], rows[1, 0, 1, 2] = 0.5, -2.0
    columns = measure(batch_of(rows, [[1.0], [1.0]]), task="regression", border=0.2)
    names = ("gini", "entropy", "border_fraction", "centre_y", "centre_x")
    even, bright = ([columns[name][k].as_py() for name in names] for k in range(2))
    assert even == pytest.approx([0, 1, uniform_border_fraction(6, 8, 0.2), 0.5, 0.5], abs=1e-12)
    assert bright == pytest.approx([1 - 1 / 48, 0, 0, 1.5 / 6, 2.5 / 8], abs=1e-12)
    variance = ((6**2 - 1) + (8**2 - 1)) / 12
    assert columns["spread"].to_pylist() == pytest.approx([math.sqrt(variance) / 10, 0], abs=1e-12)


def test_an_image_of_one_pixel():
    columns = measure(batch_of([[[[[2.0, 0.0]]], [[[0.0, 1.0]]]]], [[1.0, 0.0]]), [0])
    assert columns["entropy"][0].as_py() is None
    names = ("gini", "border_fraction", "centre_y", "centre_x", "spread")
    assert [columns[name][0].as_py() for name in names] == [0, 1, 0.5, 0.5, 0]


def test_there_are_no_more_singular_values_than_inputs(rng):
    columns = measure(random_batch(rng, n=2, outputs=5, shape=(1, 3, 1)))
    assert [len(row) for row in columns["singular_values"].to_pylist()] == [3, 3]
    assert [len(row) for row in columns["row_l2"].to_pylist()] == [5, 5]


def test_a_thousand_outputs(rng):
    batch = random_batch(rng, n=1, outputs=1000, shape=(2, 2, 1))
    columns = measure(batch, [999])
    assert all(columns[name].null_count == 0 for name in SCALARS)
    np.testing.assert_allclose(values(columns, "frobenius") ** 2, np.einsum("nrr->n", batch.gram))


def test_no_images(rng):
    full = random_batch(rng, n=1)
    arrays = {name: part for name, part in vars(full).items() if isinstance(part, np.ndarray)}
    empty = replace(full, **{name: part[:0] for name, part in arrays.items()})
    assert all(len(column) == 0 for column in measure(empty).values())


def test_frame_of_narrow_pictures():
    assert uniform_border_fraction(2, 9, 0.1) == 1
    assert uniform_border_fraction(10, 10, 0.1) == pytest.approx(0.36)
    assert uniform_border_fraction(100, 50, 0.1) == pytest.approx(1 - 90 * 40 / 5000)


@pytest.mark.parametrize(
    "activation, outputs, labelled, task",
    [
        ("softmax", 10, False, "multiclass"),
        ("softmax", 1, True, "regression"),
        ("sigmoid", 1, False, "binary"),
        ("sigmoid", 4, True, "multilabel"),
        (None, 10, True, "multiclass"),
        (None, 1, True, "binary"),
        (None, 10, False, "regression"),
        (None, 1, False, "regression"),
    ],
)
def test_what_the_outputs_mean(activation, outputs, labelled, task):
    assert task_of(activation, outputs, labelled) == task


@pytest.mark.parametrize(
    "labels, task, message",
    [
        ([0, 1], "multiclass", "shape"),
        ([0, 1, 2, 3, 4, 0], "multiclass", "-1 to 3 are known"),
        ([0, 1, 2, 3, -2, 0], "multiclass", "-1 to 3 are known"),
        ([0, 1, 0, 1, 0, 1], "binary", "one output"),
    ],
)
def test_arguments_that_contradict_each_other(rng, labels, task, message):
    with pytest.raises(ValueError, match=message):
        measure(random_batch(rng), labels, task)


def test_columns_make_a_table(rng):
    columns = measure(random_batch(rng), [0] * 6)
    rest = {
        name: pa.nulls(6, field.type)
        for name, field in zip(schema.STATISTICS.names, schema.STATISTICS, strict=True)
    }
    table = pa.table(rest | columns, schema.STATISTICS)
    assert table.num_rows == 6
