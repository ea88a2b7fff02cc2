"""The detection benchmark: its counterfactuals are what they claim, and its scoring is right."""

from dataclasses import asdict, replace

import keras
import numpy as np
import pytest

from benchmarks.findings import networks
from benchmarks.findings.baselines import hot_windows, sensitivity
from benchmarks.findings.cases import TEST_IMAGES, Use, draw_data, draw_shortcut, make_case, read_images
from benchmarks.findings.scenes import SHAPES, TEXTURES, draw_scenes
from benchmarks.findings.scoring import Finding, grade, is_control, is_used, score
from benchmarks.findings.shortcuts import Place, Shortcut
from benchmarks.findings.spec import CLASS_COUNTS, CONTROLS, KINDS, NETWORKS, PLACES, Spec
from benchmarks.findings.table import AUDIT, GRADIENTS, Result, tables


def spec_of(kind, start=0):
    return next(spec for spec in map(Spec.draw, range(start, start + 400)) if spec.kind == kind)


def drawn(data="shapes", count=12, size=24, channels=3, classes=3, noise=0.05, held_out=False):
    spec = replace(Spec.draw(0), data=data, size=size, channels=channels, aligned=True, noise=noise)
    spec = replace(spec, classes=tuple(range(classes)))
    return draw_scenes(spec, np.arange(count) % classes, np.random.default_rng(0), held_out)


def planted(kind, scenes, seed=3):
    size, channels = scenes.images.shape[2:]
    shortcut = Shortcut.draw(kind, size, channels, np.random.default_rng(seed))
    return shortcut, shortcut.plant(scenes, np.random.default_rng(4))


def test_both_halves_of_the_seeds_have_every_kind_and_a_third_of_controls():
    for parity in (0, 1):
        specs = [Spec.draw(seed) for seed in range(parity, 260, 2)]
        assert {spec.kind for spec in specs} == {*KINDS, *CONTROLS}
        assert {spec.network for spec in specs} == set(NETWORKS)
        controls = sum(spec.kind in CONTROLS for spec in specs)
        assert len(specs) / 3 < controls < len(specs) / 2
    assert Spec.draw(7) == Spec.draw(7)


@pytest.mark.parametrize("kind", KINDS)
def test_data_differ_by_the_shortcut_alone_and_only_where_it_is_planted(kind):
    spec = spec_of(kind)
    data = draw_data(spec, draw_shortcut(spec), 80, held_out=True)
    assert set(data.labels[data.carries]) == {spec.output}
    of_class = np.sum(data.labels == spec.output)
    assert abs(data.carries.sum() - spec.strength * of_class) <= 0.35 * of_class
    np.testing.assert_array_equal(data.images[~data.carries], data.without[~data.carries])
    np.testing.assert_array_equal(data.images[data.carries], data.planted[data.carries])
    assert (data.without != data.planted).any(axis=(1, 2, 3)).all()


def test_a_shortcut_in_all_classes_says_nothing_of_the_class():
    spec = spec_of("all_classes")
    data = draw_data(spec, draw_shortcut(spec), 300, held_out=False)
    shares = [data.carries[data.labels == label].mean() for label in range(len(spec.classes))]
    assert max(shares) - min(shares) < 0.5 and data.carries.mean() == pytest.approx(spec.strength, abs=0.02)


def test_a_clean_case_has_none():
    spec = spec_of("clean")
    data = draw_data(spec, draw_shortcut(spec), 20, held_out=True)
    assert not data.carries.any()
    np.testing.assert_array_equal(data.planted, data.without)


@pytest.mark.parametrize("kind", PLACES)
def test_places_are_where_the_images_differ(kind):
    scenes = drawn()
    shortcut, images = planted(kind, scenes)
    changed = (images != scenes.images).any(axis=(0, 3))
    inside = np.zeros_like(changed)
    for place in shortcut.places:
        inside[place.pixels] = True
        assert changed[place.pixels].any()
    assert not changed[~inside].any()
    if kind == "line":
        assert 1 in (shortcut.places[0].height, shortcut.places[0].width) and inside.sum() == 24
    assert (len(shortcut.places) > 1) == (kind == "several")


def test_what_is_no_place_changes_what_it_is_called_after():
    scenes = drawn(count=30)
    means, spreads = scenes.images.mean(axis=(1, 2)), scenes.images.std(axis=(1, 2, 3))
    after = {kind: planted(kind, scenes) for kind in KINDS if kind not in PLACES}
    cast = after["colour"][1].mean(axis=(1, 2)) - means
    np.testing.assert_allclose(cast.mean(axis=0), after["colour"][0].colour, atol=0.02)
    assert abs(cast.mean()) < 0.01  # a colour, no brightness
    brighter = after["brightness"][1].mean(axis=(1, 2)) - means
    np.testing.assert_allclose(brighter.mean(axis=0), after["brightness"][0].amount, atol=0.03)
    factor = after["contrast"][1].std(axis=(1, 2, 3)) / spreads
    assert factor.mean() == pytest.approx(after["contrast"][0].amount, rel=0.1)
    rough = [np.abs(np.diff(images, axis=2)).mean() for images in (scenes.images, after["blur"][1])]
    assert rough[1] < 0.7 * rough[0]
    rows = (after["moving"][1] != scenes.images).any(axis=(2, 3)).argmax(axis=1)
    assert len(set(rows.tolist())) > 5


