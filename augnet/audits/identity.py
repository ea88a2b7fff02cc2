"""What makes two audits the same one: it is taken up where it stopped, and any other is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from augnet.config import Config, config_json
from augnet.errors import ConfigError
from augnet.storage import names
from augnet.storage.files import OutputFolder

NOT_IDENTITY = ("output", "beam", "failures")
"""Sections of the config that have no say in the result: where it goes, how it runs, how it is judged."""


def config_identity(config: Config) -> dict[str, Any]:
    """What of the configuration, its files of names read, decides about the result.

    The path of the model does not: the model's own fingerprint stands beside it in an identity.
    """
    tree = {key: part for key, part in config_json(config).items() if key not in NOT_IDENTITY}
    del tree["model"]["path"]
    return tree


def refuse_other_files(folder: OutputFolder) -> None:
    """Raise ConfigError where a folder without an audit holds files that no audit writes."""
    if not folder.exists(names.RUN) and (strange := next(folder.foreign_names(), None)):
        raise ConfigError(
            f"output: {folder} holds other files ({strange!r}, ...); give a new or empty folder"
        )


def refuse_parts(folder: OutputFolder) -> None:
    """Raise ConfigError where the folder holds the rest of an audit of which it is not known what it was."""
    if not folder.exists(names.RUN) and any("/part-" in name for name in folder.audit_names()):
        raise ConfigError(
            f"output: {folder} holds parts of an audit without its {names.RUN}; give another folder, or "
            "--fresh to replace it"
        )


def refuse_changes(folder: OutputFolder, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise ConfigError, naming what differs, where the identities of two audits do."""
    if changes := "; ".join(_differences(old, new)):
        raise ConfigError(
            f"output: {folder} holds another audit ({changes}); give another folder, or --fresh to replace it"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """What changed between two identities, in words."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            digest = isinstance(before, str) and len(before) == 64
            name = f"{prefix}{key}".removeprefix("config.")
            yield f"{name} changed" if digest else f"{name}: {before!r} -> {after!r}"
