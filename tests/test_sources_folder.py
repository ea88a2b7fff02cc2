"""Listing and reading image files: order, labels, globs, links, and files that cannot be read."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augnet.config import ImagesConfig
from augnet.errors import ConfigError, ImageError
from augnet.sources import FolderSource, ImageRef, Source, open_source

as_root = hasattr(os, "geteuid") and os.geteuid() == 0


def fill(root: Path, *names: str) -> Path:
    """Files with their own name as content; the suffix, not the content, makes an image of them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def source(path: object, **config: Any) -> Source:
    return open_source(ImagesConfig(path=str(path), **config))


def ids(path: object, **config: Any) -> list[str]:
    return [ref.image_id for ref in source(path, **config).list()]


def failure(reader: Source, ref: ImageRef) -> str:
    with pytest.raises(ImageError) as info:
        reader.read(ref)
    assert info.value.stage == "read"
    return str(info.value)


# Listing


def test_a_folder_lists_images_at_every_depth(tmp_path: Path):
    fill(tmp_path, "cat/1.png", "cat/old/2.JPG", "dog/3.tiff", "4.webp", "notes.txt", "cat/png")
    assert list(source(tmp_path).list()) == [
        ImageRef("4.webp", f"{tmp_path}/4.webp", None),
        ImageRef("cat/1.png", f"{tmp_path}/cat/1.png", "cat"),
        ImageRef("cat/old/2.JPG", f"{tmp_path}/cat/old/2.JPG", "cat"),
        ImageRef("dog/3.tiff", f"{tmp_path}/dog/3.tiff", "dog"),
    ]


def test_every_suffix_in_either_case(tmp_path: Path):
    names = [f"x.{s}" for s in ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "PNG", "Jpeg")]
    assert ids(fill(tmp_path, *names)) == sorted(names)


def test_labels_can_be_left_out(tmp_path: Path):
    fill(tmp_path, "cat/1.png")
    assert [ref.label for ref in source(tmp_path, labels="none").list()] == [None]


def test_hidden_files_and_folders_are_skipped(tmp_path: Path):
    fill(tmp_path, "a.png", ".b.png", ".cache/c.png", "d/._e.png")
    assert ids(tmp_path) == ["a.png"]


def test_a_hidden_folder_can_be_named(tmp_path: Path):
    fill(tmp_path, ".cache/c.png")
    assert ids(tmp_path / ".cache") == ["c.png"]


def test_folders_and_files_sort_as_whole_paths(tmp_path: Path):
    names = [
        "a/z.png",
        "a.png",
        "a-b.png",
        "a0.png",
        "a b/c.png",
        "a/b/c.png",
        "a/b.png",
        "B.png",
        "é.png",
        "𝄞.png",
    ]
    assert ids(fill(tmp_path, *names)) == sorted(names)


NAMES = st.text(st.sampled_from("aB0-. ~é\uffff𝄞"), min_size=1, max_size=3).filter(lambda n: n[0] != ".")


@settings(deadline=None, max_examples=40)
@given(paths=st.sets(st.lists(NAMES, min_size=1, max_size=3).map("/".join), min_size=1, max_size=12))
def test_the_order_is_that_of_code_points(tmp_path_factory: pytest.TempPathFactory, paths: set[str]):
    root = tmp_path_factory.mktemp("tree")
    names = {path + ".png" for path in paths}
    assert ids(fill(root, *names)) == sorted(names)


def test_more_nested_than_python_recurses(tmp_path: Path):
    depth = sys.getrecursionlimit() + 100
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):  # by descriptor: the whole path is nearly as long as the system allows
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    try:
        assert ids(tmp_path) == ["d/" * depth + "x.png"]
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # shutil.rmtree recurses


def test_a_sample_is_part_of_the_listing_in_its_order(tmp_path: Path):
    fill(tmp_path, *(f"{i % 3}/{i}.png" for i in range(30)))
    everything, some = ids(tmp_path), ids(tmp_path, limit=7, sample_seed=1)
    assert len(some) == 7 and some == [name for name in everything if name in some]
    assert some == ids(tmp_path, limit=7, sample_seed=1) != ids(tmp_path, limit=7, sample_seed=2)


