"""TFRecord files of tf.train.Example, whole, gzipped, damaged and hostile."""

import shutil
import struct
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest
import tensorflow as tf
from dataset_forms import CLASSES, pictures, write_tfrecord
from test_sources_webdataset import outcomes, source

from augnet.errors import ConfigError
from augnet.sources import decode
from augnet.sources.tfrecord import _masked_crc

INSECTS = Path(__file__).parent / "data" / "tfds" / "insects"


def example(**features):
    kinds = {bytes: tf.train.BytesList, int: tf.train.Int64List, float: tf.train.FloatList}
    names = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
    made = {
        name: tf.train.Feature(**{names[type(values[0])]: kinds[type(values[0])](value=values)})
        for name, values in ((name, v if isinstance(v, list) else [v]) for name, v in features.items())
    }
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write(path, *records):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return path


def header(length):
    start = struct.pack("<Q", length)
    return start + struct.pack("<I", _masked_crc(start))


@pytest.mark.parametrize("gzip", [False, True])
def test_images_that_tensorflow_wrote(tmp_path, gzip):
    images = pictures(20)
    found = source(write_tfrecord(tmp_path / "data", images, gzip, shard=8))
    refs = list(found.list())
    assert refs[9].image_id == "train.tfrecord-00001-of-00003#1"
    assert [ref.label for ref in refs] == [str(image.number) for image in images]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(found.read, refs)) == [image.png for image in images]
    assert found.read(refs[13]) == images[13].png
    assert found.reads_forward(refs[0]) == gzip


def test_features_are_named_or_guessed(tmp_path):
    png = pictures(1)[0].png
    path = write(tmp_path / "a.tfrecord", example(photo=png, height=12, species=b"bee", weight=2.0))
    with pytest.raises(
        ConfigError, match=r"images\.image: no feature .* 'height', 'photo', 'species', 'weight'"
    ):
        next(source(path).list())
    assert next(source(path, image="photo").list()).label is None
    assert next(source(path, image="photo", labels="species").list()).label == "bee"
    assert next(source(path, image="photo", labels="weight").list()).label == "2"
    only = write(tmp_path / "b.tfrecord", example(data=png, label=[0, 0, 1]))
    assert next(source(only).list()).label == "2"  # the one feature of bytes; a one-hot label


def test_a_wrong_feature_is_answered_with_those_that_there_are(tmp_path):
    path = write(tmp_path / "a.tfrecord", example(image=b"x", kind=1))
    with pytest.raises(ConfigError, match=r"images\.image: .*'img'.*there is 'image', 'kind'"):
        next(source(path, image="img").list())
    with pytest.raises(ConfigError, match=r"images\.labels: .*'species'.*there is 'kind'"):
        next(source(path, labels="species").list())


def test_records_that_hold_no_image_fail_alone(tmp_path):
    png = pictures(1)[0].png
    path = write(
        tmp_path / "a.tfrecord",
        example(image=png),
        b"no example",
        example(other=png),
        example(image=[png, png]),
        example(image=3),
        example(image=b""),
        example(image=png * 20),
        example(image=png),
    )
    found = outcomes(source(path, max_bytes=len(png) * 9))
    reasons = [found[f"a.tfrecord#{index}"] for index in range(8)]
    assert reasons[0] is reasons[7] is None
    assert "no tf.train.Example" in reasons[1] and "its features: 'other'" in reasons[2]
    assert "not one image" in reasons[3] and "not one image" in reasons[4]
    assert "no bytes" in reasons[5] and "max_bytes" in reasons[6]


def test_a_damaged_record_fails_alone_and_a_damaged_header_ends_the_file(tmp_path):
    png = pictures(1)[0].png
    path = write(tmp_path / "a.tfrecord", *[example(image=png)] * 4)
    size = path.stat().st_size // 4
    data = bytearray(path.read_bytes())
    data[size + 200] ^= 1
    data[3 * size + 2] ^= 1
    path.write_bytes(data)
    found = outcomes(source(path))
    assert list(found) == [f"a.tfrecord#{name}" for name in (0, 1, 2, "damaged")]
    assert found["a.tfrecord#0"] is found["a.tfrecord#2"] is None and "checksum" in found["a.tfrecord#1"]
    assert found["a.tfrecord#damaged"] == "a record's header is damaged, after 3 records"


