"""The report in a real browser: what its controls do, what hostile names become, what a keyboard reaches."""

import json
import os
import shutil

import pytest
from browser import chromium
from conftest import CLASSES, small_cnn, write_images
from selenium.webdriver import ActionChains, Keys

import augnet
from augnet.report.page import render
from pipeline.main import main

MARKUP = "<script>document.title='owned'<img src=x onerror=alert(1)>&\""
RIGHT_TO_LEFT = "\u202eتصویر\u202c عکس"
LONG = "long" * 50
NAMES = (f"{MARKUP}.png", f"{RIGHT_TO_LEFT}.png", f"{LONG}.png")
LABELS = (MARKUP, RIGHT_TO_LEFT, LONG)


def findings(image_ids):
    """One finding that is confirmed, one that is not, as findings.json holds them."""
    place = {"y": 2, "x": 3, "height": 4, "width": 5}
    confirmed = {
        "kind": "place",
        "output": 0,
        "name": LABELS[0],
        "places": [place],
        "effect": 0.62,
        "interval": [0.48, 0.74],
        "unit": "predictions",
        "changed": 0.66,
        "control": 0.04,
        "q_value": 0.001,
        "donors": 20,
        "receivers": 48,
        "images": [{"image_id": image_id, "share": 0.5} for image_id in image_ids],
        "sentence": f"{MARKUP} leans on the upper left corner",
    }
    whole = confirmed | {"places": []}
    return {
        "judged": {"outputs": 3, "images": 48},
        "confirmed": [confirmed, whole | {"kind": "colour", "sentence": "it leans on colour"}],
        "looks_at": [whole | {"output": 1, "kind": "moving", "images": []}],
        "tried": [{"kind": "place", "candidates": 18, "smallest_effect": 0.21}],
        "doubts": [f"doubt {MARKUP}"],
    }


@pytest.fixture(scope="module")
def audit(tmp_path_factory):
    """An audit of 48 images, two of them broken, whose names, labels, paths and settings are hostile."""
    folder = tmp_path_factory.mktemp("browser")
    images = folder / f"images {MARKUP}"
    write_images(images, 48)
    for label, name, old in zip(LABELS, NAMES, CLASSES, strict=True):
        first = min((images / old).iterdir())
        first.rename(images / old / name)
        (images / old).rename(images / label)
    (images / LABELS[0] / f"broken {MARKUP}.png").write_bytes(b"no picture")
    (images / LABELS[1] / f"{LONG} broken.png").write_bytes(b"")
    model = folder / f"model {MARKUP}.keras"
    small_cnn().save(model)
    out = folder / "out"
    arguments = ["--model", model, "--images", images, "--output", out, "--log-level=error"]
    arguments += ["--failures.max_fraction=0.1", "--images.classes=" + json.dumps(sorted(LABELS))]
    assert main(["audit", *map(str, arguments)]) == 0
    opened = augnet.open_audit(out)
    shown = opened.statistics["image_id"].to_pylist()[:3]
    opened.folder.write_json("findings.json", findings(shown))
    render(opened)
    return opened


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(audit, browser):
    """The report, just opened, in a browser that has nothing to complain of before and after."""
    browser.media("light")
    browser.open(audit.folder.path("report/index.html"))
    browser.wait("document.querySelectorAll('#image-list tbody tr').length > 0")
    yield browser
    assert browser.complaints() == []


def rows(page):
    """The image_ids in the table."""
    return page.texts("#image-list tbody th .name")


def statistics(audit, name):
    """image_id -> value."""
    columns = audit.statistics
    return dict(zip(columns["image_id"].to_pylist(), columns[name].to_pylist(), strict=True))


def expected(audit, name, reverse=False):
    values = statistics(audit, name)
    return sorted(values, key=values.get, reverse=reverse)


def test_the_first_screen_says_what_was_found(page):
    first = page.find("#headline").text
    assert "leans on the upper left corner." in first
    assert "48 images were audited" in first and "2 of 50 failed" in first
    assert "Guessed:" in first and "preprocess.scale was guessed" in first
    evidence = page.find(".evidence").text
    assert "62 points over its controls, 95 % interval 48 to 74" in evidence
    assert "confirmed by intervention" in evidence
    page.wait("document.querySelectorAll('.evidence canvas').length === 8")
    assert "place: 18 candidates; an effect below 0.21" in page.find("#findings").text
    errors = page.find("#triage").text
    assert "judged predictions are wrong" in errors and "maximum_probability lowest" in errors


def test_the_images_nearest_to_a_boundary_come_first(page, audit):
    assert rows(page) == expected(audit, "margin_l2")[:25]
    page.set("#filter-order", "highest")
    assert rows(page) == expected(audit, "margin_l2", reverse=True)[:25]


