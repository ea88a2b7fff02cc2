"""Which rows an image gets: words, counts, what is among what, and which outputs the device chooses."""

import numpy as np
import pytest
from keras import ops

from augnet.engine.selection import position
from augnet.errors import ConfigError
from augnet.selection import RowSelection

WORDS = ["all", "predicted", "label", "top:1", "top:5", "[0, 3, 7]"]


def selection(word):
    return RowSelection.parse([0, 3, 7] if word == "[0, 3, 7]" else word)


@pytest.mark.parametrize("word", WORDS)
def test_a_selection_is_written_as_the_word_it_was_read_from(word):
    made = selection(word)
    assert str(made) == word and made == selection(word) and len({made, selection(word)}) == 1


@pytest.mark.parametrize(
    "value", ["none", "best", "top:0", "top:-1", "top:", "all ", "", 3, None, [], ["a"], [-1]]
)
def test_other_words_are_refused_with_the_rule(value):
    with pytest.raises(ValueError, match=r"^all, predicted, label, top:N or a list of output numbers"):
        RowSelection.parse(value)


def test_numbers_of_any_kind_are_numbers_and_none_is_listed_twice():
    assert RowSelection.parse(np.array([2, 0]).tolist()) == RowSelection.parse((np.int64(2), 0))
    with pytest.raises(ValueError, match="once"):
        RowSelection.parse([1, 1])
    with pytest.raises(ValueError, match="list of output numbers"):
        RowSelection.parse([True, 2])


@pytest.mark.parametrize("output_count", [1, 4, 10])
@pytest.mark.parametrize("word", WORDS)
def test_as_many_rows_are_selected_as_are_counted(word, output_count):
    made = selection(word)
    if made.kind == "listed" and output_count < 8:
        with pytest.raises(
            ConfigError, match=rf"some\.key: \[.*7\] .* has {output_count} \(0 to {output_count - 1}\)"
        ):
            made.refuse_unknown("some.key", output_count)
        return
    made.refuse_unknown("some.key", output_count)
    scores = np.random.default_rng(1).normal(size=(3, output_count)).astype("float32")
    targets = ops.convert_to_tensor(np.array([0, -1, output_count - 1], "int32"))
    found = np.asarray(made.select(ops.convert_to_tensor(scores), targets))
    assert found.shape == (3, made.count(output_count)) and found.dtype == np.int32
    order = np.argsort(-scores, axis=1)
    expected = {
        "all": np.tile(np.arange(output_count), (3, 1)),
        "predicted": order[:, :1],
        "label": np.array([[0], [-1], [output_count - 1]]),
        "top": order[:, : made.top],
        "listed": np.tile([0, 3, 7], (3, 1)),
    }
    assert np.array_equal(found, expected[made.kind])
    assert made.fixed == (made.kind in ("all", "listed"))
    if made.fixed:
        assert made.numbers(output_count) == tuple(found[0])
    else:
        with pytest.raises(ValueError, match="depends on the image"):
            made.numbers(output_count)


@pytest.mark.parametrize(
    "rows, other, contained",
    [
        ("all", "top:3", True),
        ("top:5", "top:3", True),
        ("top:3", "top:5", False),
        ("top:3", "predicted", True),
        ("predicted", "top:1", True),
        ("predicted", "top:2", False),
        ("predicted", "all", False),
        ("predicted", "label", False),
        ("label", "label", True),
        ((0, 1, 2), (0, 2), True),
        ((0, 1), (0, 2), False),
        ((0, 1), "predicted", False),
        ("top:3", (0,), False),
    ],
)
def test_which_rows_are_among_which(rows, other, contained):
    assert RowSelection.parse(rows).contains(RowSelection.parse(other)) is contained


def test_a_model_with_few_outputs_has_all_of_them_in_a_large_selection():
    top, listed, label = (RowSelection.parse(value) for value in ("top:5", [0, 2, 1], "label"))
    every = RowSelection("all")
    assert top.contains(every, 5) and not top.contains(every, 6)
    assert listed.contains(RowSelection("predicted"), 3) and not listed.contains(every, 4)
    assert not label.contains(every, 1)  # where the label is not known the row is nobody's


def test_what_is_contained_is_selected_too():
    """Over random scores: `contains` promises no row that is not there."""
    rng, count = np.random.default_rng(2), 6
    made = [
        RowSelection.parse(value) for value in ("all", "predicted", "top:1", "top:2", "top:6", [0, 4], [4])
    ]
    scores = ops.convert_to_tensor(rng.normal(size=(50, count)).astype("float32"))
    rows = {part: [set(line) for line in np.asarray(part.select(scores, None))] for part in made}
    for outer in made:
        for inner in made:
            truth = all(a >= b for a, b in zip(rows[outer], rows[inner], strict=True))
            assert outer.contains(inner, count) is truth, (str(outer), str(inner))


def test_positions_of_wanted_outputs_among_the_selected():
    selected = ops.convert_to_tensor(np.array([[4, 0, 2], [1, 3, 5]], "int32"))
    wanted = ops.convert_to_tensor(np.array([[2, 4], [5, 0]], "int32"))
    positions, found = position(selected, wanted)
    assert np.asarray(positions).tolist() == [[2, 0], [2, 0]]
    assert np.asarray(found).tolist() == [[True, True], [True, False]]
