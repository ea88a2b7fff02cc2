"""Arrays of images in NPZ and NPY files."""

import io
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from dataset_forms import pictures, write_npy, write_npz
from test_sources_webdataset import outcomes, source

from augnet.errors import ConfigError, ImageError


def check(found, images):
    refs = list(found.list())
    assert [ref.label for ref in refs] == [str(image.number) for image in images]
    with ThreadPoolExecutor(3) as threads:
        for array, image in zip(threads.map(found.read, refs), images, strict=True):
            np.testing.assert_array_equal(array, image.pixels)


@pytest.mark.parametrize("packed", [False, True])
def test_an_npz_file_of_x_and_y(tmp_path, packed):
    found = source(write_npz(tmp_path, pictures(30), packed))
    check(found, pictures(30))
    ref = list(found.list())[7]
    assert ref.image_id == "pictures.npz#7" and found.reads_forward(ref) == packed
    np.testing.assert_array_equal(found.read(ref), pictures(8)[7].pixels)


def test_npy_files_beside_each_other(tmp_path):
    folder = write_npy(tmp_path, pictures(10))
    check(source(folder), pictures(10))
    check(source(folder / "x.npy"), pictures(10))
    (folder / "y.npy").unlink()
    assert [ref.label for ref in source(folder).list()] == [None] * 10


@pytest.mark.parametrize("name", ["npz", "packed", "npy"])
def test_an_address(tmp_path, name):
    memory, address = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}"
    path = (
        write_npy(tmp_path, pictures(6))
        if name == "npy"
        else write_npz(tmp_path, pictures(6), name == "packed")
    )
    memory.put(f"{tmp_path}/", f"{address}/data", recursive=True)
    check(source(f"{address}/data/{path.name}" if path.is_file() else f"{address}/data"), pictures(6))


def test_the_layout_of_keras_datasets_asks_for_the_split(tmp_path):
    x, y = np.zeros((4, 8, 8), np.uint8), np.arange(4)
    path = tmp_path / "mnist.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x[:2], y_test=y[2:])
    with pytest.raises(
        ConfigError, match=r"images\.image: name the array .* 'x_train' \(4, 8, 8\), .* 'x_test'"
    ):
        next(source(path).list())
    assert [ref.label for ref in source(path, image="x_test").list()] == ["2", "3"]


def test_a_wrong_array_is_answered_with_those_that_there_are(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((4, 8, 8, 3), np.uint8), kind=np.array(list("abcd")), odd=np.zeros(3))
    with pytest.raises(ConfigError, match=r"images\.image: .*'images'.*there is 'kind', 'odd', 'x'"):
        next(source(path, image="images").list())
    with pytest.raises(ConfigError, match=r"images\.labels: .*'odd'.*there is 'kind'"):
        next(source(path, labels="odd").list())
    assert [ref.label for ref in source(path, labels="kind").list()] == list("abcd")


def test_one_hot_and_float_labels(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 8, 8), np.float32), y=np.eye(3)[[2, 0, 1]])
    assert [ref.label for ref in source(tmp_path / "a.npz").list()] == ["2", "0", "1"]
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 8, 8), np.float32), y=np.float32([[2], [0], [np.nan]]))
    assert [ref.label for ref in source(tmp_path / "a.npz").list()] == ["2", "0", None]


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((4, 8, 8), np.int64), "holds int64; save it as uint8"),
        (np.zeros((8, 8), np.uint8), r"of shape \(8, 8\)"),
        (np.asfortranarray(np.zeros((4, 8, 8), np.uint8)), "Fortran order"),
        (np.array([{}, {}]), "it is not readable: it holds Python objects"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ConfigError, match=words):
        next(source(tmp_path / "a.npy").list())


def test_a_header_that_claims_more_than_there_is_asks_for_no_memory(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 10**6, 10**6)}
    )
    (tmp_path / "a.npy").write_bytes(file.getvalue())
    with pytest.raises(ConfigError, match="ends before its"):
        next(source(tmp_path / "a.npy").list())


def test_a_bomb_of_one_image_is_refused_by_its_size(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((2, 3000, 3000), np.uint8))
    found = outcomes(source(tmp_path / "a.npz", max_bytes=1_000_000))
    assert all("max_bytes" in problem for problem in found.values()) and len(found) == 2


@pytest.mark.parametrize("packed", [False, True])
def test_damaged_bytes(tmp_path, packed):
    path = write_npz(tmp_path, pictures(90), packed)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("x.npy").header_offset
    data[start + 20_000 : start + 20_600] = bytes(600)
    path.write_bytes(data)
    found = source(path)
    refs = list(found.list())
    if packed:
        with pytest.raises(ImageError, match="cannot be read"):
            found.read(refs[89])
    else:
        assert found.read(refs[89]).shape == (
            12,
            10,
            3,
        )  # nothing tells of it: NPZ keeps one checksum for all


def test_a_folder_of_single_npy_images_is_a_folder(tmp_path):
    for image in pictures(3):
        (tmp_path / image.label).mkdir()
        np.save(tmp_path / image.label / f"{image.name}.npy", image.pixels)
    found = source(tmp_path)
    assert [ref.image_id for ref in found.list()] == ["ant/0000.npy", "bee/0001.npy", "cow/0002.npy"]


def test_labels_that_are_damaged_or_of_another_length(tmp_path):
    folder = write_npy(tmp_path, pictures(5))
    np.save(folder / "y.npy", np.arange(4))
    with pytest.raises(ConfigError, match=r"not readable \(labels of shape \(4,\) for 5 images\)"):
        next(source(folder).list())
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((9000, 8, 8), np.uint8), y=np.arange(9000) ** 3)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        start = archive.getinfo("y.npy").header_offset
    data[start + 20_000 : start + 20_100] = bytes(100)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ConfigError, match="not readable"):
        next(source(tmp_path / "a.npz").list())
    assert len(list(source(tmp_path / "a.npz", labels="none").list())) == 9000