def test_a_heading_sorts_both_ways(page, audit):
    headings = page.texts("#image-list thead th")
    button = f"#image-list thead th:nth-child({headings.index('frobenius') + 1}) button"
    page.click(button)
    assert rows(page) == expected(audit, "frobenius")[:25]
    page.click(button)
    assert rows(page) == expected(audit, "frobenius", reverse=True)[:25]
    assert page.find(button.removesuffix(" button")).get_attribute("aria-sort") == "descending"


def test_filters_let_through_what_they_say(page, audit):
    labels, correct = statistics(audit, "label"), statistics(audit, "correct")
    page.set("#filter-label", f"={RIGHT_TO_LEFT}")
    wanted = [name for name in expected(audit, "margin_l2") if labels[name] == RIGHT_TO_LEFT]
    assert rows(page) == wanted
    page.set("#filter-correct", "wrong")
    assert rows(page) == [name for name in wanted if not correct[name]]
    page.click("#reset")
    page.set("#filter-search", "LONGLONG")
    assert set(rows(page)) == {name for name in labels if "longlong" in name.lower()}
    page.click("#reset")
    assert page.find("#matches").text == "48 of 48 images"
    norms = statistics(audit, "frobenius")
    low, high = sorted(norms.values())[10], sorted(norms.values())[20]
    page.set("#filter-statistic", "frobenius")
    page.set("#filter-low", low - 1e-6)
    page.set("#filter-high", high + 1e-6)
    assert len(rows(page)) == 11


def test_buttons_of_the_first_screen_open_the_images_they_name(page, audit):
    page.click("[data-filters]")
    correct = statistics(audit, "correct")
    assert rows(page) == [name for name in expected(audit, "margin_l2") if correct[name]][:25]
    page.click("[data-images]")
    assert set(rows(page)) == set(audit.statistics["image_id"].to_pylist()[:3])


def test_pages_turn(page, audit):
    page.click("#pager button:last-child")
    assert rows(page) == expected(audit, "margin_l2")[25:]
    assert page.find("#pager span").text == "page 2 of 2"


def test_a_bar_of_a_histogram_selects_its_images(page, audit):
    names = page.texts("#histograms figcaption b")
    plot = page.all("#histograms .plot")[names.index("entropy")]
    page.run("arguments[0].scrollIntoView({ block: 'center' })", plot)
    width = plot.rect["width"]
    actions = ActionChains(page.chrome, duration=0)
    actions.move_to_element_with_offset(plot, -int(width / 2) + 3, 0).click_and_hold()
    actions.move_by_offset(int(width / 2), 0).release().perform()
    high = float(page.find("#filter-high").get_attribute("value"))
    below = [name for name, value in statistics(audit, "entropy").items() if value <= high]
    assert page.find("#filter-low").get_attribute("value") == ""
    assert 0 < len(below) < 48 and f"{len(below)} of 48 images" == page.find("#matches").text


def test_the_slider_lays_the_row_over_the_picture(page):
    css = "#image-list td .exhibit canvas"
    page.click("[data-filters]")  # which scrolls to the table
    page.wait("document.querySelector(arguments[0]).width > 100", css)
    seen = []
    for opacity in (0, 0.5, 1):
        page.set("#opacity", opacity)
        page.settle()
        seen.append(page.pixels(css))
    assert seen[0] != seen[1] != seen[2] != seen[0]
    page.set("#signed", "signed")
    page.settle()
    assert page.pixels(css) != seen[2]


def test_a_finding_on_colour_shows_the_images_as_they_are(page):
    place, colour = (f"#findings > article:nth-of-type({k}) button canvas" for k in (1, 2))
    page.run("document.getElementById('findings').scrollIntoView()")
    page.wait("[...document.querySelectorAll('.evidence button canvas')].every((made) => made.width > 100)")
    before = page.pixels(place), page.pixels(colour)
    page.set("#opacity", 1)
    page.settle()
    assert page.pixels(place) != before[0] != before[1] == page.pixels(colour)


def test_an_image_is_enlarged_and_tells_its_values(page, audit):
    page.click("#image-list .exhibit")
    first, second = expected(audit, "margin_l2")[:2]
    page.wait("document.getElementById('viewer').dataset.shown === arguments[0]", first)
    assert len(page.all("#viewer figure > canvas")) == 5  # picture, overlay, two rows and their difference
    picture = page.find("#viewer .panels canvas")
    ActionChains(page.chrome, duration=0).move_to_element_with_offset(picture, 4, 4).perform()
    said = page.find("#viewer .values").text
    assert said.startswith("row 6, column 5 · picture ") and "predicted" in said and "rival" in said
    facts = page.find("#viewer .facts").text
    assert f"{statistics(audit, 'margin_l2')[first]:.4g}" in facts
    page.find("#viewer .head button").send_keys(Keys.ARROW_RIGHT)
    page.wait("document.getElementById('viewer').dataset.shown === arguments[0]", second)
    page.find("#viewer").send_keys(Keys.ESCAPE)
    page.wait("!document.getElementById('viewer').open")