def test_a_frequency_is_added_in_one_band_and_a_background_behind_the_objects():
    scenes = drawn(count=30, size=32)
    shortcut, images = planted("frequency", scenes)
    power = (np.abs(np.fft.fft2((images - scenes.images).mean(axis=3))) ** 2).mean(axis=0)
    frequency = 32 * np.hypot(np.fft.fftfreq(32)[:, None], np.fft.fftfreq(32))
    assert power[abs(frequency - shortcut.cycles) < 3].sum() > 0.85 * power.sum()
    _, images = planted("background", scenes)
    changed = np.abs(images - scenes.images).max(axis=3)
    assert changed[scenes.objects == 1].max() == 0 and changed[scenes.objects == 0].mean() > 0.02


@pytest.mark.parametrize("data", CLASS_COUNTS)
def test_classes_look_different_and_nothing_but_the_object_tells_them(data):
    assert CLASS_COUNTS["shapes"] == len(SHAPES) and CLASS_COUNTS["textures"] == len(TEXTURES)
    scenes = drawn(data, count=600, classes=CLASS_COUNTS[data])
    assert scenes.images.dtype == np.float32 and scenes.images.min() >= 0 and scenes.images.max() <= 1
    labels = np.arange(600) % CLASS_COUNTS[data]
    by_class = [scenes.images[labels == label] for label in range(CLASS_COUNTS[data])]
    levels = np.array([images.mean() for images in by_class])
    assert np.ptp(levels) < np.std([image.mean() for image in by_class[0]])
    objects = np.array([scenes.objects[labels == label].mean(axis=0) for label in range(3)])
    assert data == "textures" or np.ptp(objects, axis=0).max() > 0.3


def test_held_out_digits_are_other_digits():
    parts = [drawn("digits", count=400, size=8, classes=10, held_out=part) for part in (False, True)]
    seen, held_out = ({picture.tobytes() for picture in scenes.objects} for scenes in parts)
    assert not seen & held_out


def test_use_is_what_adding_and_removing_change():
    labels = np.repeat([0, 0, 0, 0, 1, 1, 2, 2], 10)
    without = np.repeat([0, 1, 1, 2, 1, 0, 2, 2], 10)
    with_it = np.repeat([0, 0, 0, 0, 0, 0, 0, 2], 10)
    use = Use.measure(without, with_it, labels, output=0, outputs=3)
    assert use.rise == pytest.approx(2 / 3)  # of 4, 6 and 7; image 5 is predicted as 0 anyhow
    assert use.drop == pytest.approx(3 / 4)
    assert use.gains == (0, 0.5, 0.25)
    assert use.effect == use.drop


def test_what_few_images_do_is_not_use():
    """Of 40 images with it, 19 are predicted as the class, and all of these lose it."""
    labels, without = np.repeat([0, 1], 40), np.repeat([1, 1], 40)
    with_it = np.where(np.arange(80) < 19, 0, 1)
    assert Use.measure(without, with_it, labels, output=0, outputs=2).effect == 0
    with_it[19] = 0
    assert Use.measure(without, with_it, labels, output=0, outputs=2).drop == 1


def case_of(kind, **changes):
    place = {"y": 10, "x": 10, "height": 4, "width": 4}
    found = {"kind": kind, "used": True, "output": 1, "size": 32, "strength": 0.8, "effect": 0.6}
    found |= {"accuracy": 0.6, "classes": [4, 0, 2]}
    found |= {"gains": [0.5, 0, 0.1], "places": [place] if kind in PLACES else []}
    return found | {"network": "dense", "data": "digits"} | changes


def at(y, x, height, width, kind="place", output=1):
    return Finding(kind, output, (Place(y, x, height, width),))


def test_a_place_is_right_for_its_class_where_it_touches():
    case = case_of("inside")
    assert grade(case, at(12, 12, 8, 8)) == "right"
    assert grade(case, at(13, 13, 8, 8)) == "false"  # one pixel of sixteen in common
    assert grade(case, at(20, 20, 8, 8)) == "false"
    assert grade(case, at(0, 0, 32, 20)) == "false"  # most of the image is no place
    assert grade(case, at(12, 12, 8, 8, output=2)) == "false"
    assert grade(case, at(12, 12, 8, 8, output=0)) == "true too"  # what images become without the shortcut
    assert grade(case, at(12, 12, 8, 8, kind="moving")) == "true too"
    assert grade(case, Finding("colour", 1, ())) == "false"


