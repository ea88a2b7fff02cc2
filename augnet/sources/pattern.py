"""A glob matched one path component at a time, so that folders which cannot match are never listed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import takewhile

State = frozenset[int]
"""Positions of the components of the glob that may come next."""

_MAGIC = re.compile(r"[*?\[]")


class Pattern:
    """The variable part of a glob: `*`, `?` and `[...]` inside a component, `**` for any number of folders.

    Matching is case-sensitive. `Pattern(("**",))` matches every file below a folder.
    """

    def __init__(self, parts: Iterable[str]):
        self.parts = tuple(parts)
        self.start = self._past_stars({0})

    def step(self, state: State, folder: str) -> State:
        """The state inside `folder`, found in a folder of `state`; empty when nothing in it can match."""
        ahead = set()
        for position in state:
            if self.parts[position] == "**":
                ahead.add(position)
            elif fnmatchcase(folder, self.parts[position]):
                ahead.add(position + 1)
        return self._past_stars(ahead)

    def matches(self, state: State, file: str) -> bool:
        """Whether `file`, found in a folder of `state`, matches the whole glob."""
        last = len(self.parts) - 1
        return last in state and fnmatchcase(file, self.parts[last])

    def _past_stars(self, positions: set[int]) -> State:
        """`positions`, and those after a `**` there, which may stand for no folder at all."""
        reached = set()
        for position in positions:
            while position < len(self.parts):
                reached.add(position)
                if self.parts[position] != "**":
                    break
                position += 1
        return frozenset(reached)


def split_glob(path: str) -> tuple[str, Pattern] | None:
    """`data/*/x.png` as its fixed leading folder `data` and Pattern(("*", "x.png")); None if not a glob."""
    if not _MAGIC.search(path):
        return None
    parts = path.split("/")
    fixed = list(takewhile(lambda part: not _MAGIC.search(part), parts))
    root = "/".join(fixed) or ("/" if fixed else ".")
    return root, Pattern(part for part in parts[len(fixed) :] if part not in ("", "."))