def test_the_drawn_row_is_that_of_the_audit(page, audit):
    image_id = expected(audit, "margin_l2")[0]
    row = audit.jacobian(image_id)[statistics(audit, "predicted")[image_id]].sum(axis=-1)
    drawn = page.chrome.execute_async_script(
        "const done = arguments[1], k = augnet.data.images.image_id.indexOf(arguments[0]);"
        "augnet.pictures.exhibit(k).then((shown) =>"
        " done([...augnet.pictures.row(shown, 'predicted', true).values]))",
        image_id,
    )
    assert drawn == pytest.approx(row.ravel().tolist(), abs=float(0.51 * abs(row).max() / 127))


def test_everything_can_be_done_by_keyboard(page):
    page.find("body").send_keys(Keys.TAB)
    assert page.run("return document.activeElement.className") == "skip"
    button = page.find("#image-list .exhibit")
    page.run("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    page.wait("document.getElementById('viewer').open")
    page.find("#viewer").send_keys(Keys.ESCAPE)
    assert page.run("return document.activeElement.className") == "exhibit"
    unreachable = page.run(
        "return [...document.querySelectorAll('main button, main select, main input, main a')]"
        ".filter((element) => element.tabIndex < 0).map((element) => element.outerHTML)"
    )
    assert unreachable == []


def test_maps_are_found_by_name(page):
    page.wait("document.querySelectorAll('#map-list figure').length === 3")
    page.set("#map-search", "output 2")
    assert len(page.all("#map-list figure")) == 1
    assert page.texts("#map-list .axis span") == ["coarse", "fine"]
    assert len(page.all("#map-list .spectrum rect")) == 23
    page.set("#map-kind", "signed")
    page.settle()
    assert page.texts("#map-bar span")[0].startswith("-")
    page.set("#map-search", "")
    page.set("#map-group", "1")
    assert len(page.all("#map-list figure")) == 3 and "label" in page.find("#map-list figcaption").text
    assert not page.all("#map-list .spectrum")  # of labels there is none


def test_hostile_strings_are_text_everywhere(page, audit):
    for section in ("slices", "pairs", "failures", "made"):
        page.run("document.getElementById(arguments[0]).scrollIntoView()", section)
        page.settle()
    assert page.chrome.title.startswith("augnet: model <script>")
    assert page.all("main script, main img") == [] and page.all("[onerror]") == []
    for where in ("h1", "#headline", ".evidence", "#map-list", "#slices", "#confusion", "#failures", "#made"):
        assert MARKUP in "".join(page.texts(where)), where
    page.set("#filter-search", "script")
    assert f"{MARKUP}/{MARKUP}.png" in rows(page)
    for name in (f"{RIGHT_TO_LEFT}.png", f"{LONG}.png"):
        page.set("#filter-search", name)
        (shown,) = page.all("#image-list tbody th .name")
        assert shown.tag_name == "bdi" and shown.get_attribute("title").endswith(name)
        assert shown.rect["width"] <= 215
    page.click("#image-list .exhibit")
    page.wait("document.getElementById('viewer').dataset.shown.includes('long')")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")


def test_the_name_links_to_the_file(page, audit):
    link = page.find("#image-list tbody th a")
    opened = page.run("return decodeURIComponent(new URL(arguments[0].href).pathname)", link)
    assert os.path.exists(opened) and opened.endswith(link.text.rpartition("/")[2][-10:])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 400)])
def test_nothing_serious_stands_in_the_way_of_anyone(page, scheme, width):
    page.media(scheme)
    page.resize(width, 1000)
    for section in ("slices", "pairs", "images"):
        page.run("document.getElementById(arguments[0]).scrollIntoView()", section)
        page.settle()
    assert page.barriers() == []
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    page.click("#image-list .exhibit")
    page.wait("document.querySelectorAll('#viewer .panels canvas').length > 0")
    assert page.barriers() == []


def test_it_prints(page):
    assert page.printed().startswith(b"%PDF")
    page.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not page.find("nav").is_displayed() and not page.find("#filters").is_displayed()
    assert page.find("#image-list tbody tr").is_displayed()
    page.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    page.wait(
        "document.querySelectorAll('#confusion table').length === 1"
    )  # what was not seen yet is printed


def test_the_report_works_wherever_it_is_copied(audit, browser, tmp_path):
    shutil.copytree(audit.folder.path("report"), tmp_path / "copy of it")
    browser.open(tmp_path / "copy of it" / "index.html")
    browser.wait("document.querySelectorAll('#image-list tbody tr').length > 0")
    assert browser.complaints() == []