def test_other_kinds_are_right_by_name_and_class():
    assert grade(case_of("blur"), Finding("frequency", 1, ())) == "right"
    assert grade(case_of("blur"), Finding("frequency", 2, ())) == "false"
    assert grade(case_of("blur"), at(0, 0, 4, 4)) == "false"
    assert grade(case_of("moving"), at(0, 0, 4, 4)) == "true too"
    assert grade(case_of("background"), Finding("frequency", 1, ())) == "right"  # stripes, wherever they are
    assert grade(case_of("frequency"), Finding("background", 1, ())) == "true too"
    for kind in set(KINDS) - set(PLACES):
        assert grade(case_of(kind), Finding(kind, 1, ())) == "right"


def test_nothing_is_right_where_nothing_is_used():
    clean = case_of("clean", used=False, output=None, effect=0.0)
    assert is_control(clean) and grade(clean, at(12, 12, 8, 8)) == "false"
    everywhere = case_of("all_classes", used=False, output=None)
    assert not is_control(everywhere)  # its classes differ in what it does to them
    assert is_control(everywhere | {"effect": 0.1}) and is_control(everywhere | {"strength": 1.0})
    assert not is_control(case_of("corner", used=False))


def test_models_that_guess_count_nowhere():
    for kind in ("inside", "clean"):
        case = case_of(kind, used=kind == "inside")
        assert is_used(case) or is_control(case)
        guessing = case | {"accuracy": 0.39}  # of three classes in 400 images
        assert not is_used(guessing) and not is_control(guessing)


def test_scores_count_findings_and_the_table_counts_scores():
    case, clean = case_of("inside"), case_of("clean", used=False, output=None, effect=0.0)
    found = score(case, [at(12, 12, 8, 8), at(10, 10, 4, 4), at(0, 0, 4, 4), at(10, 10, 4, 4, "moving")])
    assert vars(found) == {"named": True, "right": 2, "true_too": 1, "false": 1}
    nothing, wrong = score(case, []), score(clean, [at(0, 0, 4, 4)])
    assert vars(nothing) == {"named": False, "right": 0, "true_too": 0, "false": 0}
    lines = tables(
        [
            Result(case, {AUDIT: found, GRADIENTS: nothing}),
            Result(case | {"effect": 0.4}, {AUDIT: nothing, GRADIENTS: nothing}),
            Result(clean, {AUDIT: score(clean, []), GRADIENTS: wrong}),
            Result(case_of("corner", used=False), {AUDIT: nothing, GRADIENTS: nothing}),
        ]
    )
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in lines if line}
    audit, gradients = rows[AUDIT], rows[GRADIENTS]
    assert audit[0].startswith("1 of 2, 50%") and audit[1] == "1 of 1, 100%"
    assert audit[2].startswith("0 of 1, 0%") and audit[4] == "1 of 4, 25%"
    assert gradients[0].startswith("0 of 2") and gradients[2].startswith("1 of 1")
    assert rows["inside"][:2] == ["1 of 2, 50%", "0 of 2, 0%"]


def test_the_gradient_only_rule_names_a_spot_that_one_output_has():
    rng = np.random.default_rng(0)
    maps, outputs = 1 + rng.random((120, 32, 32)), np.arange(120) % 3
    assert hot_windows(maps, outputs) == []
    maps[outputs == 2, 26:30, 2:6] += 60
    (found,) = hot_windows(maps, outputs)
    assert grade(case_of("inside", output=2, places=[asdict(Place(26, 2, 4, 4))]), found) == "right"


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_predict_classes_and_their_logits_have_gradients(network):
    model = networks.build(network, 16, 3, 5)
    images = drawn(count=4, size=16).images
    assert np.asarray(model(images)).sum(axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    magnitude = sensitivity(model, images, np.array([0, 1, 2, 4]))
    assert magnitude.shape == (4, 16, 16) and (magnitude > 0).mean() > 0.5


def test_a_case_is_made_once_and_its_model_uses_what_its_data_show(tmp_path, monkeypatch):
    seed = 18  # several patches, a dense network, 16 x 16 pixels
    case = make_case(seed, tmp_path / "case")
    assert case["used"] and case["effect"] >= 0.3
    assert case["accuracy"] > case["accuracy_without"] > 1 / len(case["classes"])
    spec = Spec.draw(seed)
    data = draw_data(spec, draw_shortcut(spec), TEST_IMAGES, held_out=True)
    np.testing.assert_array_equal(read_images(tmp_path / "case"), data.images)
    model = keras.models.load_model(tmp_path / "case" / "model.keras")
    predicted = np.asarray(model(data.images / np.float32(255))).argmax(axis=1)
    assert np.mean(predicted == data.labels) == case["accuracy"]
    monkeypatch.setattr(networks, "train", None)
    assert make_case(seed, tmp_path / "case") == case
