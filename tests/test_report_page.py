import re
from html.parser import HTMLParser

import pytest
from conftest import write_images

import augnet
from augnet.storage import names
from pipeline.main import main

HOSTILE = '<img src=x onerror=alert(1)>&"'


class Page(HTMLParser):
    """Tags, addresses of pictures, and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.pictures, self.text = set(), [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.pictures += [value for name, value in attributes if tag == "img" and name == "src"]
        assert not any(name.startswith("on") for name, _ in attributes)

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
    assert "script" not in page.tags and "x" not in page.pictures
    assert f"{HOSTILE}/0000.png" in page.text and f"bee/{HOSTILE}.png" in page.text
    assert all(re.fullmatch(r"[a-z0-9_-]+\.png", address) for address in page.pictures)
    assert all(hostile_audit.folder.exists(f"report/{address}") for address in page.pictures)


def test_the_report_is_rendered_again_from_the_files_alone(hostile_audit, tmp_path):
    folder = hostile_audit.folder
    before = {name: folder.read_bytes(name) for name in folder.names("report")}
    folder.fs.rm(folder.path("report"), recursive=True)
    (tmp_path / "images").rename(tmp_path / "gone")
    assert main(["report", str(tmp_path / "out")]) == 0
    assert {name: folder.read_bytes(name) for name in folder.names("report")} == before


def test_counts_scale_and_reason_are_shown(hostile_audit):
    text = Page(hostile_audit.folder.read_bytes(names.REPORT).decode()).text
    assert "12images audited" in text and "1failed" in text
    assert "unit. Pixels are divided by 255" in text


def test_report_of_no_audit_is_an_error(tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no audit" in capsys.readouterr().err
