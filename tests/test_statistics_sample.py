"""The sample of each prediction's images: any split and order of them gives the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statistics_helpers import batch_of

from augnet.statistics.sample import GroupSample, group_size, rank_of

IDS = [f"{k}.png" for k in range(20)]
IMAGES = np.random.default_rng(2).random((20, 2, 3, 1), np.float32)


def batch(part, outputs, attributions=None, selected=None):
    n, count = len(part), outputs.shape[1]
    maps = np.random.default_rng(0).random((20, 1 if attributions is None else count, 2, 3))
    maps = maps if attributions is None else attributions
    rows = np.ones((n, count, 2, 3, 1))
    return batch_of(rows, outputs[part], selected=selected, attributions=maps[part].astype(np.float32))


def sample(parts, outputs, task="multiclass", size=4, **kwargs):
    found = GroupSample(size)
    for part in map(list, parts):
        ids = [IDS[k] for k in part]
        found.add(batch(part, outputs, **kwargs), IMAGES[part], task, ids, [f"at {name}" for name in ids])
    return found


def names(found):
    return {group: [image.image_id for image in images] for group, images in found.groups.items()}


def lowest(members, size=4):
    return sorted((IDS[k] for k in np.flatnonzero(members)), key=rank_of)[:size]


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(20)), st.integers(1, 19), st.integers(1, 19))
def test_any_order_and_split_keeps_the_images_of_lowest_rank(order, cut, merged_at):
    outputs = np.random.default_rng(1).normal(size=(20, 3))
    whole = sample([range(20)], outputs)
    predicted = outputs.argmax(axis=1)
    assert names(whole) == {(k, True): lowest(predicted == k) for k in range(3)}
    parts = [order[:cut], order[cut:]]
    first, second = sample([parts[0]], outputs), sample([parts[1]], outputs)
    first.merge(second)
    for found in (first, sample([order[:merged_at], order[merged_at:]], outputs)):
        assert names(found) == names(whole)
        for group, images in found.groups.items():
            for image, same in zip(images, whole.groups[group], strict=True):
                np.testing.assert_array_equal(image.shares, same.shares)
                np.testing.assert_array_equal(image.outputs, same.outputs)
                np.testing.assert_array_equal(image.grey, same.grey)


def test_what_is_saved_is_read_again():
    whole = sample([range(20)], np.random.default_rng(1).normal(size=(20, 3)))
    again = GroupSample.from_arrays(4, whole.arrays())
    assert again.groups == whole.groups
    assert [image.uri for image in again.groups[0, True]] == [f"at {name}" for name in names(again)[0, True]]
    for one, other in zip(again.groups[0, True], whole.groups[0, True], strict=True):
        np.testing.assert_array_equal(one.shares, other.shares)
        assert one.shares.mean(dtype=float) == pytest.approx(1, abs=1e-2)
    assert GroupSample.from_arrays(4, GroupSample(4).arrays()).groups == {}


def test_yes_or_no_outputs_have_two_groups_each_and_numbers_one():
    outputs = np.random.default_rng(2).normal(size=(20, 2))
    every = np.random.default_rng(3).random((20, 2, 2, 3))
    found = names(sample([range(20)], outputs, "multilabel", attributions=every))
    expected = {(k, side): lowest((outputs[:, k] > 0) == side) for k in range(2) for side in (True, False)}
    assert found == expected
    found = names(sample([range(20)], outputs, "regression", attributions=every))
    assert found == {(k, True): lowest(np.ones(20, bool)) for k in range(2)}
    found = names(sample([range(20)], outputs[:, :1], "binary"))
    assert found == {(0, side): lowest((outputs[:, 0] > 0) == side) for side in (True, False)}


def test_images_without_a_map_are_left_out():
    outputs = np.random.default_rng(2).normal(size=(20, 2))
    maps = np.ones((20, 1, 2, 3))
    maps[3, 0, 0, 0], maps[5] = np.nan, 0
    found = sample([range(20)], outputs, size=20, attributions=maps)
    kept = {name for group in names(found).values() for name in group}
    assert kept == set(IDS) - {"3.png", "5.png"}
    assert sample([range(20)], outputs, size=0).groups == {}


def test_groups_are_smaller_where_there_are_many():
    assert group_size("multiclass", 10, 200) == 200
    assert group_size("multiclass", 1000, 200) == 16
    assert group_size("multilabel", 1000, 200) == 8
    assert group_size("regression", 10**6, 200) == 1
