import base64
import io
import json
import re
import shlex
import zlib
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from conftest import write_images
from PIL import Image

import augnet
from augnet.report.images import address
from augnet.report.page import render
from augnet.report.provenance import command
from augnet.storage import names
from pipeline.main import main

HOSTILE = '<img src=x onerror=alert(1)>&"'


class Page(HTMLParser):
    """Tags, addresses of what it loads, and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.loaded, self.text = set(), [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        found = dict(attributes)
        self.loaded += [found["src"]] if "src" in found else []
        self.loaded += [found["href"]] if tag == "link" else []
        assert not any(name.startswith("on") for name in found)

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def hostile_audit(tmp_path, cnn_path):
    write_images(tmp_path / "images", 12)
    (tmp_path / "images" / "ant").rename(tmp_path / "images" / HOSTILE)
    (tmp_path / "images" / "bee" / f"{HOSTILE}.png").write_text("no picture")
    arguments = ["audit", "--model", cnn_path, "--images", tmp_path / "images", "--output", tmp_path / "out"]
    assert (
        main([str(argument) for argument in [*arguments, "--log-level=error", "--failures.max_fraction=0.1"]])
        == 0
    )
    return augnet.open_audit(tmp_path / "out")


def test_names_from_data_are_text_and_never_paths(hostile_audit):
    html = hostile_audit.folder.read_bytes(names.REPORT).decode()
    page = Page(html)
    assert "img" not in page.tags and f"bee/{HOSTILE}.png" in page.text
    beside = [address for address in page.loaded if address != "data:,"]
    assert {"core.js", "report.css", "data.js"} <= set(beside)
    assert all(re.fullmatch(r"[a-z0-9-]+\.(js|css)", address) for address in beside)
    assert all(hostile_audit.folder.exists(f"report/{address}") for address in beside)
    assert f"{HOSTILE}/0000.png" in received(hostile_audit, "data")["images"]["image_id"]


def received(audit, name):
    """What a data file hands to the page."""
    script = audit.folder.read_bytes(f"report/{name}.js").decode()
    return json.loads("[" + re.fullmatch(r"augnet\.receive\((.*)\);\n", script)[1] + "]")[1]


def test_what_an_earlier_report_left_is_deleted_and_other_files_are_not(hostile_audit):
    folder = hostile_audit.folder
    for name in ("output-3.png", "images-999.js", "notes.txt"):
        folder.write_bytes(f"report/{name}", b"old")
    render(hostile_audit)
    assert not folder.exists("report/output-3.png") and not folder.exists("report/images-999.js")
    assert folder.exists("report/notes.txt")


def test_all_images_of_a_small_audit_are_held_in_the_order_of_their_margins(hostile_audit):
    columns, table = received(hostile_audit, "data")["images"], hostile_audit.statistics
    margins = dict(zip(table["image_id"].to_pylist(), table["margin_l2"].to_pylist(), strict=True))
    assert columns["image_id"] == sorted(margins, key=margins.get) and len(margins) == 12
    assert columns["margin_l2"] == pytest.approx(sorted(margins.values()), rel=1e-5)


def test_a_sheet_holds_the_pictures_and_the_rows_in_that_order(hostile_audit):
    columns, sheet = received(hostile_audit, "data")["images"], received(hostile_audit, "images-000")
    address = sheet["pictures"].removeprefix("data:image/webp;base64,")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(address))))
    views = np.frombuffer(zlib.decompress(base64.b64decode(sheet["views"])), np.int8).reshape(12, 5, 12, 10)
    for place in (0, 11):
        image_id, left, top = columns["image_id"][place], 10 * (place % 8), 12 * (place // 8)
        uri = columns["uri"][place]
        np.testing.assert_array_equal(picture[top : top + 12, left : left + 10], np.asarray(Image.open(uri)))
        row = hostile_audit.jacobian(image_id)[columns["predicted"][place]].sum(axis=-1)
        step = sheet["scale"][place][0] / 127
        np.testing.assert_allclose(views[place, 0] * step, row, atol=0.51 * step)


@pytest.mark.parametrize(
    ("uri", "opened"),
    [
        ("/data/a b/c.png", "file:///data/a%20b/c.png"),
        ("/data/images.tar#a/b.png", "file:///data/images.tar"),
        ("/data/half#full.png", "file:///data/half%23full.png"),
        ("https://host/a.png", "https://host/a.png"),
        ("gs://bucket/a.png", None),
        ("javascript:alert(1)", None),
    ],
)
def test_a_link_opens_the_file_or_what_holds_it(uri, opened):
    assert address(uri) == opened


def test_the_command_makes_the_same_audit(hostile_audit, tmp_path):
    words = shlex.split(command(hostile_audit).replace("\\\n", ""))
    assert words[:2] == ["augnet", "audit"] and f"--images.path={tmp_path / 'images'}" in words
    assert words[-1] == "--output=AUDIT" and len(words) == 5


def test_what_was_handed_over_is_made_again_by_the_call(tmp_path, images, cnn_path):
    keys = {"jacobian": {"outputs": "top:2"}, "report": {"images": 3}, "progress": False}
    made = augnet.audit(keras.models.load_model(cnn_path), images, tmp_path / "a", **keys)
    said = command(made)
    assert said.startswith("augnet.audit(\n    model,  # ") and "(in memory)\n" in said
    model = keras.models.load_model(cnn_path)
    again = eval(said.replace("'AUDIT'", repr(str(tmp_path / "b"))), {"augnet": augnet, "model": model})
    assert again.run["fingerprint"] == made.run["fingerprint"] and command(again) == said


def test_the_report_is_rendered_again_from_the_files_alone(hostile_audit, tmp_path):
    folder = hostile_audit.folder
    before = {name: folder.read_bytes(name) for name in folder.names("report")}
    folder.fs.rm(folder.path("report"), recursive=True)
    (tmp_path / "images").rename(tmp_path / "gone")
    assert main(["report", str(tmp_path / "out")]) == 0
    assert {name: folder.read_bytes(name) for name in folder.names("report")} == before


def test_counts_scale_and_reason_are_shown(hostile_audit):
    text = Page(hostile_audit.folder.read_bytes(names.REPORT).decode()).text
    assert "12 images were audited; 1 of 13 failed." in text
    assert "unit. Pixels are divided by 255" in text


def test_report_of_no_audit_is_an_error(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no audit" in capsys.readouterr().err
