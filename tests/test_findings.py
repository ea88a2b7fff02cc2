"""Models of closed form that lean on one thing: it is named, with class and place, and nothing else is."""

import numpy as np
import pytest
from findings_helpers import CHANNELS, SIZE, Model, findings, make_images, tried

from augnet.findings.candidates import Candidate, find_places
from augnet.findings.decision import Tried, confirmed, effects
from augnet.findings.interventions import Box, Mark, Moving, Place, Range
from augnet.findings.outcomes import SLIGHT, promising
from augnet.findings.properties import Background, Blur, Brightness, Colour, Contrast, Frequency
from augnet.findings.trials import Arm, Groups, Target, Trial

CORNER = (slice(12, 15), slice(13, 16))
LINE = (slice(0, SIZE), slice(SIZE - 1, SIZE))
OTHER = (slice(1, 4), slice(2, 5))
STRENGTH = 6.0


def at(*places, strength=STRENGTH):
    """A model that reads the mean of places, and a tag of white there."""
    kernel = np.zeros((SIZE, SIZE, CHANNELS))
    for place in places:
        kernel[place] = strength / len(places) / kernel[place].size

    def plant(image, rng):
        for place in places:
            image[place] = 1
        return image

    return Model(lambda images: np.einsum("nyxc,yxc->n", images - 0.5, 2 * kernel), 2 * kernel), plant


def covers(boxes, *places):
    """Whether the boxes hold a good part of each place, and not much else."""
    inside = np.zeros((SIZE, SIZE), bool)
    for box in boxes:
        inside[box.pixels] = True
    wanted = np.zeros((SIZE, SIZE), bool)
    for place in places:
        wanted[place] = True
    held = [inside[place].mean() for place in places]
    return min(held) >= 0.3 and (inside & wanted).sum() >= 0.6 * inside.sum()


@pytest.mark.parametrize("place", [CORNER, LINE, (slice(7, 10), slice(6, 9))])
def test_a_place_is_named_with_its_class(place):
    model, plant = at(place)
    kinds, found = findings(model, make_images(model, plant))
    assert kinds == [(0, "place")]
    assert covers(found[0].tried.candidate.change.places, place)
    assert found[0].effect > 0.4 and found[0].effect - 2 * found[0].error > 0.3


@pytest.mark.parametrize("strength", [2.0, STRENGTH])
def test_two_places_at_once_are_one_finding_whether_one_is_enough_or_not(strength):
    model, plant = at(CORNER, OTHER, strength=strength)
    kinds, found = findings(model, make_images(model, plant))
    assert kinds == [(0, "place")]
    assert covers(found[0].tried.candidate.change.places, CORNER, OTHER)


def test_a_detail_that_moves_is_not_called_a_place():
    def brightest(images):
        windows = np.lib.stride_tricks.sliding_window_view(images.mean(axis=-1), (3, 3), axis=(1, 2))
        return 12 * (windows.min(axis=(-2, -1)).max(axis=(1, 2)) - 0.7).clip(0)

    def plant(image, rng):
        y, x = rng.integers(0, SIZE - 3, 2)
        image[y : y + 3, x : x + 3] = 1
        return image

    model = Model(brightest)
    model.shares = lambda images: 0.05 + (images.mean(axis=-1) > 0.95)  # what its gradient would show
    kinds, _ = findings(model, make_images(model, plant))
    assert kinds == [(0, "moving")]


PROPERTIES = {
    "colour": (
        lambda images: 40 * (images[..., 0].mean(axis=(1, 2)) - images[..., 1].mean(axis=(1, 2))),
        lambda image, rng: image + np.array([0.08, -0.08, 0.0]),
    ),
    "brightness": (
        lambda images: 30 * (images.mean(axis=(1, 2, 3)) - 0.5),
        lambda image, rng: image + 0.2,
    ),
    "contrast": (
        lambda images: 60 * (images.std(axis=(1, 2, 3)) - 0.08),
        lambda image, rng: 0.5 + 2.2 * (image - 0.5),
    ),
    "blur": (
        lambda images: (
            60 * (0.95 - np.abs(np.diff(images, axis=1)).mean(axis=(1, 2, 3)) / images.std(axis=(1, 2, 3)))
        ).clip(0),
        lambda image, rng: (
            (image + np.roll(image, 1, 0) + np.roll(image, 1, 1) + np.roll(image, 1, (0, 1))) / 4
        ),
    ),
    "frequency": (
        lambda images: 0.05 * np.abs(np.fft.fft2(images.mean(axis=-1), axes=(1, 2))[:, 0, 6]) ** 2,
        lambda image, rng: (
            image + 0.1 * np.sin(2 * np.pi * (6 * np.arange(SIZE) / SIZE + rng.random()))[None, :, None]
        ),
    ),
}


