"""Predictions that wrong preprocessing may have caused are doubted, and others are not."""

import pyarrow as pa

from augnet.findings.decide import images_by
from augnet.findings.predictions import doubted_predictions

LABELS = {"cat": 100, "dog": 100}


def test_constant_predictions():
    (doubt,) = doubted_predictions({"1": 199, "0": 1}, LABELS, 200, 0.5)
    assert doubt.startswith("output 1 is predicted for 199 of 200 images; is preprocess.scale")
    assert doubted_predictions({"1": 200}, {}, 0, None)
    assert not doubted_predictions({"1": 200}, {"dog": 200}, 200, 1.0)  # there is nothing else


def test_accuracy_at_chance():
    (doubt,) = doubted_predictions({"0": 90, "1": 110}, LABELS, 200, 0.53)
    assert doubt.startswith("the accuracy 53.0% is that of guessing among 2 labels")
    assert doubted_predictions({"0": 90, "1": 110}, LABELS, 200, 0.3)
    assert not doubted_predictions({"0": 90, "1": 110}, LABELS, 200, 0.7)
    assert not doubted_predictions({"0": 90, "1": 110}, LABELS, 10, 0.5)  # too few to say
    assert not doubted_predictions({"0": 90, "1": 110}, {}, 0, None)


def test_few_images_are_not_judged():
    assert not doubted_predictions({"0": 20}, {}, 0, None) and not doubted_predictions({}, {}, 0, None)


def test_images_are_counted_from_the_slices():
    table = pa.Table.from_pylist(
        [
            {"column": column, "value": value, "statistic": name, "count": count}
            for column, value, name, count in (
                ("predicted", "0", "frobenius", 7),
                ("predicted", "0", "margin_l2", 5),
                ("predicted", "2", "frobenius", 3),
                ("label", "cat", "frobenius", 10),
            )
        ]
    )
    assert images_by(table, "predicted") == {"0": 7, "2": 3}
    assert images_by(table, "label") == {"cat": 10}
