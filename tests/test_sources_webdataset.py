"""Tar archives: WebDataset shards, plain and gzipped archives, and archives that mean harm."""

import io
import tarfile
import uuid
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest
from dataset_forms import CLASSES, pictures, write_folder, write_webdataset

from augnet.config import ImagesConfig
from augnet.errors import ConfigError, ImageError
from augnet.sources import open_source


def source(path, **settings):
    return open_source(ImagesConfig(path=str(path), **settings))


def tar(path, members, mode="w"):
    """An archive of (name or TarInfo, bytes)."""
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def outcomes(found):
    """By image_id, whether it can be read, or why not."""
    results = {}
    for ref in found.list():
        try:
            found.read(ref)
            results[ref.image_id] = None
        except ImageError as error:
            assert error.stage == "read"
            results[ref.image_id] = str(error)
    return results


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_shards_of_the_webdataset_package(tmp_path, ending):
    images = pictures(9)
    shards = source(write_webdataset(tmp_path / "shards", images, shard=4, ending=ending))
    refs = list(shards.list())
    assert refs[5].image_id == f"shard-001{ending}#0005"
    assert [ref.label for ref in refs] == [str(image.number) for image in images]
    assert [shards.read(ref) for ref in refs] == [image.png for image in images]
    assert shards.reads_forward(refs[0]) == (ending == ".tar.gz")


def test_images_of_a_gzipped_archive_can_be_read_in_any_order_and_in_threads(tmp_path):
    images = pictures(30)
    shards = source(write_webdataset(tmp_path / "shards", images, ending=".tar.gz"))
    refs = list(shards.list())
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(shards.read, reversed(refs)))
    assert found == [image.png for image in reversed(images)]


def test_an_archive_of_a_folder_has_the_folders_as_labels(tmp_path):
    images = pictures(6)
    write_folder(tmp_path / "photos", images)
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(tmp_path / "photos", "./photos")
    refs = list(source(tmp_path / "photos.tar").list())
    assert {ref.image_id: ref.label for ref in refs} == {
        f"photos.tar#photos/{image.label}/{image.name}": image.label for image in images
    }


@pytest.mark.parametrize(
    "members, labels, expected",
    [
        ({"cls": b"2\n", "json": b'{"label": "bee"}'}, "auto", "2"),
        ({"json": b'{"label": "bee"}', "txt": b"ant"}, "auto", "bee"),
        ({"json": b'{"species": "bee"}', "txt": b"ant"}, "species", "bee"),
        ({"json": b'{"label": 2}', "txt": b"ant"}, "txt", "ant"),
        ({"txt": b"cow\n"}, "auto", "cow"),
        ({"cls": b"2"}, "none", None),
        ({"cls": b"2"}, "folder", "sub"),
        ({}, "auto", "sub"),
    ],
)
def test_labels_are_in_members_or_folders(tmp_path, members, labels, expected):
    files = [("sub/x.png", pictures(1)[0].png)] + [(f"sub/x.{end}", data) for end, data in members.items()]
    assert [ref.label for ref in source(tar(tmp_path / "a.tar", files), labels=labels).list()] == [expected]


def test_a_key_with_several_images(tmp_path):
    png = pictures(1)[0].png
    path = tar(tmp_path / "a.tar", [("x.left.png", png), ("x.right.png", png), ("x.cls", b"1")])
    assert [ref.image_id for ref in source(path).list()] == ["a.tar#x.left.png", "a.tar#x.right.png"]
    assert [ref.image_id for ref in source(path, image="right.png").list()] == ["a.tar#x"]


def test_a_wrong_member_is_answered_with_those_that_there_are(tmp_path):
    path = tar(tmp_path / "a.tar", [("x.png", pictures(1)[0].png), ("x.json", b'{"kind": "bee"}')])
    with pytest.raises(ConfigError, match=r"images\.labels: .*'species'.*there is 'json', 'kind'"):
        next(source(path, labels="species").list())
    with pytest.raises(ConfigError, match=r"images\.image: .*'jpg'.*there is 'png'"):
        next(source(path, image="jpg").list())


