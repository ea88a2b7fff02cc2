"""ZIP archives, and those that mean harm."""

import stat
import uuid
import warnings
import zipfile

import fsspec
import pytest
from dataset_forms import pictures, write_zip
from test_sources_webdataset import outcomes, source

from augnet.errors import ConfigError


def archive(path, members, method=zipfile.ZIP_DEFLATED):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as file:
        warnings.simplefilter("ignore")  # of duplicate names
        for name, data in members:
            file.writestr(name, data)
    return path


def test_a_packed_folder(tmp_path):
    images = sorted(pictures(7), key=lambda image: (image.number, image.name))
    packed = source(write_zip(tmp_path, images))
    refs = sorted(packed.list(), key=lambda ref: ref.image_id)
    assert [ref.image_id for ref in refs] == [
        f"pictures.zip#images/{image.label}/{image.name}.png" for image in images
    ]
    assert [ref.label for ref in refs] == [image.label for image in images]
    assert [packed.read(ref) for ref in refs] == [image.png for image in images]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_at_an_address(tmp_path, method):
    address = f"memory://{uuid.uuid4().hex}/a.zip"
    path = archive(tmp_path / "a.zip", [("x.png", pictures(1)[0].png)], method)
    fsspec.filesystem("memory").pipe(address, path.read_bytes())
    packed = source(address)
    assert [packed.read(ref) for ref in packed.list()] == [pictures(1)[0].png]


def test_links_climbing_paths_and_duplicates_harm_nothing(tmp_path):
    png = pictures(1)[0].png
    link = zipfile.ZipInfo("link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    names = ["../../climb.png", "/absolute.png", "same.png", "same.png", "__MACOSX/._x.png", ".h/x.png"]
    path = archive(tmp_path / "a.zip", [*((name, png) for name in names), (link, b"/etc/passwd")])
    before = sorted(tmp_path.rglob("*"))
    assert outcomes(source(path)) == {
        "a.zip#../../climb.png": None,
        "a.zip#/absolute.png": None,
        "a.zip#same.png": None,
        "a.zip#same.png#2": None,
        "a.zip#link.png": "a link, which is not followed",
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bomb_is_refused_by_its_size_and_unpacked_no_further_than_it_says(tmp_path):
    path = archive(tmp_path / "a.zip", [("bomb.png", bytes(10_000_000)), ("liar.png", bytes(1_000_000))])
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\x01\x02")  # the directory's entry of liar.png
    data[place + 24 : place + 28] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    found = outcomes(source(path, max_bytes=2_000_000))
    assert "max_bytes" in found["a.zip#bomb.png"] and "damaged" in found["a.zip#liar.png"]


def test_members_that_cannot_be_read(tmp_path):
    png = pictures(1)[0].png
    path = archive(tmp_path / "a.zip", [("x.png", png), ("y.png", png)], zipfile.ZIP_STORED)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as file:
        file.writestr("z.png", png)
    data = bytearray(path.read_bytes())
    data[data.index(png) + 60] ^= 1
    place = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[place + 8] |= 1  # y.png: encrypted
    path.write_bytes(data)
    found = outcomes(source(path))
    assert "checksum" in found["a.zip#x.png"]
    assert "encrypted" in found["a.zip#y.png"]
    assert "another method" in found["a.zip#z.png"]


def test_what_is_no_archive(tmp_path):
    path = archive(tmp_path / "a.zip", [("x.png", pictures(1)[0].png)])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=r"'a\.zip' is no ZIP archive: the archive is damaged"):
        next(source(path).list())


def test_an_archive_has_no_columns(tmp_path):
    path = archive(tmp_path / "a.zip", [("x.png", pictures(1)[0].png)])
    with pytest.raises(ConfigError, match=r"images\.labels: 'species': a ZIP archive has no columns"):
        next(source(path, labels="species").list())
    assert [ref.label for ref in source(path, labels="none").list()] == [None]