def test_the_first_image_comes_before_the_last_folder_is_listed(tmp_path: Path):
    fill(tmp_path, "a/1.png", "b/2.png")
    refs = source(tmp_path).list()
    assert next(refs).image_id == "a/1.png"
    fill(tmp_path, "b/3.png")
    assert [ref.image_id for ref in refs] == ["b/2.png", "b/3.png"]


def test_a_relative_path_gives_absolute_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(fill(tmp_path, "data/a/1.png"))
    reader = source("data/")
    (ref,) = reader.list()
    assert ref == ImageRef("a/1.png", f"{tmp_path}/data/a/1.png", "a")
    monkeypatch.chdir("/")
    assert pickle.loads(pickle.dumps(reader)).read(ref) == b"data/a/1.png"


def test_a_file_address(tmp_path: Path):
    fill(tmp_path, "a b%/1.png")
    assert ids((tmp_path / "a b%").as_uri()) == ["1.png"]


# Globs and single files


def test_a_glob_names_images_below_its_fixed_folder(tmp_path: Path):
    fill(tmp_path, "v1/val/cat/1.png", "v2/val/cat/2.png", "v2/train/cat/3.png", "v1/val/cat/4.jpg")
    assert ids(f"{tmp_path}/*/val/**/*.png") == ["v1/val/cat/1.png", "v2/val/cat/2.png"]
    (ref,) = source(f"{tmp_path}/v1/val/**/*.png").list()
    assert ref == ImageRef("cat/1.png", f"{tmp_path}/v1/val/cat/1.png", "cat")


def test_a_relative_glob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(fill(tmp_path, "1.png", "2.gif"))
    assert ids("*.gif") == ["2.gif"]


def test_a_glob_finds_images_only(tmp_path: Path):
    fill(tmp_path, "1.png", "1.txt", ".2.png")
    assert ids(f"{tmp_path}/*") == ids(f"{tmp_path}/**") == ["1.png"]


def test_a_glob_does_not_list_folders_that_cannot_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "val/1.png", "train/2.png", "val/deep/3.png")
    listed = []
    scandir = os.scandir

    def record(path: str) -> object:
        listed.append(path.removeprefix(str(tmp_path)).strip("/"))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", record)
    assert ids(f"{tmp_path}/v*/*.png") == ["val/1.png"]
    assert listed == ["", "val"]


def test_a_folder_whose_name_looks_like_a_glob(tmp_path: Path):
    fill(tmp_path, "run[1]/1.png")
    assert ids(tmp_path / "run[1]") == ["1.png"]


def test_a_single_file(tmp_path: Path):
    fill(tmp_path, "cat/1.png", "cat/2.png")
    reader = source(tmp_path / "cat/2.png", limit=5)
    (ref,) = reader.list()
    assert ref == ImageRef("2.png", f"{tmp_path}/cat/2.png", None)
    assert reader.read(ref) == b"cat/2.png"


def test_a_single_link_may_lead_anywhere(tmp_path: Path):
    fill(tmp_path, "data/1.png", "mine/notes.txt")
    (tmp_path / "mine/x.png").symlink_to(tmp_path / "data/1.png")
    reader = source(tmp_path / "mine/x.png")
    (ref,) = reader.list()
    assert (ref.image_id, reader.read(ref)) == ("x.png", b"data/1.png")


# What is refused


def test_no_image(tmp_path: Path):
    fill(tmp_path, "a.txt", "empty/b.txt")
    expected = (
        f"images.path: no image under '{tmp_path}' "
        "(looked for .png .jpg .jpeg .webp .bmp .gif .tif .tiff .npy); "
        "give a folder of images, a glob, one image, or a dataset as a .csv, .jsonl, .parquet, .tar, .zip, "
        ".tfrecord, .npz or .npy"
    )
    for config in ({}, {"limit": 3}):
        with pytest.raises(ConfigError) as info:
            next(source(tmp_path, **config).list())
        assert str(info.value) == expected


