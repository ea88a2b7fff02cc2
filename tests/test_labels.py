import pytest

from augnet.audits.labels import name_outputs
from augnet.errors import ConfigError


def test_as_many_labels_as_outputs_go_in_sorted_order():
    assert name_outputs(None, ("cat", "dog"), 2)[0] == {"cat": 0, "dog": 1}


def test_numbers_name_their_output():
    assert name_outputs(None, ("0", "3", "7"), 10)[0] == {"0": 0, "3": 3, "7": 7}


def test_one_sigmoid_output_tells_two_labels_apart():
    assert name_outputs(None, ("no", "yes"), 1)[0] == {"no": 0, "yes": 1}


def test_orders_that_disagree_are_not_guessed():
    labels = tuple(sorted(str(i) for i in range(11)))
    mapping, rule = name_outputs(None, labels, 11)
    assert mapping == {} and "images.classes" in rule


def test_zero_padded_numbers_are_not_ambiguous():
    labels = tuple(f"{i:02d}" for i in range(11))
    assert name_outputs(None, labels, 11)[0] == {label: int(label) for label in labels}


def test_labels_that_do_not_match_name_nothing():
    assert name_outputs(None, ("a", "b", "c"), 2)[0] == {}
    assert name_outputs(None, (), 2)[0] == {}
    assert name_outputs(None, ("1", "01"), 5)[0] == {}


def test_classes_decide():
    assert name_outputs(("dog", "cat", "owl"), ("cat", "dog"), 3)[0] == {"dog": 0, "cat": 1, "owl": 2}


@pytest.mark.parametrize("classes, words", [(("a", "b"), "lacks"), (("a", "b", "c", "d"), "4 names")])
def test_classes_must_fit(classes, words):
    with pytest.raises(ConfigError, match=words):
        name_outputs(classes, ("c",), 2 if words == "lacks" else 3)
