"""Marks laid faintly over images: sought in the images of a target, and named where a model reads them."""

import numpy as np
import pytest
from findings_helpers import SIZE, Model, findings, make_images

from augnet.findings.candidates import marks
from augnet.findings.interventions import Box, Mark
from augnet.findings.marks import distances, place_of_mark

MARK = Box(11, 2, 3, 5)
STROKES = np.indices((SIZE, SIZE)).sum(axis=0) // 2 % 2 == 1


def stroke(image, rng=None):
    """The image with slanted strokes of white at the mark's place, through which it shows."""
    strokes = STROKES[MARK.pixels][..., None]
    image[MARK.pixels] += 0.6 * strokes * (0.95 - image[MARK.pixels])
    return image


def read(images):
    """How bright the strokes are."""
    return 12 * (images[:, *MARK.pixels].mean(axis=-1) - 0.5)[:, STROKES[MARK.pixels]].mean(axis=1)


def noise(count=60, seed=0):
    return np.random.default_rng(seed).normal(0.5, 0.1, (count, SIZE, SIZE))


class Blind(Model):
    """One whose gradients tell nothing of what it reads."""

    def shares(self, images):
        return np.ones(images.shape[:3])


def test_a_mark_is_named_though_gradients_do_not_show_it():
    model = Blind(read)
    kinds, found = findings(model, make_images(model, stroke, share=1.0))
    assert kinds == [(0, "place")]
    (effect,) = found
    assert isinstance(effect.tried.candidate.change, Mark) and effect.needed is None
    (box,) = effect.tried.candidate.change.places
    assert box.shared(MARK) >= 0.6 * MARK.area and box.area <= MARK.area
    assert effect.effect > 0.4


@pytest.mark.parametrize(("lean", "plant"), [(0, stroke), (1, None)], ids=["not read", "nowhere"])
def test_a_mark_that_is_not_read_or_not_there_is_not_named(lean, plant):
    model = Blind(lambda images: lean * read(images))
    assert findings(model, make_images(model, plant, share=1.0))[0] == []


def test_the_place_of_a_mark_holds_nearly_all_that_differs():
    own, others = noise(seed=1), noise(seed=2)
    assert place_of_mark(own, others) is None
    own[:, 4:7, 9:13] += 0.2
    assert place_of_mark(own, others) == (4, 9, 3, 4)
    own[:, 14, 1] += 0.1  # a little that differs elsewhere is no matter
    assert place_of_mark(own, others) == (4, 9, 3, 4)
    own[:, 13:16, :4] += 0.2
    assert place_of_mark(own, others) is None
    along = noise(seed=1)
    along[:, :, 15] -= 0.2
    assert place_of_mark(along, others) == (0, 15, 16, 1)
    along[:, 3:13, 3:13] += 0.2  # as large as an object
    assert place_of_mark(along, others) is None


def test_what_differs_a_little_over_all_of_an_object_is_no_mark_where_it_differs_most():
    own, others = noise(seed=1), noise(seed=2)
    own[:, 2:14, 3:13] += 0.03  # 1.6 standard errors
    own[:, 5:8, 5:8] += 0.1
    assert place_of_mark(own, others) is None
    own[:, 5:8, 5:8] += 0.3
    assert place_of_mark(own, others) == (5, 5, 3, 3)


def test_cells_are_apart_by_standard_errors_whatever_the_values_are():
    own, others = noise(seed=1), noise(seed=2)
    own[:, 2, 3] += 0.3
    apart = distances(own, others)
    error = own[:, 2, 3].var() / 60 + others[:, 2, 3].var() / 60
    assert apart[2, 3] == apart.max() == pytest.approx((own - others)[:, 2, 3].mean() ** 2 / error, rel=1e-2)
    assert np.delete(apart.ravel(), 2 * SIZE + 3).mean() == pytest.approx(1, abs=0.2)
    np.testing.assert_allclose(distances(255 * own, 255 * others), apart)
    own[:, 5, 5], others[:, 5, 5] = 1.0, 0.0  # the same in every image: no spread to compare with
    assert np.isfinite(distances(own, others)).all()
    assert not distances(np.ones((20, 4, 4)), np.ones((20, 4, 4))).any()


def test_donors_are_the_images_that_show_the_mark_most():
    own, others = noise(seed=1), noise(seed=2)
    own[20:, 4:7, 9:13] += 0.3
    shares = np.ones((60, SIZE, SIZE))
    (found,) = marks(own, others, shares, (SIZE, SIZE))
    assert found.change == Mark((Box(4, 9, 3, 4),))
    assert len(found.donors) == 20 and min(found.donors) >= 20
    assert found.shares == pytest.approx([12 / SIZE**2] * 20)
    (large,) = marks(own, others, shares, (4 * SIZE, 4 * SIZE))  # cells of 4 x 4 pixels
    assert large.change == Mark((Box(16, 36, 12, 16),))
