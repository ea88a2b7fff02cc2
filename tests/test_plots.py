"""Figures by matplotlib: what is drawn, where, and in which colours."""

import sys

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from matplotlib import colormaps
from matplotlib import pyplot as plt

import augnet
from augnet.errors import ConfigError
from augnet.plots.colors import color_table

MATPLOTLIB_NAMES = {"magnitude": "magma", "signed": "RdBu_r"}


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def drawn(ax):
    """The values of the topmost picture of an axes."""
    return np.asarray(ax.images[-1].get_array())


@pytest.mark.parametrize("kind", MATPLOTLIB_NAMES)
def test_colours_are_those_of_matplotlib_to_the_eye(kind):
    expected = colormaps[MATPLOTLIB_NAMES[kind]](np.arange(256))[:, :3] * 255
    assert np.abs(color_table(kind) - expected).max() <= 4.5


def test_a_map_shows_the_norm_over_channels_or_their_sum():
    row = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    magnitude = augnet.plot_map(row)
    np.testing.assert_allclose(drawn(magnitude), np.linalg.norm(row.astype(float), axis=-1), rtol=1e-6)
    assert magnitude.images[0].get_clim() == (0, np.linalg.norm(row.astype(float), axis=-1).max())
    signed = augnet.plot_map(row, signed=True)
    total = row.sum(-1, dtype=float)
    np.testing.assert_allclose(drawn(signed), total)
    np.testing.assert_allclose(signed.images[0].get_clim(), (-np.abs(total).max(), np.abs(total).max()))


def test_the_brightest_colour_is_the_table_s_last():
    ax = augnet.plot_map(np.array([[0.0, 1.0]]))
    colors = ax.images[0].to_rgba(drawn(ax), bytes=True)
    np.testing.assert_array_equal(colors[0, :, :3], color_table("magnitude")[[0, -1]])


def test_a_map_of_blocks_covers_the_picture_below():
    _, ax = plt.subplots()
    picture = np.zeros((8, 6, 3), np.uint8)
    assert augnet.plot_map(np.ones((4, 3)), picture, ax=ax, opacity=0.4, title="over it") is ax
    below, above = ax.images
    assert tuple(below.get_extent()) == tuple(above.get_extent()) == (-0.5, 5.5, 7.5, -0.5)
    assert (above.get_alpha() == 0.4).all() and ax.get_title() == "over it"


def test_signed_values_near_zero_let_the_picture_through():
    ax = augnet.plot_map(np.array([[0.0, 0.25, -1.0]]), np.zeros((1, 3)), signed=True, opacity=0.8)
    np.testing.assert_allclose(ax.images[-1].get_alpha(), [[0, 0.4, 0.8]])


def test_a_jacobian_has_a_panel_for_the_image_and_for_each_row():
    image = np.full((4, 4, 1), 255, np.uint8)
    jacobian = np.stack([np.full((4, 4, 1), value) for value in (1.0, -2.0, 3.0)])
    axes = augnet.plot_jacobian(image, jacobian, titles=["image", "first"])
    assert [ax.get_title() for ax in axes] == ["image", "first", "", ""]
    assert [float(drawn(ax).max()) for ax in axes] == [255, 1, 2, 3]
    own = plt.subplots(1, 2)[1]
    given = augnet.plot_jacobian(image, jacobian[1], signed=True, limit=4, axes=own)
    assert given[0] is own[0] and given[1].images[0].get_clim() == (-4, 4)


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"map: \(3,\) is neither"):
        augnet.plot_map(np.zeros(3))
    with pytest.raises(ValueError, match=r"image: \(4, 4, 7\)"):
        augnet.plot_jacobian(np.zeros((4, 4, 7)), np.zeros((1, 4, 4, 3)))
    with pytest.raises(ValueError, match="axes: 1 for an image and 2 rows; give 3"):
        augnet.plot_jacobian(np.zeros((4, 4)), np.zeros((2, 4, 4, 1)), axes=[plt.subplots()[1]])


def test_matplotlib_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ConfigError, match=r"matplotlib is needed for figures.*augnet\[notebook\]"):
        augnet.plot_map(np.zeros((2, 2)))