@pytest.mark.parametrize("kind", PROPERTIES)
def test_a_property_of_the_whole_image_is_named(kind):
    lean, plant = PROPERTIES[kind]
    model = Model(lean)
    kinds, found = findings(model, make_images(model, plant))
    assert kinds[:1] == [(0, kind)]
    assert {target for target, _ in kinds} == {0}
    assert found[0].effect > 0.3


def test_a_pattern_in_a_direction_of_each_image_is_one():
    y, x = np.mgrid[:SIZE, :SIZE] * 2 * np.pi / SIZE
    waves = [(6, 0), (0, 6), (4, 4), (4, -4), (6, 2), (2, 6), (6, -2), (2, -6)]

    def plant(image, rng):
        down, across = waves[rng.integers(len(waves))]
        return image + 0.1 * np.sin(down * y + across * x + rng.random())[..., None]

    def clearest(images):
        amplitude = np.abs(np.fft.fft2(images.mean(axis=-1), axes=(1, 2)))
        return np.max([amplitude[:, *wave] for wave in waves], axis=0) - 6

    model = Model(clearest)
    kinds, _ = findings(model, make_images(model, plant))
    assert kinds == [(0, "frequency")]


def maps_of_four_targets():
    """Of 30 images each, (30, 32, 32), with nothing in them."""
    rng = np.random.default_rng(0)
    return {target: 1 + rng.random((30, 32, 32)) for target in range(4)}


def test_hot_regions_that_lie_close_together_are_tried_as_one_place():
    maps = maps_of_four_targets()
    maps[0][:, 3:7, 2:6] += 40
    maps[0][:, 4:8, 9:13] += 40
    boxes = [entry.change.places for entry in find_places(maps, (32, 32))[0]]
    assert (Box(3, 2, 5, 11),) in boxes
    maps[0][:, 28:32, 20:24] += 80
    boxes = [entry.change.places for entry in find_places(maps, (32, 32))[0]]
    assert (Box(28, 20, 4, 4), Box(3, 2, 4, 4), Box(4, 9, 4, 4)) in boxes


def test_a_hot_piece_is_tried_as_thick_as_the_best_window():
    maps = maps_of_four_targets()
    maps[0][:, 2:6, 2:6] += 40
    maps[0][:, 29:30, 28:30] += 40
    boxes = [entry.change.places for entry in find_places(maps, (32, 32))[0]]
    assert (Box(2, 2, 4, 4), Box(27, 27, 4, 4)) in boxes
    assert Box(30, 0, 1, 2).at_least(4, (32, 32)) == Box(28, 0, 4, 4)


def test_the_control_of_what_moves_is_another_part_of_the_same_images():
    moving = Moving(4, 4, ((2, 3), (9, 9), (0, 12)))
    (other,) = moving.elsewhere((16, 16))
    for (y, x), (v, u) in zip(moving.seen, other.seen, strict=True):
        assert Box(y, x, 4, 4).shared(Box(v, u, 4, 4)) == 0 and max(v, u) <= 12


@pytest.mark.parametrize("first", [0, 1])
def test_what_moves_is_taken_where_each_image_has_it(first):
    seen = ((2, 3), (9, 9))
    images = np.zeros((3, 16, 16, 1), np.float32)
    has = [Box(*seen[(first + number) % 2], 4, 4) for number in range(3)]
    for image, box in zip(images, has, strict=True):
        image[box.pixels] = 1
    moving = Moving(4, 4, seen).after(first)
    limits = Range(np.zeros(1), np.ones(1))
    others = np.random.default_rng(0).random(images.shape).astype(np.float32)
    taken = moving.take(images, others, limits)
    for image, other, box in zip(taken, others, has, strict=True):
        assert (image[box.pixels] == other[box.pixels]).all() and (image > 0).sum() == 16
    assert not moving.painted(images).any()
    assert (moving.put(np.zeros_like(images), images, limits).sum(axis=(1, 2, 3)) == 16).all()


