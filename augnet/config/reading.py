"""From a YAML file, flags, or both to a configuration, or to all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from augnet.config.mistakes import mistakes_by_key, unknown_key
from augnet.config.sections import Config, Section, config_keys
from augnet.errors import ConfigError, did_you_mean_path

Look = Callable[[Mapping[str, Any]], Iterable[str]]
"""Finds further mistakes, one line each, in the sections and keys of the top that are valid, by name."""


def load_config(
    path: str | None = None, flags: Mapping[str, Any] | None = None, look: Look | None = None
) -> Config:
    """Config from a YAML file, flags, or both; flags win.

    Args:
        path: YAML file, or None. Its keys may be dotted, too.
        flags: dotted key -> value, such as {"jacobian.outputs": "top:5"}.
        look: asked what else is wrong, so that all mistakes are told at once.

    Raises:
        ConfigError: one line for each mistake: the key, the value found, and what fits.
    """
    tree: dict[str, Any] = {}
    mistakes: dict[str, str] = {}
    for key, value in [*(_read_yaml(path) if path else {}).items(), *(flags or {}).items()]:
        section, _, name = str(key).rpartition(".")
        node = tree.setdefault(section, {}) if section else tree
        if isinstance(node, dict):
            node[name] = value
        elif key not in config_keys():  # else the section itself is a mistake
            mistakes[key] = unknown_key(key)
    config = None
    try:
        config = Config.model_validate(tree)
        parts = dict(config)
    except ValidationError as error:
        mistakes |= mistakes_by_key(error, tree)
        parts = _valid_parts(tree, mistakes)
    lines = [*mistakes.values(), *(look(parts) if look else ())]
    if lines or config is None:
        raise ConfigError("\n".join(lines))
    return config


def flag_value(key: str, text: str) -> Any:
    """The value of a flag.

    YAML, so that 5, true, [0, 3] and {mean: [0.5], std: [0.2]} mean what they say; but where the key takes
    text alone, a folder called 2024-01-01 is no date.
    """
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    takes_text = key in config_keys() and config_keys()[key].annotation in (str, str | None)
    return text if takes_text and value is not None else value


def _valid_parts(tree: Mapping[str, Any], mistakes: Iterable[str]) -> dict[str, Any]:
    """What of the tree is valid without the keys that are wrong, validated; by the names at its top."""
    wrong = set(mistakes)
    parts: dict[str, Any] = {}
    for name, field in Config.model_fields.items():
        given, section = tree.get(name), field.annotation
        if not (isinstance(section, type) and issubclass(section, Section)):
            parts |= {name: given} if given is not None and name not in wrong else {}
        elif isinstance(given, dict):
            try:
                right = {key: value for key, value in given.items() if f"{name}.{key}" not in wrong}
                parts[name] = section.model_validate(right)
            except ValidationError:
                continue  # a key that it cannot do without is among the wrong ones
    return parts


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"config: cannot read {path!r} ({error.strerror}); give a YAML file{did_you_mean_path(path)}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: not UTF-8, or a date such as 2001-99-99
        raise ConfigError(f"config: {path!r} is not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"config: {path!r} is nested too deeply to be a config") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config: {path!r} holds no keys; see configs/quickstart.yaml for an example")
    return tree
