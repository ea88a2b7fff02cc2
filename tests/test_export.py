"""`augnet export`: what stands in the file or folder, for which images, and what is answered to mistakes."""

import io
import json
import shutil
import uuid

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from audit_processes import audit_command
from conftest import SIZE, linear_model, small_cnn, write_images
from PIL import Image

import augnet
from augnet.engine.batch import VIEWS
from augnet.errors import AuditError
from augnet.export.encoding import colored_map, encoded_picture, picture_format
from augnet.export.fiftyone import field_name
from augnet.export.images import ExportedImages
from augnet.export.projection import FEWEST
from augnet.export.run import ENDINGS, prepare_export
from augnet.report.figures import color_table
from augnet.storage import names, schema
from pipeline.main import EXPORTED_TO, main

HELD, IMAGES = 12, FEWEST - 12
LISTED = {pa_field.name for pa_field in schema.STATISTICS} - {"metadata", "jacobian_file", "jacobian_row"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An audit of a table of images with a further column; its report holds a part of them."""
    folder = tmp_path_factory.mktemp("export")
    write_images(folder / "images", IMAGES)
    small_cnn().save(folder / "cnn.keras")
    paths = sorted((folder / "images").glob("*/*.png"))
    rows = [f"{path},{path.parent.name},{'ward b' if k % 2 else 'ward a'}" for k, path in enumerate(paths)]
    (folder / "table.csv").write_text("\n".join(["path,label,taken.in", *rows]))
    flags = (f"--report.images={HELD}", "--store.shard_bytes=50000", "--findings.enabled=false")
    command = audit_command(folder / "cnn.keras", folder / "table.csv", folder / "audit", *flags)
    assert main([*command, "--log-level=error"]) == 0
    return folder


@pytest.fixture(scope="module")
def audit(folder):
    return augnet.open_audit(folder / "audit")


def exported(folder, to, *flags):
    """What `augnet export` writes, under a name of its own."""
    output = folder / f"{uuid.uuid4().hex}{ENDINGS[to]}"
    assert main(["export", str(folder / "audit"), "--to", to, "--output", str(output), *flags]) == 0
    return output


def pixels(cell):
    """The picture in a cell, as colours."""
    return np.asarray(Image.open(io.BytesIO(cell["bytes"])).convert("RGB"))


def test_every_image_has_its_row_and_only_held_ones_have_more(folder, audit, capsys):
    path = exported(folder, "parquet")
    table, statistics = pq.read_table(path), audit.statistics
    assert table["image_id"].to_pylist() == statistics["image_id"].to_pylist() and len(table) == IMAGES
    for name in LISTED - {"uri"}:
        assert table[name].to_pylist() == statistics[name].to_pylist(), name
    held = [image_id in audit.gallery["image_id"] for image_id in statistics["image_id"].to_pylist()]
    assert 0 < sum(held) < IMAGES
    for name in ("image", "heat_map", "projection_x", "projection_y"):
        assert [cell is not None for cell in table[name].to_pylist()] == held, name
    assert pq.ParquetFile(path).num_row_groups == len(audit.folder.names("statistics")) > 1
    printed = capsys.readouterr().out
    assert f"{IMAGES} of {IMAGES} images; {sum(held)} have a picture" in printed and "--images all" in printed


def test_names_of_classes_and_further_columns_stand_beside_the_numbers(folder):
    frame = pd.read_parquet(exported(folder, "parquet"))
    classes = np.array(["ant", "bee", "cow"])
    assert (classes[frame["predicted"]] == frame["predicted_name"]).all()
    assert set(frame["rival_name"]) <= set(classes) and set(frame["metadata_taken.in"]) == {
        "ward a",
        "ward b",
    }


def test_pictures_and_heat_maps_are_those_of_the_report(folder, audit):
    frame, gallery = pd.read_parquet(exported(folder, "parquet")).set_index("image_id"), audit.gallery
    for k, image_id in enumerate(gallery["image_id"].tolist()):
        cell = frame.loc[image_id, "image"]
        factor = len(pixels(cell)) // SIZE[0]
        np.testing.assert_array_equal(pixels(cell)[::factor, ::factor], gallery["thumbnail"][k])
        assert cell["path"] == frame.loc[image_id, "uri"]
        view = gallery["views"][k, VIEWS.index("predicted_magnitude")].astype(float)
        colors = color_table("magnitude")[np.rint(view / view.max() * 255).astype(int)]
        shown = pixels(frame.loc[image_id, "heat_map"])
        np.testing.assert_array_equal(shown[::factor, ::factor], colors)


def test_all_images_have_a_picture_and_a_map_where_they_can_be_read(folder, audit):
    frame = pd.read_parquet(exported(folder, "parquet", "--images", "all")).set_index("image_id")
    assert not frame[["image", "heat_map", "projection_x"]].isna().any().any()
    for image_id, row in frame.iterrows():
        picture, factor = np.asarray(Image.open(row["uri"])), len(pixels(row["image"])) // SIZE[0]
        np.testing.assert_array_equal(pixels(row["image"])[::factor, ::factor], picture)
        magnitude = np.sqrt((audit.jacobian(image_id)[row["predicted"]] ** 2).sum(axis=-1))
        brightest = np.unravel_index(pixels(row["heat_map"]).sum(-1)[::factor, ::factor].argmax(), SIZE)
        assert magnitude[brightest] == pytest.approx(magnitude.max(), rel=1 / 100)


def test_stored_jacobians_give_the_maps_of_the_report(audit, monkeypatch):
    maps = ExportedImages(audit, True, lambda *_: None)._maps
    rows = next(audit.parts("statistics"))
    read = maps.of(rows)
    monkeypatch.setattr(audit, "held", {})
    np.testing.assert_allclose(maps.of(rows), read, atol=read.max() / 100)


def test_images_and_jacobians_that_are_gone_leave_holes(folder, tmp_path):
    shutil.copytree(folder / "audit", tmp_path / "audit")
    run = json.loads((folder / "audit" / names.RUN).read_text())
    run["config"]["images"]["path"], run["config"]["store"]["pool"] = str(tmp_path / "gone"), 2
    audit = augnet.open_audit(tmp_path / "audit")
    del run["sha256"]
    audit.folder.write_sealed(names.RUN, run)
    frame = pd.read_parquet(exported(tmp_path, "parquet", "--images", "all"))
    assert 0 < frame["image"].notna().sum() == frame["heat_map"].notna().sum() < IMAGES


def test_embedding_atlas_is_given_what_it_can_draw(folder, audit, capsys):
    path = exported(folder, "embedding-atlas")
    table = pq.read_table(path)
    assert set(table["image_id"].to_pylist()) == set(audit.gallery["image_id"].tolist())
    nested = [field.name for field in table.schema if hasattr(field.type, "value_type")]
    assert not nested and {"image", "heat_map", "margin_l2", "cluster"} <= set(table.column_names)
    command = f"uvx embedding-atlas {path} --image image --x projection_x --y projection_y"
    assert f"open it: {command}" in capsys.readouterr().out


def test_fiftyone_is_given_samples_whose_every_field_is_described(folder, audit):
    path = exported(folder, "fiftyone", "--images", "all")
    samples = json.loads((path / "samples.json").read_text())["samples"]
    metadata = json.loads((path / "metadata.json").read_text())
    fields = {field["db_field"]: field for field in metadata["sample_fields"]}
    assert [sample["image_id"] for sample in samples] == audit.statistics["image_id"].to_pylist()
    assert len({sample["_id"]["$oid"] for sample in samples}) == IMAGES
    assert all(fields.keys() >= sample.keys() for sample in samples) and "metadata_taken_in" in fields
    for sample, row in zip(samples, audit.statistics.to_pylist(), strict=True):
        picture = np.asarray(Image.open(path / sample["filepath"]))
        assert picture.shape == (60, 50, 3) and sample["margin_l2"] == row["margin_l2"]
        assert sample["ground_truth"]["label"] == row["label"]
        assert sample["prediction"]["confidence"] == row["probability"]
        heat_map = np.asarray(Image.open(path / sample["heat_map"]["map_path"]))
        assert heat_map.shape == (60, 50) and heat_map.max() == 255


def test_the_same_audit_gives_the_same_bytes(folder):
    for to in ("parquet", "embedding-atlas"):
        first, second = (exported(folder, to) for _ in range(2))
        assert first.read_bytes() == second.read_bytes()
    first, second = (exported(folder, "fiftyone") for _ in range(2))
    for path in first.rglob("*.*"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()


def test_an_address_is_written_to(folder):
    root = f"memory://{uuid.uuid4().hex}"
    prepare_export(str(folder / "audit"), "parquet", f"{root}/audit.parquet").write()
    with fsspec.open(f"{root}/audit.parquet") as stream:
        assert pq.read_table(stream).num_rows == IMAGES
    prepare_export(str(folder / "audit"), "fiftyone", f"{root}/dataset").write()
    assert fsspec.filesystem("memory").exists(f"{root}/dataset/metadata.json")


def test_without_another_name_it_is_written_beside_the_audit(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "audit", tmp_path / "audit")
    monkeypatch.chdir(tmp_path / "audit")
    assert main(["export", ".", "--to", "embedding-atlas"]) == 0
    assert (tmp_path / "audit-atlas.parquet").is_file()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--to", "fiftytwo"], "invalid choice: 'fiftytwo'"),
        (["--to", "parquet", "--output", "{}/table.csv"], "give {}/table.csv.parquet"),
        (["--to", "parquet", "--output", "{}/audit/a.parquet"], "holds an audit; give a place outside of it"),
        (["--to", "parquet", "--output", "{}/there.parquet"], "is there already; delete it"),
        (["--to", "fiftyone", "--output", "{}/images"], "is there already; delete it"),
        (["--to", "fiftyone", "--output", "{}/there.parquet"], "is there already; delete it"),
    ],
)
def test_mistakes_are_answered_before_any_work(folder, capsys, flags, said):
    (folder / "there.parquet").write_text("old")
    flags = [flag.replace("{}", str(folder)) for flag in flags]
    assert main(["export", str(folder / "audit"), *flags]) == 2
    assert said.replace("{}", str(folder)) in capsys.readouterr().err
    assert (folder / "there.parquet").read_text() == "old"


def test_an_audit_that_has_not_finished_is_not_exported(folder, tmp_path, capsys):
    (tmp_path / "audit").mkdir()
    shutil.copy(folder / "audit" / names.RUN, tmp_path / "audit")
    assert main(["export", str(tmp_path / "audit"), "--to", "parquet"]) == 1
    assert "has not finished" in capsys.readouterr().err


def test_nothing_is_left_where_nothing_can_be_shown(folder, tmp_path):
    shutil.copytree(folder / "audit", tmp_path / "audit")
    np.savez(tmp_path / "audit" / names.GALLERY)
    for to in ("embedding-atlas", "fiftyone"):
        with pytest.raises(AuditError, match=r"no image has a .*--images all"):
            prepare_export(str(tmp_path / "audit"), to).write()
    assert not [*tmp_path.glob("audit-*/*"), *tmp_path.glob("*.parquet")]


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_regression_without_labels(tmp_path, outputs):
    write_images(tmp_path / "images", 12)
    linear_model(outputs).save(tmp_path / "model.keras")
    command = audit_command(tmp_path / "model.keras", tmp_path / "images", tmp_path / "audit")
    assert main([*command, "--images.labels=none", "--log-level=error"]) == 0
    prepare_export(str(tmp_path / "audit"), "fiftyone").write()
    samples = json.loads((tmp_path / "audit-fiftyone" / "samples.json").read_text())["samples"]
    assert len(samples) == 12 and all(sample["ground_truth"] is None for sample in samples)
    assert all(sample["heat_map"] and np.isfinite(sample["projection_x"]) for sample in samples)


def test_large_pictures_are_compressed_and_small_ones_kept_and_enlarged():
    noise = np.random.default_rng(0).integers(0, 256, (128, 100, 3), np.uint8)
    assert picture_format(noise) == "jpeg" and Image.open(io.BytesIO(encoded_picture(noise))).format == "JPEG"
    assert Image.open(io.BytesIO(encoded_picture(noise))).size == (100, 128)
    small = noise[:8, :8, :1]
    enlarged = np.asarray(Image.open(io.BytesIO(encoded_picture(small))))
    np.testing.assert_array_equal(enlarged[::8, ::8], small[..., 0])
    assert Image.open(io.BytesIO(colored_map(np.zeros((4, 4))))).size == (64, 64)


def test_the_command_knows_every_program():
    assert set(EXPORTED_TO) == set(ENDINGS)


def test_names_of_fields_are_those_of_attributes():
    assert [field_name(name) for name in ("margin_l2", "metadata_a.b $c")] == ["margin_l2", "metadata_a_b__c"]
