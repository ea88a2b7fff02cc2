"""Heat maps as points in the plane: what is near what, which groups there are, and the same every time."""

import importlib.util

import numpy as np
import pytest

from augnet.errors import ConfigError
from augnet.export import projection
from augnet.export.projection import FEWEST, features, project, require_viewer_extra


def spots(count, places, size=12, seed=0):
    """Maps of a bright spot at one of the places, one after the other, in faint noise; and which place."""
    rng = np.random.default_rng(seed)
    which = np.arange(count) % len(places)
    maps = rng.uniform(0, 0.05, (count, size, size))
    for k, place in enumerate(which):
        y, x = places[place]
        maps[k, y : y + 3, x : x + 3] += rng.uniform(0.5, 1)
    return maps, which


def test_maps_are_compared_by_where_they_are_strong_and_not_by_how_strong():
    maps = np.zeros((3, 6, 6))
    maps[0, 1, 1], maps[1, 1, 1], maps[2, 4, 4] = 1, 1000, 1
    same, apart = np.linalg.norm(np.diff(features(maps), axis=0), axis=1)
    assert same == 0 and apart == pytest.approx(np.sqrt(2))  # Hellinger's distance of what shares nothing


def test_large_maps_are_compared_over_blocks():
    maps = np.ones((2, 64, 48))
    found = features(maps)
    assert found.shape == (2, 16 * 12) and found[0] == pytest.approx(np.sqrt(1 / (16 * 12)))


def test_a_map_that_is_zero_or_not_known_has_no_place():
    maps = np.ones((3, 4, 4))
    maps[1], maps[2, 0, 0] = 0, np.nan
    assert np.isnan(features(maps)).any(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize(("count", "method"), [(3 * FEWEST, "UMAP"), (FEWEST - 2, "PCA")])
def test_ways_of_looking_inside_a_class_are_found_the_largest_first(count, method):
    maps, which = spots(count, [(1, 1), (1, 1), (8, 8)])
    predicted = np.zeros(count, int)
    found, again = (project(features(maps), predicted) for _ in range(2))
    assert found.method == method and found.points.shape == (count, 2) and found.points.dtype == np.float32
    np.testing.assert_array_equal(found.points, again.points)
    np.testing.assert_array_equal(found.clusters, again.clusters)
    corner = which == 2
    assert set(found.clusters[corner]) <= {0, 2} and set(found.clusters[~corner]) <= {0, 1}
    assert np.mean(found.clusters > 0) > 0.8


def test_clusters_are_counted_in_each_class_by_itself():
    maps, which = spots(FEWEST - 2, [(1, 1), (8, 8)])
    predicted = np.arange(len(maps)) // 2 % 2
    clusters = project(features(maps), predicted).clusters
    for number in (0, 1):
        mine = predicted == number
        assert set(clusters[mine]) - {0} == {1, 2}
        assert not set(clusters[mine & (which == 0)]) & set(clusters[mine & (which == 1)]) - {0}


@pytest.mark.parametrize("count", [0, 1, 2, FEWEST - 1, 2 * FEWEST])
def test_maps_that_are_all_the_same_and_few_maps_have_places_too(count):
    found = project(features(np.ones((count, 5, 5))), np.zeros(count, int))
    assert found.points.shape == (count, 2) and np.isfinite(found.points).all()


@pytest.mark.parametrize("package", ["umap-learn", "scikit-learn"])
def test_what_is_not_installed_is_named_with_its_extra(monkeypatch, package):
    module = {"umap-learn": "umap", "scikit-learn": "sklearn"}[package]
    find = importlib.util.find_spec
    monkeypatch.setattr(
        projection.importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(ConfigError, match=rf"{package} .* pip install 'augnet\[viewer\]'"):
        require_viewer_extra()
