"""The page of a comparison in a real browser."""

import browser
import numpy as np
import pytest
from comparison_helpers import finding, findings, made_audit

from augnet.comparison.run import compare

MARKUP = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\""
FOLDER = MARKUP.replace("/", "")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A comparison of three audits whose names are hostile, with a rule of each outcome."""
    folder = tmp_path_factory.mktemp("browser")
    rows = np.random.default_rng(1).normal(size=(3, 60, 3, 4, 5, 1)).astype(np.float32)
    ids = {"image_id": [f"{MARKUP} {k}" for k in range(60)]}
    wrong = ids | {"predicted": np.full(60, 1, np.int32)}
    seen = findings(finding() | {"sentence": f"{MARKUP} leans"})
    audits = [
        made_audit(folder / f"{FOLDER} {k}", 60, k, columns=columns, jacobians=rows[k], findings=found)
        for k, (columns, found) in enumerate([(ids, findings()), (ids, findings()), (wrong, seen)])
    ]
    compare([str(audit.folder) for audit in audits], output=str(folder / "out"))
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def opened(page):
    with browser.chromium() as chrome:
        chrome.open(page)
        yield chrome


def test_it_loads_nothing_complains_of_nothing_and_runs_no_name(opened):
    assert opened.complaints() == []
    assert "owned" not in opened.run("return document.title")
    loaded = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    assert not [name for name in opened.run(loaded) if not name.startswith("data:")]
    assert opened.run("return document.querySelectorAll('script, main img[src=x]').length") == 0


def test_it_shows_verdicts_pictures_plots_and_the_series(opened):
    outcomes = opened.texts("#gate .tag")
    assert "failed" in outcomes and len(outcomes) == 5
    assert any(MARKUP in text for text in opened.texts("#summary li"))
    loaded = "return [...document.images].every((image) => image.complete && image.naturalWidth > 0)"
    assert opened.all("#images img") and opened.run(loaded)
    assert opened.all("#series polyline") and opened.all("#statistics polyline")
    inside = "return [...document.querySelectorAll('polyline')].every((line) => line.getBBox().height <= 91)"
    assert opened.run(inside)


def test_it_fits_a_narrow_screen(opened):
    opened.resize(400, 800)
    assert opened.run("return document.documentElement.scrollWidth") <= 400


def test_assistive_technology_meets_no_barriers(opened):
    for scheme in ("light", "dark"):
        opened.media(scheme)
        assert opened.barriers() == []
