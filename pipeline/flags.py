"""The configuration's keys as flags, and what an argument that is none of them may have meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from augnet.config import Config, config_keys, flag_value, load_config
from augnet.config.reading import Look
from augnet.errors import ConfigError, closest, did_you_mean

SHORT_FLAGS = {"model.path": "--model", "images.path": "--images", "model.control": "--control"}
FLAGS = (*SHORT_FLAGS.values(), "--output", "--fresh", "--sample", "--log-level")
"""Flags without a dot in them; Beam's have none either, and none of them is close to one of these."""


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per config key, grouped by section, described by the key's own description."""
    groups: dict[str, Any] = {}
    for key, field in config_keys().items():
        section = key.split(".")[0] if "." in key else "output"
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        flags = [f"--{key}"] + ([SHORT_FLAGS[key]] if key in SHORT_FLAGS else [])
        default = "required" if field.is_required() else f"default: {field.default}"
        text = f"{field.description} ({default})".replace("%", "%%")
        groups[section].add_argument(*flags, dest=key, metavar="VALUE", help=text)


def read_config(options: argparse.Namespace, others: Sequence[str], look: Look, beam: bool) -> Config:
    """The configuration that a command is given.

    Args:
        options: of the command, with `config`, the YAML file, and the keys.
        others: what the command does not know.
        look: finds mistakes in what is valid; see load_config.
        beam: whether the others may be Beam's.

    Raises:
        ConfigError: one line for each mistake.
    """
    flags = {key: flag_value(key, text) for key, text in vars(options).items() if _is_given(key, text)}
    unknown: list[str] = []
    for argument in others:
        flag, _, text = argument.partition("=")
        if "." in flag and flag.startswith("--"):
            key = flag.removeprefix("--")
            flags[key] = flag_value(key, text)  # there is no such key, which load_config answers
        elif not beam or closest(flag, FLAGS) or (flag[:1] == "-" and flag[:2] != "--"):
            unknown.append(argument)
    if beam and others and not others[0].startswith("-"):
        raise ConfigError(f"{others[0]}: one config file only; see augnet {options.name} --help")
    return load_config(
        options.config, flags, lambda parts: [*unknown_arguments(unknown, options.name), *look(parts)]
    )


def unknown_arguments(arguments: Iterable[str], command: str, flags: Iterable[str] = FLAGS) -> Iterator[str]:
    """A line for each argument that a command does not know; `flags` are some that it does."""
    for argument in arguments:
        flag = argument.partition("=")[0]
        yield f"{flag}: no such argument; see augnet {command} --help{did_you_mean(flag, flags)}"


def _is_given(key: str, text: Any) -> bool:
    return key in config_keys() and text is not None