def evidence(enough, needed=None, count=100):
    """Of a candidate that changes these shares of the images, while its controls change none."""

    def share(part):
        return (np.arange(count) < part * count).astype(float)

    found = {"given": share(enough), "foreign": share(0)}
    return found if needed is None else found | {"painted": share(needed), "other painted": share(0)}


def decided(*entries):
    """Kinds that are confirmed of candidates (change, evidence) of one target."""
    tried = [Tried(0, 0, number, Candidate(change), found) for number, (change, found) in enumerate(entries)]
    return [entry.tried.candidate.change.kind for entry in confirmed(effects(tried), 0.2, (16, 16))]


@pytest.mark.parametrize(
    "enough, needed, found",
    [
        (0.9, 0.0, True),  # another place keeps the class
        (0.0, 0.9, True),
        (0.1, 0.4, True),
        (0.0, 0.45, True),
        (0.0, 0.35, False),
        (0.1, 0.2, False),
    ],
)
def test_the_two_questions_of_a_place_are_judged_each_by_itself(enough, needed, found):
    assert (decided((Place((Box(0, 0, 2, 2),)), evidence(enough, needed))) == ["place"]) is found


@pytest.mark.parametrize("others, found", [(0.1, True), (0.4, False)])
def test_what_a_place_costs_any_prediction_is_no_reason_to_name_one(others, found):
    measured = evidence(0.6, 0.6)
    measured["foreign"] = np.roll(evidence(others)["given"], 50)
    assert (decided((Place((Box(0, 0, 2, 2),)), measured)) == ["place"]) is found
    assert effects([Tried(0, 0, 0, Candidate(Blur()), measured)])[0].effect == pytest.approx(0.6 - others)


def test_of_kinds_that_change_as_many_images_the_first_is_named():
    blur, contrast = evidence(0.95), evidence(1.0)
    blur["foreign"] = np.roll(blur["given"], 5) * (np.arange(100) < 30)  # its control does something too
    assert decided((Blur(), blur), (Contrast(), contrast)) == ["blur"]
    assert decided((Blur(), evidence(0.7)), (Contrast(), contrast)) == ["contrast"]


def test_a_place_and_a_property_of_the_whole_image_explain_each_other():
    place = Place((Box(0, 0, 2, 2),))
    assert decided((place, evidence(0.6, 0.3)), (Contrast(), evidence(0.8))) == ["contrast"]
    assert decided((place, evidence(0.8, 0.3)), (Contrast(), evidence(0.8))) == ["place"]
    assert decided((place, evidence(0.6, 0.1)), (Background(), evidence(0.68))) == ["place"]
    assert decided((place, evidence(0.6, 0.0)), (Background(), evidence(0.68))) == ["background"]  # a piece
    assert decided((place, evidence(0.3, 0.1)), (Brightness(False), evidence(0.35))) == ["place"]
    assert decided((place, evidence(0.3, 0.1)), (Brightness(False), evidence(0.45))) == ["brightness"]


def test_a_place_that_does_as_much_for_other_targets_explains_no_property_of_the_whole_image():
    place, cast = Candidate(Place((Box(0, 0, 2, 2),))), Candidate(Colour(False))

    def tried(of_others):
        entries = [(0, place, evidence(0.6, 0.3)), (0, cast, evidence(0.6))]
        entries += [(1, place, evidence(of_others, 0.0))]
        return [Tried(target, target, n, *entry) for n, (target, *entry) in enumerate(entries)]

    def named(of_others):
        found = confirmed(effects(tried(of_others)), 0.2, (16, 16))
        return [(entry.tried.judged, entry.tried.candidate.change.kind) for entry in found]

    assert named(0.0) == [(0, "place")] and named(0.5) == [(0, "colour")]


