"""Aggregates: any split and any order of merging gives what NumPy gives directly."""

import io
import time
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statistics_helpers import batch_of, groups_of, moments_of

from augnet.statistics.aggregate import FORMAT, PAIRED_OUTPUTS, Aggregate, Shape
from augnet.statistics.image import FLAGS, image_statistics
from augnet.statistics.moments import block_mean, choose_map_pool

SHAPE = Shape(outputs=3, labels=2, height=5, width=7, channels=2, map_pool=2, gallery=8, sampled=3)


class Images:
    """n images of a made-up model, to be added in any parts."""

    def __init__(self, n=12, seed=0, selected=None, shape=SHAPE):
        rng = np.random.default_rng(seed)
        self.shape = shape
        size = (shape.height, shape.width, shape.channels)
        self.rows = rng.normal(size=(n, shape.outputs, *size)).astype(np.float32)
        self.outputs = rng.normal(size=(n, shape.outputs))
        self.inputs = rng.random((n, *size)).astype(np.float32)
        self.labels = rng.integers(-1, shape.labels, n) if shape.labels else np.full(n, -1)
        self.ids = [f"{k % 3}/{k:03d}.png" for k in range(n)]
        self.pictures = rng.integers(0, 256, (n, *size[:2], 3)).astype(np.uint8)
        self.attributions = rng.random((n, 1, *size[:2])).astype(np.float32)
        self.selected = selected(self.outputs) if selected else np.tile(np.arange(shape.outputs), (n, 1))

    def batch(self, part):
        return batch_of(
            self.rows[part],
            self.outputs[part],
            selected=self.selected[part],
            inputs=self.inputs[part],
            label_ids=self.labels[part],
            label_count=self.shape.labels,
            map_pool=self.shape.map_pool,
            attributions=self.attributions[part],
        )

    def statistics(self, part):
        labels = self.labels[part]
        return image_statistics(self.batch(part), task="multiclass", label_outputs=labels, border=0.1)

    def aggregate(self, *parts):
        """The aggregate of batches, each a list of image numbers."""
        result = Aggregate.empty(self.shape)
        for part in map(list, parts):
            result.add(
                self.batch(part),
                self.statistics(part),
                self.inputs[part],
                image_ids=[self.ids[k] for k in part],
                label_ids=self.labels[part],
                picture=lambda k, part=part: self.pictures[part[k]],
                resized=len(part),
                recolored=1,
            )
            ids = [self.ids[k] for k in part]
            uris = [f"/{name}" for name in ids]
            result.sample.add(self.batch(part), self.inputs[part], "multiclass", ids, uris)
        return result


def top_two(outputs):
    return np.argsort(-outputs, axis=1)[:, :2]


def saved(aggregate):
    file = io.BytesIO()
    aggregate.save(file)
    file.seek(0)
    return file


def content(aggregate):
    """Everything an aggregate holds, as one dict of arrays."""
    with np.load(saved(aggregate)) as stored:
        return {name: stored[name] for name in stored.files}


def assert_same(one, other):
    one, other = content(one), content(other)
    assert set(one) == set(other)
    for name, array in one.items():
        if array.dtype.kind == "f":
            np.testing.assert_allclose(other[name], array, rtol=1e-6, atol=1e-9, err_msg=name)
        else:
            np.testing.assert_array_equal(other[name], array, err_msg=name)


