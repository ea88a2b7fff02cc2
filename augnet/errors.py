"""The errors that a user can cause. The command line prints their message, never a traceback."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from importlib import import_module
from itertools import islice
from typing import Any

LOOKED_AT = 1000
"""Names in a folder that are looked at for one that may have been meant."""


class AugnetError(Exception):
    """A problem that the user can mend; the message says how."""


class ConfigError(AugnetError):
    """A bad argument or configuration, found before any work (exit status 2)."""


class ModelError(ConfigError):
    """A model that cannot be loaded or differentiated as asked (exit status 2)."""


class AuditError(AugnetError):
    """An audit that ended with a problem (exit status 1)."""


class ImageError(AugnetError):
    """One image that cannot be used; it becomes a row in failures/.

    Attributes:
        stage: "read" (bytes), "decode" (pixels), "preprocess" (model input) or "compute" (Jacobian).
    """

    def __init__(self, stage: str, reason: str):
        super().__init__(reason)
        self.stage = stage


def optional(module: str, purpose: str) -> Any:
    """A module of the `notebook` extra, imported.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ConfigError(
            f"{package} is needed for {purpose}, and is not installed; pip install 'augnet[notebook]'"
        ) from None


def closest(given: str, known: Iterable[str]) -> list[str]:
    """The known name that `given` is most likely a slip of, alone in a list; empty where none is close."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[name] for name in difflib.get_close_matches(given.lower(), by_lower, 1, 0.75)]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """What to end a message with: "; did you mean parquet?", or nothing where no known name is close."""
    return "".join(f"; did you mean {name}?" for name in closest(given, known))


def did_you_mean_path(path: str) -> str:
    """The same for a path: by the names beside the first part of it that is not there."""
    parent, name = os.path.split(path.rstrip("/"))
    if os.path.lexists(path) or not name:
        return ""
    if parent and not os.path.isdir(parent):
        return did_you_mean_path(parent)
    try:
        with os.scandir(parent or ".") as entries:
            beside = [entry.name for entry in islice(entries, LOOKED_AT)]
    except (OSError, ValueError):
        return ""
    return "".join(f"; did you mean {os.path.join(parent, near)}?" for near in closest(name, beside))
