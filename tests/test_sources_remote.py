"""Models and images in object storage, by fsspec's in-memory file system."""

import errno
import uuid

import fsspec
import pytest
from conftest import CLASSES, small_cnn, write_images

import augnet
from augnet.config import ImagesConfig, ModelConfig
from augnet.errors import ConfigError, ImageError, ModelError
from augnet.models.loading import fingerprint, load_model
from augnet.sources import ImageRef, open_source
from augnet.sources.files import read_address
from pipeline.main import main


@pytest.fixture
def bucket(tmp_path):
    """The address of a folder in memory: 12 images, a note and a hidden file."""
    memory, address = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}"
    write_images(tmp_path / "local", 12)
    (tmp_path / "local" / "note.txt").write_text("not an image")
    (tmp_path / "local" / ".hidden.png").write_bytes(b"x")
    memory.put(str(tmp_path / "local"), f"{address}/images", recursive=True)
    yield address
    memory.rm(address, recursive=True)


def images(address, **settings):
    return open_source(ImagesConfig(path=address, **settings))


def test_a_listing_is_that_of_the_same_local_folder(bucket, tmp_path):
    remote = list(images(f"{bucket}/images").list())
    local = list(images(str(tmp_path / "local")).list())
    assert [(ref.image_id, ref.label) for ref in remote] == [(ref.image_id, ref.label) for ref in local]
    assert all(ref.uri.endswith(f"{bucket.split('//')[1]}/images/{ref.image_id}") for ref in remote)
    source = images(f"{bucket}/images")
    assert [source.read(ref) for ref in remote] == [
        images(str(tmp_path / "local")).read(ref) for ref in local
    ]


def test_globs_samples_and_no_labels(bucket):
    found = list(images(f"{bucket}/images/b*/*.png", labels="none").list())
    assert len(found) == 4 and all(ref.image_id.startswith("bee/") and ref.label is None for ref in found)
    assert len(list(images(f"{bucket}/images", limit=5).list())) == 5


def test_what_cannot_be_read_says_so(bucket):
    source = images(f"{bucket}/images", max_bytes=10)
    ref = next(source.list())
    with pytest.raises(ImageError, match=r"more than images\.max_bytes"):
        source.read(ref)
    with pytest.raises(ImageError, match="cannot be read"):
        source.read(ImageRef("x", f"{bucket}/images/x.png", None))
    fsspec.filesystem("memory").pipe(f"{bucket}/images/empty.png", b"")
    with pytest.raises(ImageError, match="empty"):
        source.read(ImageRef("x", f"{bucket}/images/empty.png", None))


class OddStore:
    """A store that tells no sizes, or refuses both a range and the size."""

    def __init__(self, size, data=None):
        self._size, self._data = size, data

    def size(self, uri):
        if isinstance(self._size, Exception):
            raise self._size
        return self._size

    def cat_file(self, uri, start, end):
        if self._data is None:
            raise OSError(errno.EINVAL, "The requested range is not satisfiable")
        return self._data[start:end]


def test_a_store_that_tells_no_size_or_does_not_answer_is_an_image_error():
    assert read_address(OddStore(None, bytes(10)), "x", 10) == bytes(10)
    with pytest.raises(ImageError, match=r"more than images\.max_bytes"):
        read_address(OddStore(None, bytes(20)), "x", 10)
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        read_address(OddStore(PermissionError(errno.EACCES, "no")), "x", 10)


def test_an_address_without_images_or_without_an_opener(bucket):
    with pytest.raises(ConfigError, match="no image under"):
        next(images(f"{bucket}/nothing").list())
    with pytest.raises(ConfigError, match="cannot be opened"):
        images("nosuch://bucket/images")


def test_models_are_fetched(bucket, tmp_path):
    model = small_cnn()
    model.save(tmp_path / "m.keras")
    model.export(tmp_path / "saved", verbose=False)
    fsspec.filesystem("memory").put(str(tmp_path / "m.keras"), f"{bucket}/m.keras")
    fsspec.filesystem("memory").put(str(tmp_path / "saved"), f"{bucket}/saved", recursive=True)
    assert fingerprint(load_model(ModelConfig(path=f"{bucket}/m.keras"))) == fingerprint(model)
    assert load_model(ModelConfig(path=f"{bucket}/saved")).output_shape == (None, 3)
    with pytest.raises(ModelError, match="nothing is at"):
        load_model(ModelConfig(path=f"{bucket}/none.keras"))
    with pytest.raises(ModelError, match="cannot be opened"):
        load_model(ModelConfig(path="nosuch://bucket/m.keras"))


def test_a_whole_audit_from_and_to_object_storage(bucket, tmp_path):
    model = tmp_path / "m.keras"
    small_cnn().save(model)
    fsspec.filesystem("memory").put(str(model), f"{bucket}/m.keras")
    local = ["audit", "--model", str(model), "--images", str(tmp_path / "local")]
    far = ["audit", "--model", f"{bucket}/m.keras", "--images", f"{bucket}/images"]
    assert main([*local, "--output", str(tmp_path / "out"), "--log-level=warning"]) == 0
    assert main([*far, "--output", f"{bucket}/out", "--log-level=warning"]) == 0
    found, expected = augnet.open_audit(f"{bucket}/out"), augnet.open_audit(str(tmp_path / "out"))
    assert found.statistics.drop(["uri"]).equals(expected.statistics.drop(["uri"]))
    assert set(found.statistics["label"].to_pylist()) == set(CLASSES)