@pytest.mark.parametrize("length", [2**40, 2**63, 10**6])
def test_a_header_that_claims_to_be_huge_asks_for_no_memory(tmp_path, length):
    path = write(tmp_path / "a.tfrecord", example(image=pictures(1)[0].png))
    path.write_bytes(path.read_bytes() + header(length) + b"abc")
    assert outcomes(source(path)) == {
        "a.tfrecord#0": None,
        "a.tfrecord#damaged": "the file is cut off in a record, after 1 records",
    }


@pytest.mark.parametrize("kept", [0.5, 0.97])
def test_a_gzipped_file_that_is_cut_off(tmp_path, kept):
    path = next(write_tfrecord(tmp_path / "data", pictures(40), gzip=True).iterdir())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    found = outcomes(source(path))
    assert sum(problem is None for problem in found.values()) == len(found) - 1 > 40 * kept - 5
    assert found[f"{path.name}#damaged"].startswith("EOFError after")


def test_a_file_that_is_no_tfrecord(tmp_path):
    (tmp_path / "a.tfrecord").write_bytes(b"something else " * 9)
    with pytest.raises(ConfigError, match=r"'a\.tfrecord'"):
        next(source(tmp_path / "a.tfrecord").list())
    with pytest.raises(ConfigError, match=r"is no TFRecord file: no record in it is a tf\.train\.Example"):
        next(source(write(tmp_path / "b.tfrecord", b"abc")).list())


def test_files_with_any_name_are_known_by_their_first_record(tmp_path):
    images = pictures(3)
    data = write_tfrecord(tmp_path / "data", images)
    next(data.iterdir()).rename(data / "train-00000-of-00001")
    for path in (data, data / "train-00000-of-00001", data / "train-*"):
        found = source(path)
        assert [found.read(ref) for ref in found.list()] == [image.png for image in images]


@pytest.mark.parametrize("gzip", [False, True])
def test_an_address(tmp_path, gzip):
    memory, address = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}"
    images = pictures(10)
    memory.put(str(write_tfrecord(tmp_path / "d", images, gzip, shard=4)), f"{address}/d", recursive=True)
    found = source(f"{address}/d")
    assert [found.read(ref) for ref in found.list()] == [image.png for image in images]


def test_a_first_file_that_is_damaged_does_not_end_the_listing(tmp_path):
    images = pictures(4)
    data = write_tfrecord(tmp_path / "data", images, shard=2)
    first = sorted(data.iterdir())[0]
    first.write_bytes(b"broken" * 20)
    found = outcomes(source(data))
    assert found[f"{first.name}#damaged"] == "a record's header is damaged, after 0 records"
    assert sum(problem is None for problem in found.values()) == 2


def test_a_folder_of_tensorflow_datasets_asks_for_a_split(tmp_path):
    for path in (INSECTS, INSECTS / "1.0.0"):
        with pytest.raises(
            ConfigError, match=r"holds the splits test, train; .* such as '.*-test\.tfrecord\*'"
        ):
            source(path)
    shutil.copytree(INSECTS, tmp_path / "insects")
    next((tmp_path / "insects" / "1.0.0").glob("*-test*")).unlink()
    for path in (tmp_path / "insects", INSECTS / "1.0.0" / "*-train.tfrecord*"):
        found = source(path)
        refs = list(found.list())
        assert found.class_names() == CLASSES and len(refs) == 6
        decoded = {decode(found.read(ref), "rgb", 1000).pixels.tobytes(): ref.label for ref in refs}
        assert decoded == {image.pixels.tobytes(): str(image.number) for image in pictures(6)}
