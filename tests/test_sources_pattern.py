"""Globs, against the standard library's glob on a real tree."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augnet.sources.pattern import Pattern, State, split_glob

FILES = [
    "x.png",
    "y.jpg",
    "a/x.png",
    "a/y.png",
    "a/b/x.png",
    "a/b/c/x.png",
    "b/x.png",
    "b/a/[1].png",
    "b/ab.c/x.png",
]


def matching(pattern: Pattern) -> set[str]:
    def matches(path: str) -> bool:
        state: State = pattern.start
        *folders, name = path.split("/")
        for folder in folders:
            state = pattern.step(state, folder)
        return pattern.matches(state, name)

    return set(filter(matches, FILES))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


COMPONENTS = st.sampled_from(["**", "*", "?", "a", "b", "*.png", "x.*", "[ab]", "[!a]*", "a*", "[[]1].png"])


@settings(deadline=None, max_examples=150)
@given(parts=st.lists(COMPONENTS, min_size=1, max_size=4))
def test_matches_what_the_standard_glob_finds(tree: Path, parts: list[str]):
    found = glob.glob("/".join(parts), root_dir=tree, recursive=True)
    assert matching(Pattern(parts)) == set(found) & set(FILES)


def test_a_folder_that_cannot_match_has_an_empty_state():
    pattern = Pattern(["a*", "*.png"])
    assert pattern.step(pattern.start, "ab")
    assert not pattern.step(pattern.start, "b")
    assert not pattern.step(pattern.step(pattern.start, "ab"), "c.png")


def test_two_stars_match_everything_below():
    assert matching(Pattern(["**"])) == set(FILES)


@pytest.mark.parametrize(
    ("path", "root", "parts"),
    [
        ("data/**/*.png", "data", ("**", "*.png")),
        ("/data/val/*", "/data/val", ("*",)),
        ("*.png", ".", ("*.png",)),
        ("/*/x.png", "/", ("*", "x.png")),
        ("../a/img[0-9].png", "../a", ("img[0-9].png",)),
        ("data/*//./x.png", "data", ("*", "x.png")),
    ],
)
def test_the_root_of_a_glob_is_its_fixed_leading_folder(path: str, root: str, parts: tuple[str, ...]):
    split = split_glob(path)
    assert split is not None
    assert (split[0], split[1].parts) == (root, parts)


def test_a_plain_path_is_no_glob():
    assert split_glob("data/val") is None