def test_no_match_of_a_glob(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"images.path: no image under '.*/\*\.png'"):
        next(source(f"{fill(tmp_path, '1.gif')}/*.png").list())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "images.path: '' does not exist; give"),
        ("nothing/here", "images.path: 'nothing/here' does not exist; give"),
        ("nothing\0", "does not exist"),
        ("nothing/*.png", "starts in 'nothing', which is not a readable folder"),
        ("notes.txt", "images.path: 'notes.txt' is not an image (looked for .png"),
        ("file://host/val", "file:// cannot be read; copy or mount the images"),
        ("pipe.png", "is neither a folder nor a regular file"),
        ("broken.png", "is neither a folder nor a regular file"),
    ],
)
def test_a_path_that_cannot_be_used(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(fill(tmp_path, "notes.txt"))
    os.mkfifo("pipe.png")
    os.symlink("gone", "broken.png")
    with pytest.raises(ConfigError) as info:
        source(path)
    assert message in str(info.value)


# Links


def test_a_link_to_a_file_below_the_root_is_an_image(tmp_path: Path):
    fill(tmp_path, "a/1.png", ".store/2.bin")
    (tmp_path / "a/copy.png").symlink_to(tmp_path / "a/1.png")
    (tmp_path / "a/kept.png").symlink_to("../.store/2.bin")
    reader = source(tmp_path)
    contents = {ref.image_id: reader.read(ref) for ref in reader.list()}
    assert contents == {"a/1.png": b"a/1.png", "a/copy.png": b"a/1.png", "a/kept.png": b".store/2.bin"}


def test_links_that_leave_the_root_are_failures(tmp_path: Path):
    fill(tmp_path, "secret/1.png", "data/2.png")
    (tmp_path / "data/file.png").symlink_to(tmp_path / "secret/1.png")
    (tmp_path / "data/folder").symlink_to(tmp_path / "secret")
    (tmp_path / "data/up").symlink_to("..")
    reader = source(tmp_path / "data")
    refs = list(reader.list())
    assert [ref.image_id for ref in refs] == ["2.png", "file.png", "folder", "up"]
    for ref in refs[1:]:
        assert failure(reader, ref) == "a link that leads out of images.path, which is not followed"


def test_a_path_outside_the_root_is_not_read(tmp_path: Path):
    fill(tmp_path, "data/2.png", "data-other/3.png")
    reader = source(tmp_path / "data")
    for uri in (f"{tmp_path}/data-other/3.png", f"{tmp_path}/data/../data-other/3.png"):
        assert "leads out" in failure(reader, ImageRef("3.png", uri, None))


def test_the_root_itself_may_be_a_link(tmp_path: Path):
    fill(tmp_path, "real/a/1.png")
    (tmp_path / "data").symlink_to("real")
    reader = source(tmp_path / "data")
    (ref,) = reader.list()
    assert ref.uri == f"{tmp_path}/data/a/1.png"
    assert reader.read(ref) == b"real/a/1.png"


def test_loops_of_links_end(tmp_path: Path):
    fill(tmp_path, "a/b/1.png")
    (tmp_path / "a/b/top").symlink_to(tmp_path)
    (tmp_path / "a/b/self").symlink_to(".")
    (tmp_path / "a/loop.png").symlink_to("loop.png")
    reader = source(tmp_path)
    refs = list(reader.list())
    assert [ref.image_id for ref in refs] == ["a/b/1.png", "a/loop.png"]
    assert failure(reader, refs[1]).startswith("the file cannot be read: ")


def test_a_link_to_a_folder_fails_only_if_its_images_are_not_listed_elsewhere(tmp_path: Path):
    fill(tmp_path, ".hidden/1.png", "val/2.png", "train/3.png")
    (tmp_path / "listed").symlink_to("val")
    (tmp_path / "lost").symlink_to(".hidden")
    reader = source(tmp_path)
    refs = {ref.image_id: ref for ref in reader.list()}
    assert list(refs) == ["lost", "train/3.png", "val/2.png"]
    assert failure(reader, refs["lost"]) == "a link to a folder, which is not followed"
    assert ids(f"{tmp_path}/l*/*.png") == ["listed", "lost"]
    assert ids(f"{tmp_path}/[lv]*/*.png") == ["lost", "val/2.png"]


# Reading


def test_a_vanished_file(tmp_path: Path):
    reader = source(fill(tmp_path, "1.png"))
    (ref,) = reader.list()
    (tmp_path / "1.png").unlink()
    assert failure(reader, ref) == "the file cannot be read: No such file or directory"


def test_an_empty_file(tmp_path: Path):
    (tmp_path / "1.png").touch()
    reader = source(tmp_path)
    assert failure(reader, next(reader.list())) == "the file is empty"


def test_the_largest_file(tmp_path: Path):
    (tmp_path / "1.png").write_bytes(bytes(100))
    assert source(tmp_path, max_bytes=100).read(next(source(tmp_path).list())) == bytes(100)
    reason = failure(source(tmp_path, max_bytes=99), next(source(tmp_path).list()))
    assert reason == "the file has 100 bytes, more than images.max_bytes (99)"


def test_a_fifo_does_not_hang(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.png")
    reader = source(tmp_path)
    assert failure(reader, next(reader.list())) == "not a regular file"


def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # socket addresses are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        reader = source(tmp_path)
        assert failure(reader, next(reader.list())).startswith("the file cannot be read: ")


def test_a_folder_in_the_place_of_a_file(tmp_path: Path):
    reader = source(fill(tmp_path, "1.png"))
    (ref,) = reader.list()
    (tmp_path / "1.png").unlink()
    (tmp_path / "1.png").mkdir()
    assert failure(reader, ref) == "a folder that could not be listed"


def test_a_folder_named_like_an_image(tmp_path: Path):
    assert ids(fill(tmp_path, "1.png/2.png")) == ["1.png/2.png"]


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, "a/1.png", "b/2.png")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if os.path.basename(path.rstrip("/")) == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    reader = source(tmp_path)
    refs = list(reader.list())
    assert [ref.image_id for ref in refs] == ["a", "b/2.png"]
    assert failure(reader, refs[0]) == "a folder that could not be listed"


@pytest.mark.skipif(as_root, reason="root may read everything")
def test_permissions(tmp_path: Path):
    fill(tmp_path, "1.png", "a/2.png")
    (tmp_path / "1.png").chmod(0)
    (tmp_path / "a").chmod(0)
    try:
        reader = source(tmp_path)
        reasons = {ref.image_id: failure(reader, ref) for ref in reader.list()}
        tmp_path.chmod(0o100)
        with pytest.raises(ConfigError, match="cannot be listed: Permission denied"):
            next(source(tmp_path).list())
    finally:
        tmp_path.chmod(0o700)
        (tmp_path / "a").chmod(0o700)
    assert reasons == {
        "1.png": "the file cannot be read: Permission denied",
        "a": "a folder that could not be listed",
    }


def test_a_root_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reader = source(fill(tmp_path, "1.png"))

    def refuse(path: str) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigError, match="cannot be listed: Permission denied"):
        next(reader.list())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_not_text(tmp_path: Path):
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    with open(os.path.join(folder, b"\xff.png"), "wb") as file:
        file.write(b"content")
    reader = source(tmp_path)
    (ref,) = reader.list()
    assert (ref.image_id, ref.label) == ("caf\\xe9/\\xff.png", "caf\\xe9")
    assert ref.uri == f"file://{tmp_path}/caf%E9/%FF.png"
    assert reader.read(ref) == b"content"


@pytest.mark.parametrize("name", ["a b.png", "100%41.png", "line\nbreak.png", "naïve.png", "back\\slash.png"])
def test_odd_names_stay_as_they_are(tmp_path: Path, name: str):
    reader = source(fill(tmp_path, name))
    (ref,) = reader.list()
    assert (ref.image_id, ref.uri) == (name, f"{tmp_path}/{name}")
    assert reader.read(ref) == name.encode()


def test_the_format_is_a_folder_of_files(tmp_path: Path):
    for name in ("auto", "folder"):
        assert isinstance(source(fill(tmp_path, "1.png"), format=name), FolderSource)
