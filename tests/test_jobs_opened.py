"""`augnet.open_audit`: the images of an audit, and the figures that show them."""

import shutil

import matplotlib
import numpy as np
import pytest
from conftest import small_cnn, write_images
from PIL import Image

matplotlib.use("Agg")

from matplotlib import pyplot as plt

import augnet
from augnet.errors import AuditError


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    """By which rows were stored, audits of the same images."""
    folder = tmp_path_factory.mktemp("opened")
    write_images(folder / "images", 12)
    for stored in ("all", "predicted", "none"):
        store = {"jacobians": stored}
        augnet.audit(small_cnn(), folder / "images", folder / stored, store=store, progress=False)
    return {stored: augnet.open_audit(folder / stored) for stored in ("all", "predicted", "none")}


@pytest.fixture(params=["all", "predicted", "none"])
def opened(audits, request):
    return audits[request.param]


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def test_an_image_is_what_its_file_holds(opened):
    row = opened.statistics.slice(3, 1).to_pylist()[0]
    with Image.open(row["uri"]) as picture:
        np.testing.assert_array_equal(opened.image(row["image_id"]), np.asarray(picture))
    with pytest.raises(KeyError, match="no such image"):
        opened.image("ant/none.png")


@pytest.mark.parametrize("signed", [False, True])
def test_an_image_is_shown_with_its_rows_and_the_rival_s(opened, signed):
    row = opened.worst("margin_l2", 1).to_pylist()[0]
    shown = opened.show(row["image_id"], signed=signed)
    names = ["output 0 (ant)", "output 1 (bee)", "output 2 (cow)"]
    assert [ax.get_title() for ax in shown[1:]] == [
        f"predicted: {names[row['predicted']]}",
        f"rival: {names[row['rival']]}",
    ]
    title = shown[0].get_title()
    assert title.startswith(row["image_id"]) and f"label {row['label']}" in title
    assert f"margin {row['margin_l2']:.3g}" in title
    np.testing.assert_array_equal(shown[0].images[0].get_array(), opened.image(row["image_id"]))


@pytest.mark.parametrize("signed", [False, True])
def test_rows_that_were_not_stored_are_shown_from_the_report(audits, signed):
    image_id = audits["all"].worst("margin_l2", 1)["image_id"][0].as_py()

    def shown(stored):
        axes = audits[stored].show(image_id, signed=signed)[1:]
        return np.stack([np.asarray(ax.images[0].get_array()) for ax in axes])

    expected = shown("all")
    for stored in ("predicted", "none"):
        rounding = (
            np.abs(expected).max() / 127
        )  # the report keeps a row in 127 steps of its largest magnitude
        np.testing.assert_allclose(shown(stored), expected, atol=rounding)


def test_arrays_and_files_that_are_gone_are_shown_from_the_report(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 12, 10, 3), np.uint8)
    audit = augnet.audit(small_cnn(), pixels, tmp_path / "arrays", progress=False)
    np.testing.assert_array_equal(audit.image("4"), pixels[4])
    assert len(audit.show("4")) == 3

    write_images(tmp_path / "images", 6)
    none = augnet.audit(
        small_cnn(), tmp_path / "images", tmp_path / "out", report={"images": 0}, progress=False
    )
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(AuditError, match=r"cannot be read again.*report\.images"):
        none.image(none.statistics["image_id"][0].as_py())