@pytest.mark.parametrize(
    "enough, taken, effect",
    [(0.3, 0.9, 0.6), (0.3, 0.0, 0.3), (0.3, 0.2, 0.3), (0.1, 0.4, 0.25), (0.0, 0.9, 0)],
)
def test_that_a_property_of_the_whole_image_is_needed_adds_to_what_it_does(enough, taken, effect):
    measured = evidence(enough) | {"taken": evidence(taken)["given"]}
    (entry,) = effects([Tried(0, 0, 0, Candidate(Contrast()), measured)])
    assert entry.effect == pytest.approx(effect)
    assert promising(measured, False, effect) and not promising(measured, False, effect / 0.7 + 0.01)


def test_whether_a_property_is_needed_is_asked_where_it_brings_something_about():
    lean, plant = PROPERTIES["brightness"]
    model = Model(lean)
    found = tried(model, make_images(model, plant))
    asked = [entry for entry in found if entry.candidate.change.kind in ("brightness", "contrast")]
    does = {entry.evidence["given"].mean() >= SLIGHT: "taken" in entry.evidence for entry in asked}
    assert does == {True: True, False: False}


def test_what_other_predictions_lose_by_nature_is_not_counted_as_needed():
    natural = evidence(0.0) | {"taken": evidence(0.5)["given"]}
    own = evidence(0.1) | {"taken": evidence(0.8)["given"]}
    tried = [Tried(k, k, 0, Candidate(Contrast()), part) for k, part in enumerate((own, natural))]
    assert effects(tried)[0].effect == pytest.approx((0.1 + 0.3) / 2)


def test_waves_are_taken_by_damping_and_detail_cannot_be():
    rng = np.random.default_rng(0)
    plain = rng.random((3, 16, 16, 1)).astype(np.float32) * 0.1 + 0.4
    waves = plain + 0.2 * np.sin(2 * np.pi * 6 * np.arange(16) / 16)[None, None, :, None].astype(np.float32)
    limits = Range(np.zeros(1), np.ones(1))
    left = Frequency().take(waves, plain, limits)
    assert np.abs(np.fft.fft(left.mean(axis=1)[..., 0]))[:, 6].max() < 0.3  # of 1.6 before
    assert Frequency().both_ways and Colour(False).both_ways
    assert not any(change.both_ways for change in (Blur(), Background()))


def test_what_images_differ_in_by_nature_has_to_do_more():
    small, large = Place((Box(0, 0, 3, 4),)), Place((Box(0, 0, 3, 5),))  # of 256 pixels
    mark = Mark((Box(0, 0, 3, 4),))
    least = {small: 0.2, Moving(2, 2, ((0, 0),)): 0.2, mark: 0.2, large: 0.24, Brightness(False): 0.2}
    least |= {Contrast(): 0.2, Blur(): 0.32, Background(): 0.4, Frequency(): 0.4}
    for change, effect in least.items():
        needed = effect if change in (small, large) else None
        assert decided((change, evidence(effect - 0.01, needed and needed - 0.01))) == []
        assert decided((change, evidence(effect + 0.01, needed and needed + 0.01))) == [change.kind]


@pytest.mark.parametrize("logits", [True, False])
def test_an_image_is_as_near_to_a_class_as_the_decision_and_its_probability(logits):
    shares = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    outputs = np.log(shares) + 3 if logits else shares
    assert Target(0, True, "multiclass", logits).score(outputs) == pytest.approx([0.75, 0.05])
    yes = np.array([[0.6], [0.1]])
    outputs = np.log(yes / (1 - yes)) if logits else yes
    assert Target(0, True, "binary", logits).score(outputs) == pytest.approx([0.8, 0.05])
    assert Target(0, False, "binary", logits).score(outputs) == pytest.approx([0.2, 0.95])


def test_what_a_third_image_does_for_its_class_or_of_the_whole_for_any_is_a_control():
    outputs = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0.6, 0.4], [0, 0, 0.4, 0.6]])
    groups = Groups(np.array([0]), np.array([1, 2]), np.array([2, 1]), True)
    target = Target(0, True, "multiclass", logits=False)
    trial = Trial(target, groups, outputs, None, None, None, (1, 3), 0.2)

    def changed(local, *became):
        arm = Arm(0, "foreign", local, groups.receivers, groups.foreign)
        return trial.scored(arm, outputs[list(became)]).changed.tolist()

    assert changed(True, 2, 2) == pytest.approx([0.8, 0])  # the first got what is that one's
    assert changed(True, 0, 0) == [1, 1]
    assert changed(True, 3, 3) == pytest.approx([0.2, 0])
    assert changed(False, 0, 0) == [1, 1] and changed(False, 1, 2) == [0, 0]
    assert changed(False, 3, 3) == pytest.approx([1, 0.6])  # an unsure one


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_is_found_where_nothing_is(seed):
    model = Model(seed=seed)
    assert findings(model, make_images(model, seed=seed))[0] == []


