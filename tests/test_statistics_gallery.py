"""Which images a gallery keeps, whatever the cuts and the order; and what it keeps of each."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_statistics_aggregate import Images, top_two

from augnet.engine.batch import VIEWS
from augnet.statistics.gallery import (
    END_IMAGES,
    LEVELS,
    THUMBNAIL_PIXELS,
    Gallery,
    draw,
    exhibit_arrays,
    exhibits_of,
    label_sample,
    quantized,
    sample_bounds,
    thumbnail,
)

IDS = [f"{k:03d}.png" for k in range(60)]


def filled(size, parts, values=None, labels=2, flagged=(), bounds=None):
    """The gallery of images that are given in parts, each a list of numbers, merged one by one."""
    values = np.arange(60.0) if values is None else values
    total, asked = Gallery(size, labels), []

    def picture(part, k):
        asked.append(part[k])
        return np.full((4, 4, 1), part[k], np.uint8)

    for part in parts:
        unit = Gallery(size, labels)
        unit.add(
            {"margin_l2": values[part]},
            [IDS[k] for k in part],
            flagged=np.isin(part, flagged),
            label_ids=np.array([k % max(labels, 1) for k in part]),
            rivals=np.array(part),
            views=np.array([np.full((len(VIEWS), 2, 2), k / 7.0) for k in part]),
            picture=lambda k, part=part: picture(part, k),
            bounds=bounds,
        )
        total.merge(unit)
    return total, asked


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(60)), st.sets(st.integers(1, 59), max_size=4), st.integers(1, 40))
def test_what_is_kept_depends_neither_on_cuts_nor_on_order(order, cuts, size):
    values = np.arange(60.0) // 9  # many are equal
    values[::11] = np.nan
    edges = [0, *sorted(cuts), 60]
    parts = [order[a:b] for a, b in itertools.pairwise(edges)]
    gallery, _ = filled(size, parts, values, flagged=(3, 4))
    expected, _ = filled(size, [list(range(60))], values, flagged=(3, 4))
    assert gallery.shortlists == expected.shortlists
    assert [shown.image_id for shown in gallery.shown()] == [shown.image_id for shown in expected.shown()]
    assert set(gallery.exhibits) == {name for part in gallery.shortlists.values() for _, name in part}


def test_a_report_shows_the_ends_the_flagged_and_a_sample_of_every_label():
    size, ends = 40, 1  # a quarter of 40 over both ends of each statistic
    gallery, _ = filled(size, [list(range(60))], flagged=(30, 31))
    shown = [exhibit.image_id for exhibit in gallery.shown()]
    assert len(shown) == len(set(shown)) == size
    assert set(shown[: 2 * ends]) == {IDS[0], IDS[59]}
    assert set(shown[2:4]) == {IDS[30], IDS[31]}
    of_label = [sum(int(name[:3]) % 2 == label for name in shown) for label in (0, 1)]
    assert min(of_label) >= label_sample(size, 2) == 15


def test_a_gallery_of_more_than_there_are_shows_all():
    gallery, _ = filled(2000, [list(range(60))])
    assert sorted(exhibit.image_id for exhibit in gallery.shown()) == IDS
    assert len(gallery.shortlists["end.margin_l2.lowest"]) == END_IMAGES


def test_pictures_are_made_only_of_images_that_enter():
    _, asked = filled(1, [[5], [6], [7], [4]], labels=0, bounds=np.zeros(1))
    assert asked == [5, 6, 7, 4]  # each is alone in its unit
    gallery, asked = filled(0, [list(range(60))])
    assert asked == [] and gallery.shown() == []


def test_units_keep_little_more_than_the_report_shows_and_the_samples_are_full():
    size, images = 100, 20_000
    bounds = sample_bounds(size, images, [images - 50, 50])
    draws = np.array([draw(f"{k}.png") for k in range(images)])
    assert size <= np.count_nonzero(draws < bounds[-1]) < 2 * size
    wanted = label_sample(size, 2)
    assert wanted <= np.count_nonzero(draws[:-50] < bounds[0]) < 2.5 * wanted
    assert np.count_nonzero(draws[-50:] < bounds[1]) >= wanted  # of a rare label too
    assert not sample_bounds(0, images, [5]).any()


def test_views_are_kept_in_steps_of_their_largest_magnitude():
    views = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    views[1] = np.nan
    views[2] = 0
    scale, steps = quantized(views)
    assert np.isnan(scale[1]) and scale[2] == 0 and not steps[1].any() and not steps[2].any()
    for k in (0, 3, 4):
        assert scale[k] == np.abs(views[k]).max()
        np.testing.assert_allclose(steps[k] * scale[k] / LEVELS, views[k], atol=0.51 * scale[k] / LEVELS)


def test_exhibits_come_back_from_their_arrays():
    gallery, _ = filled(5, [list(range(60))])
    arrays = exhibit_arrays(gallery.shown())
    for before, after in zip(gallery.shown(), exhibits_of(arrays), strict=True):
        assert (before.image_id, before.rival) == (after.image_id, after.rival)
        np.testing.assert_array_equal(before.views, after.views)
        assert after.views.base is None and after.thumbnail.base is None  # else it holds all
    assert exhibit_arrays([]) == {} and list(exhibits_of({})) == []


def test_thumbnails_are_small_means():
    picture = np.random.default_rng(0).integers(0, 256, (300, 200, 3)).astype(np.uint8)
    small = thumbnail(picture)
    assert small.shape == (100, 67, 3) and max(small.shape) <= THUMBNAIL_PIXELS
    assert small[0, 0, 1] == round(picture[:3, :3, 1].mean())
    np.testing.assert_array_equal(thumbnail(picture[:20, :20]), picture[:20, :20])
    with pytest.raises(ValueError, match="uint8"):
        thumbnail(picture.astype(np.float32))


def test_the_rivals_row_is_kept_where_the_statistics_know_a_rival():
    images = Images()
    for exhibit in images.aggregate(range(12)).gallery.exhibits.values():
        k = images.ids.index(exhibit.image_id)
        assert exhibit.rival == images.statistics([k])["rival"][0].as_py()
        assert np.isfinite(exhibit.scale).all()
        np.testing.assert_array_equal(exhibit.thumbnail, images.pictures[k])
    for exhibit in Images(selected=top_two).aggregate(range(12)).gallery.exhibits.values():
        assert exhibit.rival == -1
        assert np.isnan(exhibit.scale).tolist() == [False, True, False, True, True]
