"""What is wrong with a configuration, in the user's terms: the key, the value found, and what fits."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from augnet.config.sections import Config, Fits, config_keys
from augnet.errors import closest, did_you_mean
from augnet.redact import without_secrets

SHOWN = 80
"""Characters of a wrong value that are shown."""

BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def mistakes_by_key(error: ValidationError, tree: Mapping[str, Any]) -> dict[str, str]:
    """One line for each key of `tree` that is wrong, whatever in its value is; under "" for several keys."""
    lines: dict[str, str] = {}
    sections = {name.split(".")[0] for name in config_keys() if "." in name}
    for item in error.errors():
        where = [str(part) for part in item["loc"]]
        depth = 2 if where and where[0] in sections else 1
        key, kind = ".".join(where[:depth]), item["type"] if len(where) <= depth else ""
        if kind == "missing":
            for name, field in config_keys().items():
                if field.is_required() and f"{name}.".startswith(f"{key}."):
                    line = f"{name}: is required; give it in the config file or as --{name}"
                    lines.setdefault(name, line)
        elif kind in ("extra_forbidden", "invalid_key"):
            lines.setdefault(key, unknown_key(key))
        else:
            rule = item["msg"].removeprefix("Value error, ") if item["type"] == "value_error" else None
            lines.setdefault(key, _does_not_fit(key, _value(tree, key), rule) if key else str(rule))
    return lines


def unknown_key(key: str) -> str:
    """The line for a key that there is not: what may have been meant, else what there is."""
    section, _, leaf = key.rpartition(".")
    siblings = [name for name in config_keys() if section and name.startswith(f"{section}.")]
    meant = (
        _close(leaf, siblings)
        or _called(leaf, config_keys())
        or (_close(leaf, Config.model_fields) if not section else [])
        or _close(leaf, config_keys())
    )
    if meant:
        return f"{key}: no such key; did you mean {' or '.join(meant)}?"
    return f"{key}: no such key; known here: {', '.join(siblings or Config.model_fields)}"


def what_fits(key: str) -> str:
    """What a key takes, in words that go on after "give": "a whole number above 0"."""
    if field := config_keys().get(key):
        return _in_words(field.annotation, field.metadata)
    inside = next((name for name in config_keys() if name.startswith(f"{key}.")), f"{key}.runner")
    return f"keys such as {inside}"


def _called(leaf: str, keys: Iterable[str]) -> list[str]:
    """The keys of this name, in whatever section."""
    return [key for key in keys if _leaf(key) == leaf]


def _close(leaf: str, keys: Collection[str]) -> list[str]:
    """The keys whose name is the closest."""
    return [key for name in closest(leaf, map(_leaf, keys)) for key in _called(name, keys)]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _does_not_fit(key: str, value: Any, rule: str | None) -> str:
    words = rule or what_fits(key)
    meant = did_you_mean(value, re.split(", | or ", words)) if isinstance(value, str) else ""
    return f"{key}: {_shown(value)} does not fit; give {words}{meant}"


def _shown(value: Any) -> str:
    """As it is written in YAML, but for the quotes of text."""
    try:
        if isinstance(value, str):
            text = repr(without_secrets(value))
        else:
            text = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError):  # keys that are no text, a list in itself
        text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _in_words(kind: Any, rules: Iterable[Any]) -> str:
    """What a type takes, by its annotations and the rules that come with it."""
    if get_origin(kind) is Annotated:
        kind, *inner = get_args(kind)
        rules = [*rules, *inner]
    rules = [part for rule in rules for part in (rule.metadata if isinstance(rule, FieldInfo) else [rule])]
    for rule in rules:
        if isinstance(rule, Fits):
            return rule.words
    if get_origin(kind) in (Union, UnionType):
        parts = [part for part in get_args(kind) if part is not NoneType]
        return _listed([word for part in parts for word in _words(part, rules)])
    if get_origin(kind) is Literal:
        return _listed(get_args(kind))
    bounds = [
        f" {words} {getattr(rule, name)}"
        for name, words in BOUNDS.items()
        for rule in rules
        if isinstance(rule, annotated_types.BaseMetadata) and hasattr(rule, name)
    ]
    return NAMES[kind] + " and".join(bounds)


def _words(kind: Any, rules: Iterable[Any]) -> Sequence[str]:
    """Each word of an enumeration, or a type in words."""
    return get_args(kind) if get_origin(kind) is Literal else [_in_words(kind, rules)]


def _listed(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
