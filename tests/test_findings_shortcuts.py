"""Shortcut flags on models trained with and without a planted tag, and on made-up maps."""

import json
import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from augnet.findings.decide import with_hotspots
from augnet.findings.shortcuts import HIGH, MIN_IMAGES, find_hotspots, median_of_others
from augnet.statistics.share_grid import ShareGrids
from augnet.storage import schema

CORNERS = {"top left": (0, 0), "top right": (0, 6), "bottom left": (6, 0), "bottom right": (6, 6)}


def trained_grids(seed, corner=None, tagged=None):
    """Grids of a small network on real digits; 9 in 10 of the `tagged` digit carry a bright 2 x 2 tag."""
    digits = load_digits()
    images, labels = digits.images / 16, digits.target
    if corner:
        y, x = CORNERS[corner]
        on = (labels == tagged) & (np.random.default_rng(seed).random(len(labels)) < 0.9)
        images = images.copy()
        images[on, y : y + 2, x : x + 2] = 1
    flat = images.reshape(-1, 64)
    model = MLPClassifier((32,), alpha=1, max_iter=60, random_state=seed, learning_rate_init=5e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(flat[:1200], labels[:1200])
    (first, second), (bias, _) = model.coefs_, model.intercepts_
    active = flat[1200:] @ first + bias > 0
    predicted = model.predict(flat[1200:])
    rows = np.einsum("ph,nh,hn->np", first, active, second[:, predicted])  # J_i of a network of ReLUs
    grids = ShareGrids(8, 8)
    grids.add(
        np.abs(rows).reshape(-1, 8, 8).astype(np.float32), predicted, [f"{k}.png" for k in range(1200, 1797)]
    )
    return grids, labels[1200:]


def flagged(grids):
    return [hotspot.output for hotspot in find_hotspots(grids) if hotspot.shortcut]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_output_is_flagged_without_a_tag(seed):
    assert flagged(trained_grids(seed)[0]) == []


@pytest.mark.parametrize("corner, tagged", list(zip(CORNERS, (3, 1, 7, 5), strict=True)))
def test_the_tagged_output_is_flagged_at_the_tag(corner, tagged):
    grids, labels = trained_grids(0, corner, tagged)
    assert flagged(grids) == [tagged]
    spot = find_hotspots(grids)[tagged]
    y, x = CORNERS[corner]
    assert abs(spot.y - y) <= 1 and abs(spot.x - x) <= 1
    assert (spot.height, spot.width) == (2, 2)
    assert spot.lift == spot.share / spot.expected > 1.75
    shown = [labels[int(image_id.removesuffix(".png")) - 1200] for image_id, _ in spot.images]
    assert shown.count(tagged) >= 5
    shares = [share for _, share in spot.images]
    assert shares == sorted(shares, reverse=True) and shares[-1] > spot.expected


def blobs(rng, centres, side=48, width=8.0, count=None):
    """Maps (n, side, side) with a smooth blob at each of (n, 2) centres, and a little everywhere."""
    y, x = np.mgrid[:side, :side]
    squares = (y - centres[:, 0, None, None]) ** 2 + (x - centres[:, 1, None, None]) ** 2
    return (np.exp(-squares / (2 * width**2)) + 0.05 + 0.05 * rng.random((len(centres), side, side))).astype(
        np.float32
    )


def made_up(seed=0, images=60, outputs=4, side=48, tag=None, share_of_images=1.0, moving=False):
    """Grids of objects that lie anywhere; for output 0 also a spot of `tag` times the object's strength."""
    rng = np.random.default_rng(seed)
    grids = ShareGrids(side, side)
    for output in range(outputs):
        maps = blobs(rng, rng.uniform(0.2 * side, 0.8 * side, (images, 2)), side)
        if tag and output == 0:
            for k in np.flatnonzero(rng.random(images) < share_of_images):
                y, x = rng.integers(0, side - 4, 2) if moving else (side - 5, 2)
                maps[k, y : y + 4, x : x + 4] += tag
        grids.add(maps, np.full(images, output), [f"{output}/{k:03d}" for k in range(images)])
    return grids


def test_objects_that_move_are_not_shortcuts():
    for seed in range(5):
        assert flagged(made_up(seed)) == []


def test_a_fixed_spot_is_a_shortcut_and_a_moving_one_is_not():
    grids = made_up(tag=8)
    assert flagged(grids) == [0]
    spot = find_hotspots(grids)[0]
    assert spot.y <= 43 and spot.x <= 2
    assert spot.y + spot.height >= 47 and spot.x + spot.width >= 6
    assert flagged(made_up(tag=8, moving=True)) == []


def test_a_spot_in_two_of_five_images_is_a_shortcut_and_one_in_a_single_image_is_not():
    assert flagged(made_up(tag=30, share_of_images=0.4)) == [0]
    grids = made_up(images=30)
    maps = np.zeros((1, 48, 48), np.float32)
    maps[0, 44, 3] = 1
    grids.add(maps, np.array([0]), ["0/odd"])
    assert flagged(grids) == []


def test_one_output_alone_is_judged_by_the_smooth_map():
    assert flagged(made_up(outputs=1)) == []
    assert flagged(made_up(outputs=1, tag=10)) == [0]
    assert find_hotspots(made_up(outputs=1, tag=10))[0].lift > HIGH


def test_hotspots_stand_beside_the_figures_of_their_outputs():
    figures = pa.Table.from_pylist([{"output": k, "rms": k / 2} for k in range(5)], schema.OUTPUT_FIGURES)
    spots = find_hotspots(made_up(tag=8))  # of outputs 0 to 3
    table = with_hotspots(figures, spots)
    assert table.schema == schema.OUTPUTS
    assert table.select(figures.column_names).equals(figures)
    assert table["shortcut"].to_pylist() == [True, False, False, False, None]
    assert table["hotspot_y"].to_pylist() == [*(spot.y for spot in spots), None]
    assert table["hotspot_expected"].to_pylist() == [*(spot.expected for spot in spots), None]
    json.dumps([spot.as_json() for spot in spots], allow_nan=False)


def test_outputs_with_few_images_have_no_hotspot():
    assert find_hotspots(ShareGrids(8, 8)) == []
    grids = made_up(images=MIN_IMAGES - 1, tag=8)
    assert find_hotspots(grids) == []
    rng = np.random.default_rng(0)
    grids.add(blobs(rng, np.full((1, 2), 20.0)), np.array([2]), ["2/more"])
    assert [spot.output for spot in find_hotspots(grids)] == [2]


def test_the_scale_of_the_gradient_does_not_matter():
    rng = np.random.default_rng(0)
    maps = blobs(rng, rng.uniform(10, 38, (40, 2)))
    spots = []
    for scale in (1, np.float32(1e-20) * 10 ** rng.uniform(-5, 5, (40, 1, 1)).astype(np.float32)):
        grids = ShareGrids(48, 48)
        grids.add(maps * scale, np.zeros(40, int), [str(k) for k in range(40)])
        spots += find_hotspots(grids)
    assert (spots[0].y, spots[0].x) == (spots[1].y, spots[1].x)
    assert spots[0].lift == pytest.approx(spots[1].lift, rel=1e-5)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 40), (17, 5), (3, 3)])
def test_small_and_narrow_pictures(height, width):
    grids = ShareGrids(height, width)
    maps = np.random.default_rng(0).random((60, height, width)).astype(np.float32)
    grids.add(maps, np.arange(60) % 2, [str(k) for k in range(60)])
    for spot in find_hotspots(grids):
        assert 0 <= spot.y < spot.y + spot.height <= height
        assert 0 <= spot.x < spot.x + spot.width <= width
        assert not spot.shortcut


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(0, 100))
def test_median_of_the_others(m, seed):
    values = np.random.default_rng(seed).integers(0, 5, (m, 3, 2)).astype(float)
    expected = [np.median(np.delete(values, k, axis=0), axis=0) for k in range(m)]
    np.testing.assert_array_equal(median_of_others(values), expected)
