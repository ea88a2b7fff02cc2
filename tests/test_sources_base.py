"""Sampling a listing."""

from __future__ import annotations

import doctest
import random

from augnet.sources import base
from augnet.sources.base import ImageRef, sample

REFS = [ImageRef(f"{i:04d}.png", f"/data/{i:04d}.png", None) for i in range(400)]


def test_sample_has_the_size_asked_for_and_no_repeats():
    assert len(set(sample(REFS, 50, seed=0))) == 50


def test_sample_is_in_the_order_of_the_listing():
    ids = [ref.image_id for ref in sample(REFS, 50, seed=0)]
    assert ids == sorted(ids)


def test_sample_does_not_depend_on_the_order_of_the_listing():
    shuffled = random.Random(1).sample(REFS, len(REFS))
    assert set(sample(shuffled, 50, seed=3)) == set(sample(REFS, 50, seed=3))


def test_another_seed_gives_another_sample():
    assert sample(REFS, 50, seed=0) != sample(REFS, 50, seed=-1)


def test_a_limit_above_the_number_of_images_keeps_all():
    assert sample(REFS, 1000, seed=0) == REFS


def test_a_larger_sample_holds_the_smaller_one():
    assert set(sample(REFS, 20, seed=5)) < set(sample(REFS, 21, seed=5))


def test_one_image_less_changes_at_most_one_of_the_sample():
    before = set(sample(REFS, 50, seed=0))
    after = set(sample(REFS[:100] + REFS[101:], 50, seed=0))
    assert len(before - after) <= 1


def test_every_image_is_about_equally_likely():
    counts = dict.fromkeys(REFS, 0)
    for seed in range(400):
        for ref in sample(REFS, 40, seed):
            counts[ref] += 1
    # 400 draws of probability 0.1: mean 40, standard deviation 6
    assert min(counts.values()) > 12 and max(counts.values()) < 72


def test_sample_is_the_same_on_every_machine():
    ids = [ref.image_id for ref in sample(REFS, 3, seed=0)]
    assert ids == ["0119.png", "0320.png", "0347.png"]


def test_the_example_of_a_new_source_runs():
    assert doctest.testmod(base).attempted > 3 and doctest.testmod(base).failed == 0
