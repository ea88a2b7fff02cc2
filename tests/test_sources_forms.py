"""The same 200 pictures in every form are the same dataset: pixels, count, labels, and whole audits."""

import pickle
import typing

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import small_cnn
from dataset_forms import (
    CLASSES,
    pictures,
    write_folder,
    write_hf,
    write_hf_parquet,
    write_manifest,
    write_npy,
    write_npz,
    write_parquet,
    write_tfrecord,
    write_webdataset,
    write_zip,
)

import augnet
from augnet.audits.labels import class_names, name_labels
from augnet.config import ImagesConfig, PreprocessConfig
from augnet.sources import Preprocess, open_source
from augnet.sources.formats import FORMATS
from pipeline.main import main

FORMS = {
    "folder": write_folder,
    "manifest": write_manifest,
    "manifest.jsonl": lambda folder, images: write_manifest(folder, images, ".jsonl"),
    "manifest.parquet": lambda folder, images: write_manifest(folder, images, ".parquet"),
    "webdataset": write_webdataset,
    "webdataset.gz": lambda folder, images: write_webdataset(folder, images, ending=".tar.gz"),
    "zip": write_zip,
    "parquet": write_parquet,
    "parquet.hf": write_hf_parquet,
    "hf": write_hf,
    "tfrecord": write_tfrecord,
    "tfrecord.gz": lambda folder, images: write_tfrecord(folder, images, gzip=True),
    "arrays": write_npz,
    "arrays.packed": lambda folder, images: write_npz(folder, images, packed=True),
    "arrays.npy": write_npy,
}


AUDITED = 48
"""Images of a whole audit."""


def in_class_order(count=200):
    """As a folder lists them, so that every form has them in this order."""
    return sorted(pictures(count), key=lambda image: (image.number, image.name))


@pytest.mark.parametrize("form", FORMS)
def test_the_same_pixels_count_and_labels(tmp_path, form):
    images = in_class_order()
    config = ImagesConfig(path=str(FORMS[form](tmp_path / "data", images)), classes=CLASSES)
    source = open_source(config)
    preprocess = Preprocess(PreprocessConfig(), 12, 10, 3, False, config.max_pixels)
    names, _ = class_names(config, source)
    refs = list(name_labels(source.list(), names))
    assert [ref.label for ref in refs] == [image.label for image in images]
    assert len({ref.image_id for ref in refs}) == len(refs)
    for ref, image in zip(refs, images, strict=True):
        np.testing.assert_array_equal(preprocess(source.read(ref)).image, image.pixels / np.float32(255))
    assert list(name_labels(open_source(config).list(), names)) == refs  # stable under re-listing
    sent = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(preprocess(sent.read(refs[9])).image, images[9].pixels / np.float32(255))


@pytest.fixture(scope="module")
def audit_of(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    small_cnn().save(folder / "cnn.keras")

    def audit(form):
        output = folder / form
        if not output.exists():
            path = FORMS[form](folder / f"data-{form}", in_class_order(AUDITED))
            command = [
                "audit",
                "--model",
                f"{folder}/cnn.keras",
                "--images",
                str(path),
                "--output",
                str(output),
            ]
            command += ["--images.classes=[ant, bee, cow]", "--store.shard_bytes=50_000"]  # 6 units
            assert main([*command, "--log-level=warning"]) == 0
        return augnet.open_audit(str(output))

    return audit


@pytest.mark.parametrize(
    "form", [form for form in FORMS if form in (*FORMATS, "webdataset.gz", "arrays.packed")]
)
def test_a_whole_audit_gives_the_same_statistics(audit_of, form):
    expected, found = audit_of("folder"), audit_of(form)
    assert found.counts == expected.counts and found.counts["audited"] == AUDITED
    whereabouts = ["image_id", "uri", "metadata"]
    assert found.statistics.drop(whereabouts).equals(expected.statistics.drop(whereabouts))
    for name, values in expected.maps.items():
        np.testing.assert_array_equal(found.maps[name], values)
    assert found.summary["accuracy"] == expected.summary["accuracy"]
    assert ("hospital" in found.slices["column"].to_pylist()) == (form == "manifest")


def test_every_format_is_in_the_registry_and_in_the_configuration():
    named = typing.get_args(ImagesConfig.model_fields["format"].annotation)
    assert set(named) == {"auto", "folder", *FORMATS}


@pytest.mark.parametrize("form", FORMS)
def test_a_format_that_is_named_is_the_one_that_is_found(tmp_path, form):
    path = FORMS[form](tmp_path / "data", pictures(4))
    found = open_source(ImagesConfig(path=str(path)))
    named = open_source(ImagesConfig(path=str(path), format=form.partition(".")[0]))
    assert type(found) is type(named) and list(found.list()) == list(named.list())


@pytest.fixture
def command(tmp_path):
    small_cnn().save(tmp_path / "cnn.keras")
    return ["audit", "--model", f"{tmp_path}/cnn.keras", "--output", f"{tmp_path}/out", "--log-level=warning"]


def test_a_label_without_an_output_fails_no_image(tmp_path, command):
    table = write_manifest(tmp_path, in_class_order(9))
    assert main([*command, "--images", str(table), "--images.classes=[ant, bee, dog]"]) == 0
    audit = augnet.open_audit(str(tmp_path / "out"))
    assert audit.counts["audited"] == 9 and audit.summary["judged"] == 6
    assert audit.statistics["label"].to_pylist() == ["ant"] * 3 + ["bee"] * 3 + ["cow"] * 3
    assert "no output for 1 label, which count as unlabelled: 'cow' (3 images)" in audit.run["label_rule"]


def test_images_of_a_container_that_fail_are_listed_with_stage_and_reason(tmp_path, command):
    images = pictures(8)
    table = [{"image": image.png, "label": image.label} for image in images]
    table[2]["image"], table[5]["image"] = b"no picture", None
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    assert main([*command, "--images", str(tmp_path / "a.parquet"), "--failures.max_fraction=0.5"]) == 0
    failures = augnet.open_audit(str(tmp_path / "out")).failures.to_pylist()
    assert [(failure["image_id"], failure["stage"]) for failure in failures] == [
        ("a.parquet#2", "decode"),
        ("a.parquet#5", "read"),
    ]
    assert failures[1]["error"] == "the row holds no image"


def test_a_wrong_column_is_a_bad_argument(tmp_path, command, capsys):
    path = write_parquet(tmp_path, pictures(3))
    assert main([*command, "--images", str(path), "--images.labels=species"]) == 2
    assert "there is no column 'species' in the data; there is 'label'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