def test_a_tag_in_all_classes_tells_nothing():
    model, plant = at(CORNER)
    model.lean, model.kernel = (lambda images: 0.0), 0.0
    assert findings(model, make_images(model, plant, only=None))[0] == []


def test_a_tag_that_the_model_does_not_read_is_not_found():
    _, plant = at(CORNER)
    model = Model()
    assert findings(model, make_images(model, plant))[0] == []


def test_gradients_that_point_at_a_tag_confirm_nothing_where_the_model_does_not_read_it():
    reader, plant = at(CORNER)
    model = Model()
    model.shares = reader.shares
    assert findings(model, make_images(model, plant))[0] == []


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_what_wrong_gradients_hit_by_chance_is_confirmed_only_where_the_model_reads(seed, shuffled):
    model, plant = at(CORNER)
    images, rng, shares = make_images(model, plant), np.random.default_rng(seed), model.shares

    def wrong(images):
        if not shuffled:
            return rng.random(images.shape[:3])
        maps = shares(images)
        return rng.permuted(maps.reshape(len(maps), -1), axis=1).reshape(maps.shape)

    model.shares = wrong
    kinds, found = findings(model, images)
    assert kinds in ([], [(0, "place")])
    tag = Box(12, 13, 3, 3)
    assert all(any(box.shared(tag) for box in entry.tried.candidate.change.places) for entry in found)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_model_leans_on_nothing(seed):
    """Whether the maps are its own or point at a corner, as those of a model that was trained might."""
    rng = np.random.default_rng(seed)
    hidden, out = rng.normal(size=(SIZE * SIZE * CHANNELS, 32)), rng.normal(size=(32, 5))

    class Random(Model):
        def __call__(self, images):
            return np.maximum((images.reshape(len(images), -1) - 0.5) @ hidden, 0) @ out

    images = make_images(Model())
    model = Random()
    assert findings(model, images)[0] == []
    model.shares = at(CORNER)[0].shares
    assert findings(model, images)[0] == []


def test_a_tag_read_by_two_outputs_of_many_is_found_for_both():
    model, plant = at(CORNER)
    second = np.zeros_like(model.kernel)
    second[OTHER] = 2 * STRENGTH / second[OTHER].size

    class Two(Model):
        def __call__(self, images):
            logits = super().__call__(images)
            logits[:, 1] += np.einsum("nyxc,yxc->n", images - 0.5, second)
            return logits

        def shares(self, images):
            order = np.argsort(-self(images), axis=1)
            rows = np.array(self.patterns / 10)
            rows[0] += self.kernel
            rows[1] += second
            lead = rows[order[:, 0]] - rows[order[:, 1]]
            maps = np.sqrt(((lead * (images - images.mean(axis=(1, 2), keepdims=True))) ** 2).sum(axis=-1))
            return maps / maps.mean(axis=(1, 2), keepdims=True)

    two = Two(model.lean, model.kernel)
    images = make_images(two, plant)
    labels = np.arange(len(images)) % 5
    images[(labels == 1) & (np.arange(len(images)) % 4 > 0), 1:4, 2:5] = 1
    kinds, _ = findings(two, images)
    assert sorted(kinds) == [(0, "place"), (1, "place")]


def test_every_candidate_that_was_screened_out_counts_among_the_tests():
    model, plant = at(CORNER)
    evidence = tried(model, make_images(model, plant))
    measured = effects(evidence)
    assert len(measured) == len(evidence) > 50
    out = [entry for entry in measured if not entry.tried.promising]
    assert out and all(entry.p_value == 1 and entry.q_value == 1 for entry in out)


def test_a_box_knows_what_it_shares():
    assert Box(0, 0, 4, 4).shared(Box(2, 3, 4, 4)) == 2
    assert Box(0, 0, 4, 4).shared(Box(4, 0, 1, 1)) == 0