@st.composite
def splits(draw, n=12):
    """Images in any order, cut into units, each cut into batches; and the order in which the units merge."""
    order = draw(st.permutations(range(n)))
    cuts = sorted(draw(st.sets(st.integers(1, n - 1), max_size=5)))
    batches = [order[a:b] for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    units = draw(st.lists(st.integers(0, 2), min_size=len(batches), max_size=len(batches)))
    return [
        [b for b, u in zip(batches, units, strict=True) if u == unit]
        for unit in draw(st.permutations(range(3)))
    ]


@settings(max_examples=25, deadline=None)
@given(splits(), st.sampled_from([None, top_two]), st.booleans())
def test_any_split_and_order_gives_the_same(units, selected, first_is_empty):
    images = Images(selected=selected)
    merged = Aggregate.empty(SHAPE) if first_is_empty else images.aggregate(*units.pop(0))
    for batches in units:
        merged.merge(images.aggregate(*batches))
    whole = images.aggregate(range(12))
    merged.recolored = whole.recolored  # counted by batch
    assert_same(whole, merged)


@pytest.mark.parametrize("selected", [None, top_two])
def test_the_whole_is_what_numpy_gives(selected):
    images = Images(n=30, selected=selected)
    aggregate = images.aggregate(range(0, 7), range(7, 30))
    taken = [images.rows[k, images.selected[k]].astype(np.float64) for k in range(30)]
    predicted = images.outputs.argmax(axis=1)
    own = [images.rows[k, predicted[k]].astype(np.float64) for k in range(30)]
    expected = moments_of(groups_of(taken, own, images.selected, 3, images.labels, 2), pool=2)
    for name in ("count", "mean", "m2", "mean_abs", "max_abs"):
        np.testing.assert_allclose(getattr(aggregate.moments, name), getattr(expected, name), err_msg=name)

    norms = {output: [] for output in range(3)}
    cosines = {(a, b): [] for a in range(3) for b in range(3)}
    for k, rows in enumerate(taken):
        for a, one in zip(images.selected[k], rows, strict=True):
            norms[a].append(np.linalg.norm(one))
            for b, other in zip(images.selected[k], rows, strict=True):
                cosines[a, b].append((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))
    for output, found in norms.items():
        assert aggregate.row_l2.count[output] == len(found)
        assert aggregate.row_l2.mean[output] == pytest.approx(np.mean(found))
        assert aggregate.row_l2.m2[output] == pytest.approx(np.var(found) * len(found))
        assert aggregate.row_l2.max_abs[output] == pytest.approx(max(found))
    for pair, found in cosines.items():
        assert aggregate.pairs.count[pair] == len(found)
        assert aggregate.pairs.cosine[pair] == pytest.approx(sum(found))

    rivals = np.zeros((3, 3), int)
    for k, rival in enumerate(images.statistics(list(range(30)))["rival"].to_pylist()):
        if rival is not None:
            rivals[predicted[k], rival] += 1
    assert rivals.sum() == (0 if selected else 30)
    np.testing.assert_array_equal(aggregate.pairs.rivals, rivals)
    np.testing.assert_allclose(aggregate.input_sum, block_mean(images.inputs.astype(float).sum(axis=0), 2))
    np.testing.assert_array_equal(aggregate.labels, [(images.labels == label).sum() for label in range(2)])
    assert (aggregate.images, aggregate.resized, aggregate.recolored) == (30, 30, 2)


def test_an_image_that_is_not_finite_counts_but_enters_nothing():
    images = Images(n=8)
    clean = images.aggregate(range(7))
    images.rows[7, 0, 0, 0, 0] = images.attributions[7, 0, 0, 0] = np.nan
    spoiled = images.aggregate(range(4), range(4, 8))
    assert spoiled.images == 8
    assert dict(zip(FLAGS, spoiled.flags, strict=True))["nan"] == 1
    for name in ("mean", "m2", "count"):  # its other rows are finite and in the engine's moments
        assert np.isfinite(getattr(spoiled.moments, name)).all()
        np.testing.assert_allclose(getattr(spoiled.moments, name)[0], getattr(clean.moments, name)[0])
    np.testing.assert_allclose(spoiled.pairs.cosine, clean.pairs.cosine)
    np.testing.assert_allclose(spoiled.row_l2.mean, clean.row_l2.mean)
    assert sum(map(len, spoiled.sample.groups.values())) == 7


def test_moments_that_an_engine_spoiled_are_left_out():
    images = Images(n=4)
    part = [0, 1, 2, 3]
    batch, aggregate = images.batch(part), Aggregate.empty(SHAPE)
    images.rows[2] = np.nan
    flagged = images.statistics(part)
    batch.moments.mean[1, 0, 0, 0] = np.nan
    aggregate.add(
        batch,
        flagged,
        images.inputs,
        image_ids=images.ids,
        label_ids=images.labels,
        picture=lambda k: images.pictures[k],
    )
    assert np.isfinite(aggregate.moments.mean).all()
    assert aggregate.moments.count.tolist()[:3] == [4, 0, 4]


def test_zero_rows_have_no_cosine():
    images = Images(n=3)
    images.rows[1, 2] = 0
    pairs = images.aggregate(range(3)).pairs
    assert pairs.count.tolist() == [[3, 3, 2], [3, 3, 2], [2, 2, 2]]
    assert np.isfinite(pairs.cosine).all()


# ---- files


def test_a_file_gives_the_aggregate_back(tmp_path):
    images = Images()
    aggregate = images.aggregate(range(5), range(5, 12))
    aggregate.failures = 4
    aggregate.save(tmp_path / "part.tmp")
    loaded = Aggregate.load(tmp_path / "part.tmp")
    assert_same(aggregate, loaded)
    assert loaded.shape == SHAPE
    assert loaded.failures == 4
    assert loaded.moments.mean.flags.writeable
    loaded.merge(images.aggregate([0]))
    assert loaded.images == 13


def test_an_empty_aggregate_has_a_file(tmp_path):
    Aggregate.empty(SHAPE).save(tmp_path / "part.npz")
    assert_same(Aggregate.load(tmp_path / "part.npz"), Aggregate.empty(SHAPE))


def test_the_same_aggregate_has_the_same_bytes(monkeypatch):
    files = []
    for clock in (1e9, 2e9):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        files.append(saved(Images().aggregate(range(12))).getvalue())
    assert files[0] == files[1]
    with zipfile.ZipFile(io.BytesIO(files[0])) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", format=np.array(99))
    with pytest.raises(ValueError, match=f"format {FORMAT}"):
        Aggregate.load(tmp_path / "other.npz")


def test_only_aggregates_of_one_audit_merge():
    with pytest.raises(ValueError, match="different audits"):
        Aggregate.empty(SHAPE).merge(Aggregate.empty(Shape(3, 2, 5, 7, 2)))


# ---- pools


@pytest.mark.parametrize(
    "groups, height, width, channels", [(13, 256, 256, 1), (1000, 32, 40, 3), (3, 9, 5, 1)]
)
@pytest.mark.parametrize("budget", [1, 10_000, 5_000_000, 10**9])
def test_the_pool_is_the_smallest_that_fits(groups, height, width, channels, budget):
    def size(pool):
        return 4 * 8 * groups * channels * -(-height // pool) * -(-width // pool)

    pool = choose_map_pool(groups, height, width, channels, budget)
    assert size(pool) <= budget or pool == max(height, width)
    assert pool == 1 or size(pool - 1) > budget


def test_block_means_end_with_what_is_left():
    image = np.arange(35.0).reshape(5, 7, 1)
    blocks = block_mean(image, 3)
    assert blocks.shape == (2, 3, 1)
    assert blocks[0, 0, 0] == image[:3, :3].mean()
    assert blocks[1, 2, 0] == image[3:, 6:].mean()
    np.testing.assert_array_equal(block_mean(image[None], 1), image[None])


def test_a_thousand_outputs(tmp_path):
    shape = Shape(outputs=1000, labels=0, height=2, width=2, channels=1)
    aggregate = Images(n=2, shape=shape).aggregate([0], [1])
    aggregate.save(tmp_path / "a.npz")
    loaded = Aggregate.load(tmp_path / "a.npz")
    assert loaded.pairs.count.sum() == 2 * 1000**2
    assert loaded.pairs.rivals.sum() == 2


def test_pairs_of_very_many_outputs_are_not_gathered():
    shape = Shape(outputs=PAIRED_OUTPUTS + 1, labels=0, height=1, width=2, channels=1, map_pool=2)
    images = Images(n=2, shape=shape, selected=top_two)
    aggregate = images.aggregate([0, 1])
    assert aggregate.pairs.count.size == 0
    assert aggregate.row_l2.count.sum() == 4
    assert_same(aggregate, Aggregate.load(saved(aggregate)))
