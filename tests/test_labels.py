"""Which model output a label names, and what classes are called."""

import fsspec
import pytest

from augnet.audits.labels import class_names, name_labels, name_outputs, read_classes
from augnet.config import ImagesConfig, load_config
from augnet.errors import ConfigError
from augnet.sources import ImageRef, open_source


def once(*labels):
    """Each label with one image."""
    return dict.fromkeys(labels, 1)


def named(*classes):
    return classes, "images.classes"


def test_as_many_labels_as_outputs_go_in_sorted_order():
    assert name_outputs(None, once("cat", "dog"), 2)[0] == {"cat": 0, "dog": 1}


def test_numbers_name_their_output():
    assert name_outputs(None, once("0", "3", "7"), 10)[0] == {"0": 0, "3": 3, "7": 7}


def test_one_sigmoid_output_tells_two_labels_apart():
    assert name_outputs(None, once("no", "yes"), 1)[0] == {"no": 0, "yes": 1}
    assert name_outputs(named("no", "yes"), once("yes"), 1)[0] == {"no": 0, "yes": 1}


def test_orders_that_disagree_are_not_guessed():
    labels = once(*sorted(str(i) for i in range(11)))
    mapping, rule = name_outputs(None, labels, 11)
    assert mapping == {} and "images.classes" in rule


def test_zero_padded_numbers_are_not_ambiguous():
    labels = [f"{i:02d}" for i in range(11)]
    assert name_outputs(None, once(*labels), 11)[0] == {label: int(label) for label in labels}


def test_labels_that_do_not_match_name_nothing():
    assert name_outputs(None, once("a", "b", "c"), 2)[0] == {}
    assert name_outputs(None, {}, 2)[0] == {}
    assert name_outputs(None, once("1", "01"), 5)[0] == {}


def test_classes_decide():
    mapping, _ = name_outputs(named("dog", "cat", "owl"), once("cat", "dog"), 3)
    assert mapping == {"dog": 0, "cat": 1, "owl": 2}


def test_a_label_without_an_output_is_counted_and_named():
    mapping, rule = name_outputs(named("dog", "cat"), {"cat": 5, "emu": 1, "owl": 12}, 2)
    assert mapping == {"dog": 0, "cat": 1}
    assert "no output for 2 labels" in rule and "'emu' (1 image), 'owl' (12 images)" in rule
    mapping, rule = name_outputs(None, {"1": 3, "3": 4, "12": 2}, 10)
    assert mapping == {"1": 1, "3": 3} and "no output for 1 label" in rule and "'12' (2 images)" in rule


def test_classes_must_be_as_many_as_the_model_tells_apart():
    with pytest.raises(ConfigError, match=r"images\.classes: has 4 names; .* 3 classes"):
        name_outputs(named("a", "b", "c", "d"), once("c"), 3)


def test_class_names_of_the_dataset_that_do_not_fit_the_model_name_nothing():
    mapping, rule = name_outputs((("a", "b"), "the dataset's own class names"), once("a"), 1000)
    assert mapping == {} and "are 2, but the model has 1000 outputs" in rule


def test_numbers_become_the_names_of_classes():
    refs = [ImageRef("x", "x", label) for label in ("1", "cat", None, "7")]
    assert [ref.label for ref in name_labels(refs, ("cat", "dog"))] == ["dog", "cat", None, "7"]
    assert list(name_labels(refs, None)) == refs


def config(classes):
    return load_config(
        flags={"model.path": "m", "images.path": "i", "output": "o", "images.classes": classes}
    )


@pytest.mark.parametrize("text", ["cat\ndog\n", "\ufeffcat\r\ndog", '["cat", "dog"]'])
def test_classes_are_read_from_a_file(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    assert read_classes(config(str(tmp_path / "classes.txt"))).images.classes == ("cat", "dog")


def test_classes_are_read_from_an_address():
    fsspec.filesystem("memory").pipe("/test_labels/classes.txt", b"cat\ndog\n")
    assert read_classes(config("memory://test_labels/classes.txt")).images.classes == ("cat", "dog")


def test_a_list_of_classes_stays_and_wins_over_the_datasets_own(images):
    settings = config(["cat", "dog"])
    assert read_classes(settings) == settings
    assert class_names(settings.images, open_source(ImagesConfig(path=str(images)))) == named("cat", "dog")


@pytest.mark.parametrize("text", ["", "cat\ncat\n", "[1, 2]", "[", None])
def test_a_file_that_holds_no_classes(tmp_path, text):
    if text is not None:
        (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"images\.classes: .*classes\.txt'"):
        read_classes(config(str(tmp_path / "classes.txt")))
