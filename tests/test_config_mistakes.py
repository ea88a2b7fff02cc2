"""Every key of the configuration, wrong in every way, by YAML and by flag: one line each, in plain words."""

import json
import re
from typing import Literal, get_args, get_origin

import pytest
import yaml

from augnet.config import config_keys, load_config
from augnet.config.mistakes import what_fits
from augnet.errors import ConfigError, closest
from pipeline.main import main

RIGHT = {"model.path": "m.keras", "images.path": "images", "output": "out"}
KEYS = config_keys()
TEXT = [key for key, field in KEYS.items() if field.annotation in (str, str | None)]
CHOICES = {
    key: [
        choice
        for part in (field.annotation, *get_args(field.annotation))
        if get_origin(part) is Literal
        for choice in get_args(part)
    ]
    for key, field in KEYS.items()
}

WRONG_TYPES = [{"a": {"b": 1}}, [[1]]]
WRONG_VALUES = {
    "model.builder": "my_models.build",
    "model.modules": ["my layers"],
    "model.output": 1.5,
    "model.constants": {"mask": None},
    "model.safe_mode": "maybe",
    "images.classes": [1, 2],
    "images.sample_seed": 0.5,
    "preprocess.size": [0, 10],
    "preprocess.crop_to_aspect_ratio": 7,
    "jacobian.outputs": "top:none",
    "jacobian.reduce": "at:[1]",
    "jacobian.memory": "8 apples",
    "store.jacobians": [1, 1],
}
"""For keys that are neither plain text nor a choice nor a number with a bound, for which it is -1."""

OF_PYDANTIC = re.compile(
    r"Input should|Field required|Extra inputs|Value error|String should|unable to parse|type=|pydantic|"
    r"greater than|less than|valid (string|integer|number|tuple|list|dict|bool)",
    re.IGNORECASE,
)  # fmt: skip


def slip(word):
    """The word with two letters in each other's place, or with one more."""
    swapped = word[:1] + word[2:3] + word[1:2] + word[3:]
    return swapped if swapped != word and len(word) > 3 else word + "x"


def wrong_values(key):
    found = [slip(choice) for choice in CHOICES[key]]
    return found or ([] if key in TEXT else [WRONG_VALUES.get(key, -1)])


def lines_of(**tree):
    with pytest.raises(ConfigError) as caught:
        load_config(**tree)
    return str(caught.value).splitlines()


def check(line, key, value):
    """The line names the key, the value found and what fits, in nobody else's words."""
    name, found, rule = re.fullmatch(r"([\w.]+): (.*?) does not fit; give (.+)", line).groups()
    assert name == key
    assert found == (repr(value) if isinstance(value, str) else json.dumps(value))
    assert len(rule) > 3 and not OF_PYDANTIC.search(line)


CASES = [(key, value) for key in KEYS for value in (*WRONG_TYPES, *wrong_values(key))]


def test_there_is_a_wrong_value_for_every_key_that_is_not_plain_text():
    assert {key for key, value in CASES if value not in WRONG_TYPES} == set(KEYS) - set(TEXT)


@pytest.mark.parametrize("key, value", CASES, ids=str)
def test_a_wrong_value_in_a_file(tmp_path, key, value):
    tree = {}
    for name, part in (RIGHT | {key: value}).items():
        section, _, leaf = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[leaf] = part
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    (line,) = lines_of(path=str(path))
    check(line, key, value)


@pytest.mark.parametrize("key, value", [case for case in CASES if case[0] not in TEXT], ids=str)
def test_a_wrong_value_in_a_flag(capsys, key, value):
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
    flags = [f"--{name}={part}" for name, part in (RIGHT | {key: text}).items()]
    assert main(["audit", *flags]) == 2
    line = next(line for line in capsys.readouterr().err.splitlines() if f"{key}: " in line)
    check(line.removeprefix("augnet: "), key, value)


@pytest.mark.parametrize("key", [key for key in KEYS if CHOICES[key]])
def test_a_slip_in_a_choice_is_answered_with_the_choice(key):
    for choice in CHOICES[key]:
        if len(choice) > 2:
            (line,) = lines_of(flags=RIGHT | {key: slip(choice)})
            assert line.endswith(f"; did you mean {choice}?")


@pytest.mark.parametrize("key", KEYS)
def test_a_slip_in_a_key_is_answered_with_the_key(capsys, key):
    section, _, leaf = key.rpartition(".")
    wrong = f"{section}.{slip(leaf)}".lstrip(".")
    (line,) = lines_of(flags=RIGHT | {wrong: 1})
    assert line == f"{wrong}: no such key; did you mean {key}?"
    flags = [f"--{name}={part}" for name, part in RIGHT.items()]
    assert main(["audit", *flags, f"--{wrong}=1"]) == 2
    said = capsys.readouterr().err
    if section:
        assert f"{wrong}: no such key; did you mean {key}?" in said
    else:
        assert f"--{wrong}: no such argument; see augnet audit --help; did you mean --{key}?" in said


@pytest.mark.parametrize("key", [key for key in KEYS if "." in key])
def test_a_slip_in_a_section_and_a_key_in_no_section(key):
    section, _, leaf = key.rpartition(".")
    (line,) = lines_of(flags=RIGHT | {f"{slip(section)}.{leaf}": 1, f"{slip(section)}.other": 1})
    assert line.startswith(f"{slip(section)}: no such key; did you mean {section}")
    if leaf not in {name.split(".")[0] for name in KEYS}:  # images is a section, and a key of others
        (line,) = lines_of(flags=RIGHT | {leaf: 1})
        assert line.startswith(f"{leaf}: no such key; did you mean ") and key in line


def test_all_mistakes_are_told_at_once():
    wrong = {"store.format": "csv", "jacobian.ouputs": 1, "preprocess.size": 5, "nothing.like.it": 1}
    lines = lines_of(flags=wrong | {"model.path": "m"})
    assert {line.split(":")[0] for line in lines} == {
        "store.format", "jacobian.ouputs", "preprocess.size", "nothing.like", "images.path", "output",
    }  # fmt: skip


@pytest.mark.parametrize(
    "section", sorted({key.split(".")[0] for key in KEYS if "." in key} - {"preprocess"})
)
def test_a_value_where_a_section_belongs(section):
    (line,) = [line for line in lines_of(flags=RIGHT | {section: 5}) if line.startswith(f"{section}:")]
    assert re.fullmatch(rf"{section}: 5 does not fit; give keys such as {section}\.\w+", line)


def test_a_long_value_is_cut():
    (line,) = lines_of(flags=RIGHT | {"store.format": "x" * 5000})
    assert len(line) < 200 and "x..." in line


def test_what_fits_has_bounds_and_choices():
    assert what_fits("statistics.border") == "a number above 0 and below 0.5"
    assert what_fits("jacobian.batch_size") == "auto or a whole number above 0"
    assert what_fits("images.limit") == "a whole number above 0"


def test_the_closest_name():
    assert closest("Parket", ["npz", "parquet"]) == ["parquet"]
    assert closest("zip", ["parquet"]) == []
