"""`augnet compare` and controls on audits of real models: statuses, files, page, and what a report says."""

import json
import random
import re
import shutil
from xml.etree import ElementTree

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, small_cnn, write_images
from PIL import Image
from test_report_page import Page

import augnet
from augnet.comparison.control import MAP_STATISTICS, control_verdict
from augnet.comparison.gate import DEFAULT_RULES
from augnet.config import load_config
from augnet.errors import ModelError
from augnet.models.control import with_random_weights
from augnet.models.loading import load_model
from pipeline.main import main

HOSTILE = '<img src=x onerror=alert(1)>&"|[x](y)'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Audits of a model that was fitted, of another, and of controls; one image has a hostile name."""
    folder = tmp_path_factory.mktemp("comparison")
    write_images(folder / "images", 48)
    for path in (folder / "images").glob("*/*.png"):  # a bright band for each class: something to learn
        pixels = np.array(Image.open(path)) // 3
        pixels[4 * CLASSES.index(path.parent.name) :][:4] += 150
        Image.fromarray(pixels).save(path)
    (folder / "images" / "ant" / "0000.png").rename(folder / "images" / "ant" / f"{HOSTILE}.png")
    paths = sorted((folder / "images").glob("*/*.png"))
    pixels = np.stack([np.asarray(keras.utils.load_img(path)) for path in paths]) / np.float32(255)
    labels = np.array([CLASSES.index(path.parent.name) for path in paths])
    model = small_cnn()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(pixels, labels, epochs=20, verbose=0)
    model.save(folder / "fitted.keras")
    small_cnn().save(folder / "other.keras")
    for name, flags in {
        "fitted": [],
        "other": [],
        "control": ["--control", "random-weights"],
        "control2": ["--control", "random-weights", "--model.control_seed=1"],
    }.items():
        path = folder / ("other.keras" if name == "other" else "fitted.keras")
        arguments = ["--model", path, "--images", folder / "images", "--output", folder / name, *flags]
        assert main(["audit", *map(str, arguments), "--log-level=error"]) == 0
    return folder


def compare(folder, *arguments):
    return main(["compare", *(str(folder / name) for name in arguments[:2]), *arguments[2:]])


def test_the_same_audit_twice_passes_every_rule(folder, capsys):
    shutil.copytree(folder / "fitted", folder / "copy")
    rules = ["--fail-if", "flips > 0%", "--fail-if", "new shortcut", "--fail-if", "gini.p01 rises 0%"]
    assert compare(folder, "fitted", "copy", *rules) == 0
    assert compare(folder, "fitted", "copy") == 0
    assert "All 3 rules passed" in capsys.readouterr().out


def test_everything_is_written_and_says_the_same(folder, capsys):
    out = folder / "comparison"
    rules = ["--fail-if", "accuracy drops 1pp", "--fail-if", "margin_l2.mean drops 300%"]
    (folder / "gate.yaml").write_text("fail_if: [entropy.p01 drops 1%]")
    rules += ["--rules", str(folder / "gate.yaml"), "--output", str(out)]
    assert compare(folder, "fitted", "other", *rules) == 1
    printed = capsys.readouterr().out
    tree = json.loads((out / "comparison.json").read_text())
    outcomes = {verdict["rule"]: verdict["outcome"] for verdict in tree["gate"]}
    assert outcomes == {
        "accuracy drops 1pp": "failed",
        "margin_l2.mean drops 300%": "passed",
        "entropy.p01 drops 1%": "not enough images",
    }
    suite = ElementTree.parse(out / "junit.xml").getroot()
    assert [suite.get(key) for key in ("tests", "failures", "errors")] == ["3", "1", "1"]
    assert [case.get("name") for case in suite] == list(outcomes)
    summary, page = (out / "summary.md").read_text(), (out / "index.html").read_text()
    for rule in outcomes:
        assert rule in printed and rule.replace("_", "\\_") in summary and rule in Page(page).text
    assert tree["images"]["both"] == 48 and tree["flips"]["negative"]["count"] > 0
    assert tree["statistics"]["gini"]["paired"]["count"] == 48 and tree["jacobians"]["images"] == 48


def test_options_may_stand_between_the_audits(folder, capsys):
    audits = [str(folder / name) for name in ("fitted", "other")]
    assert main(["compare", audits[0], "--fail-if", "flips > 100%", audits[1]]) == 0
    assert main(["compare", audits[0], "--failif", "flips > 100%", audits[1]]) == 2
    assert "--failif: no such argument" in capsys.readouterr().err


def test_not_enough_images_is_status_3(folder):
    assert compare(folder, "fitted", "other", "--fail-if", "entropy.p01 drops 1%") == 3


def test_bad_arguments_are_status_2(folder, capsys):
    assert main(["compare", str(folder / "fitted")]) == 2
    assert compare(folder, "fitted", "other", "--fail-if", "nonsense") == 2
    assert compare(folder, "fitted", "other", "--output", str(folder / "other")) == 2
    said = capsys.readouterr().err
    assert "two audits or more" in said and "is no rule" in said and "is a part of the audit" in said


def test_what_cannot_be_compared_is_status_2(folder, tmp_path, capsys):
    shutil.copytree(folder / "fitted", tmp_path / "unfinished")
    (tmp_path / "unfinished" / "manifest.json").unlink()
    shutil.copytree(folder / "fitted", tmp_path / "damaged")
    (tmp_path / "damaged" / "run.json").write_text("{")
    for path, said in {
        "nowhere": "holds no audit",
        "unfinished": "has not finished; run the same command again",
        "damaged": "is damaged",
    }.items():
        assert main(["compare", str(folder / "fitted"), str(tmp_path / path)]) == 2
        assert said in capsys.readouterr().err


def test_where_nothing_may_be_written_is_said_first(folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "app.js").write_text("")
    for output, said in {
        tmp_path / "file": "is no folder",
        tmp_path / "file" / "below": "is no folder",
        tmp_path / "site": "holds other files ('app.js', ...)",
        folder / "other" / "comparison": "is a part of the audit",
    }.items():
        assert compare(folder, "fitted", "other", "--output", str(output)) == 2
        assert said in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "site").iterdir()] == ["app.js"]


def test_a_control_of_another_model_is_refused(folder, capsys):
    for pair in (("other", "control"), ("control", "other")):
        assert compare(folder, *pair) == 2
        said = capsys.readouterr().err
        assert f"audit {folder / 'other.keras'} over the same images with --control random-weights" in said


def test_the_help_tells_the_rules_and_statuses(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert all(rule in said for rule in DEFAULT_RULES) and "3 no rule failed" in said


def test_the_same_files_give_the_same_bytes(folder):
    for name in ("first", "second"):
        assert compare(folder, "fitted", "other", "--output", str(folder / name)) == 1
    for path in sorted((folder / "first").iterdir()):
        assert path.read_bytes() == (folder / "second" / path.name).read_bytes(), path.name


def test_the_page_holds_all_it_shows_and_names_are_text(folder):
    out = folder / "series"
    audits = [str(folder / name) for name in ("other", "fitted", "other")]
    assert main(["compare", *audits, "--output", str(out), "--fail-if", "flips > 100%"]) == 0
    html = (out / "index.html").read_text()
    page = Page(html)
    assert "script" not in page.tags and "link" not in page.tags and f"{HOSTILE}.png" in page.text
    assert page.loaded and all(source.startswith("data:image/png;base64,") for source in page.loaded)
    assert not re.search(r"(src|href)=\"(?!data:|#)", html) and "url(" not in html
    assert "Gradient varied most" in html and (out / "gradient_variance.parquet").exists()
    assert compare(folder, "fitted", "other", "--output", str(out), "--fail-if", "flips > 100%") == 0
    assert not (out / "gradient_variance.parquet").exists()  # it was the series'
    assert HOSTILE not in (out / "summary.md").read_text()


def test_a_control_is_linked_and_tells_what_the_audit_saw(folder):
    fitted, control = (augnet.open_audit(folder / name) for name in ("fitted", "control"))
    assert control.run["control_of"] == fitted.run["identity"]["model"] and fitted.run["control_of"] is None
    assert control.run["identity"]["model"] != fitted.run["identity"]["model"]
    verdict = control_verdict(fitted, control)
    assert verdict.learned and {part.name for part in verdict.seen} >= {*MAP_STATISTICS, "each image's map"}
    assert all("model" in part.shows for part in verdict.seen), verdict.sentences


def test_of_a_control_against_a_control_nothing_is_claimed(folder, capsys):
    controls = [augnet.open_audit(folder / name) for name in ("control", "control2")]
    verdict = control_verdict(*controls)
    assert {part.shows for part in verdict.seen} == {"nothing claimed"}
    assert compare(folder, "control", "control2") == 0
    assert "nothing is claimed" in capsys.readouterr().out


def test_of_a_model_that_learned_nothing_nothing_is_claimed(folder):
    control = augnet.open_audit(folder / "control")
    shutil.copytree(folder / "other", folder / "guessing")
    guessing = augnet.open_audit(folder / "guessing")
    table, (part,) = guessing.statistics, guessing.folder.names("statistics")
    place = table.schema.get_field_index("correct")
    table = table.set_column(place, table.schema.field(place), control.column("correct"))
    pq.write_table(table, guessing.folder.path(part))
    verdict = control_verdict(guessing, control)
    assert verdict.learned is False and {part.shows for part in verdict.seen} == {"nothing claimed"}


def test_a_report_says_it_where_a_control_lies_beside_the_audit(folder):
    fitted = augnet.open_audit(folder / "fitted")
    page = Page((folder / "fitted" / "report" / "index.html").read_text())
    assert "random weights" not in page.text  # the control was made later
    assert main(["report", str(folder / "fitted")]) == 0
    page = Page((folder / "fitted" / "report" / "index.html").read_text())
    sentences = fitted.folder.read_json("control.json")["sentences"]
    assert "With random weights in place of the trained ones" in sentences[0] and sentences[0] in page.text
    assert main(["check", str(folder / "fitted")]) == 0
    control = augnet.open_audit(folder / "control")
    assert not control.folder.exists("control.json")


def test_random_weights_are_seeded_and_leave_the_process_alone(folder):
    flags = {"model.path": str(folder / "fitted.keras"), "images.path": "x", "output": "y"}
    config = load_config(flags=flags | {"model.control": "random-weights"}).model
    first, again = (load_model(config).get_weights() for _ in range(2))
    other = load_model(config.model_copy(update={"control_seed": 1})).get_weights()
    trained = load_model(config.model_copy(update={"control": None})).get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0]) and not np.array_equal(first[0], trained[0])
    assert [part.shape for part in first] == [part.shape for part in trained]
    model = keras.saving.load_model(folder / "fitted.keras")
    state = random.getstate()
    with_random_weights(model, 3)
    assert random.getstate() == state


def test_what_is_not_learned_stays_in_a_control():
    layers = keras.layers
    scaled = layers.Normalization(mean=0.0, variance=1.0)
    adapted = layers.Normalization()
    adapted.adapt(np.arange(24.0).reshape(2, 2, 2, 3))
    inner = keras.Sequential([keras.Input((2, 2, 3)), layers.Conv2D(2, 1), layers.BatchNormalization()])
    model = keras.Sequential(
        [keras.Input((2, 2, 3)), scaled, adapted, inner, layers.Flatten(), layers.Dense(2)]
    )
    inner.layers[1].set_weights([np.full(2, 7.0)] * 4)
    model.layers[2].trainable = False
    control = with_random_weights(model, seed=0)
    assert np.array_equal(control.layers[1].get_weights()[0], adapted.get_weights()[0])
    assert control.layers[2].layers[1].get_weights()[2].tolist() == [0, 0]  # the moving mean, as new
    kernels = [part.layers[2].layers[0].get_weights()[0] for part in (model, control)]
    assert not np.array_equal(*kernels)


def test_a_signature_has_no_control(folder):
    model = keras.saving.load_model(folder / "fitted.keras")
    model.export(folder / "saved", verbose=False)
    keys = {"model.path": str(folder / "saved"), "images.path": "x", "output": "y"}
    with pytest.raises(ModelError, match="a SavedModel holds no initializers"):
        load_model(load_config(flags=keys | {"model.control": "random-weights"}).model)