def test_a_shard_that_is_cut_off_keeps_its_whole_images(tmp_path):
    shards = write_webdataset(tmp_path, pictures(6), shard=3)
    path = shards / "shard-001.tar"
    path.write_bytes(path.read_bytes()[:3000])
    found = outcomes(source(shards))
    assert [name for name, problem in found.items() if problem is None][:3] == [
        f"shard-000.tar#{number:04d}" for number in range(3)
    ]
    assert "shard-001.tar#damaged" in found and all(found[name] for name in found if "damaged" in name)


def test_a_damaged_header_is_seen(tmp_path):
    path = tar(tmp_path / "a.tar", [(f"{name}.png", pictures(1)[0].png) for name in "xyz"])
    data = bytearray(path.read_bytes())
    data[1024 + 100] ^= 255  # in the second member's header: each picture fills one block
    assert len(pictures(1)[0].png) <= 512
    path.write_bytes(data)
    assert "no header at byte 1024" in outcomes(source(path))["a.tar#damaged"]


def test_a_damaged_gzip_stream_is_seen(tmp_path):
    shards = write_webdataset(tmp_path, pictures(60), ending=".tar.gz")
    path = shards / "shard-000.tar.gz"
    path.write_bytes(path.read_bytes()[:9000])
    found = outcomes(source(shards))
    assert sum(problem is None for problem in found.values()) > 5
    assert "EOFError" in found["shard-000.tar.gz#damaged"]


def test_what_is_no_archive_or_holds_no_image(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"something else " * 100)
    with pytest.raises(ConfigError, match=r"'a\.tar' is no tar archive"):
        next(source(tmp_path / "a.tar").list())
    with pytest.raises(ConfigError, match="there is no image in the files under"):
        next(source(tar(tmp_path / "b.tar", [("x.cls", b"1")])).list())


def test_links_climbing_paths_and_duplicates_harm_nothing(tmp_path):
    png = pictures(1)[0].png
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    fifo = tarfile.TarInfo("fifo.png")
    fifo.type = tarfile.FIFOTYPE
    names = ["../../climb.png", "/absolute.png", "same.png", "other.png", "same.png", ".hidden.png"]
    path = tar(tmp_path / "a.tar", [(name, png) for name in names] + [(link, b""), (fifo, b"")])
    before = sorted(tmp_path.rglob("*"))
    found = outcomes(source(path))
    refused = "a link or a special file, which is not followed"
    assert found == {
        "a.tar#../../climb": None,
        "a.tar#/absolute": None,
        "a.tar#same": None,
        "a.tar#other": None,
        "a.tar#same#2": None,
        "a.tar#link": refused,
        "a.tar#fifo": refused,
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_members_of_false_or_forbidden_size(tmp_path):
    png = pictures(1)[0].png
    path = tar(tmp_path / "a.tar", [("big.png", bytes(5000)), ("x.png", png), ("empty.png", b"")])
    found = outcomes(source(path, max_bytes=4000))
    assert (
        found["a.tar#x"] is None and "max_bytes" in found["a.tar#big"] and "no bytes" in found["a.tar#empty"]
    )


@pytest.mark.parametrize("size", [2**40, -1, 10**300])
def test_a_header_that_claims_to_be_huge_or_negative(tmp_path, size):
    info = tarfile.TarInfo("x.png")
    info.pax_headers = {"size": str(size)}
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("ok.png"))
        archive.addfile(info)
    found = outcomes(source(path))
    assert "a.tar#ok" in found and found["a.tar#damaged"]


def test_shards_at_an_address(tmp_path):
    memory, address = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}"
    images = pictures(10)
    memory.put(str(write_webdataset(tmp_path / "wds", images, shard=5)), f"{address}/wds", recursive=True)
    for path in (f"{address}/wds", f"{address}/wds/shard-*.tar"):
        shards = source(path)
        assert [shards.read(ref) for ref in shards.list()] == [image.png for image in images]


def test_class_numbers_become_names(tmp_path):
    from augnet.audits.labels import name_labels

    refs = source(write_webdataset(tmp_path, pictures(3))).list()
    assert [ref.label for ref in name_labels(refs, CLASSES)] == list(CLASSES)
