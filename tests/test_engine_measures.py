"""What the device measures of rows, against NumPy in float64, in one piece and in many."""

from functools import cache

import numpy as np
import pytest
from keras import ops

from augnet.engine.backends import backend
from augnet.engine.measures import blocks, gram
from augnet.engine.measures import on_device as measures

BATCH, ROWS, HEIGHT, WIDTH, CHANNELS = 4, 3, 11, 7, 2


@pytest.fixture(params=[16, 400, 10**6])
def block(request, monkeypatch):
    """Blocks smaller than a line, of a few lines, and of everything."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", request.param)


@pytest.fixture
def rows():
    made = np.random.default_rng(0).normal(1.0, 0.5, size=(BATCH, ROWS, HEIGHT, WIDTH, CHANNELS))
    made[3] = made[2]  # padding repeats the last image
    return made.astype("float32")


@cache
def compiled_products(shape, elements):
    """gram.products of rows of this shape as a program, in blocks of so many elements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK_ELEMENTS", elements)
        signature = [(shape, "float32"), (shape[:1], "int32")]
        program = backend.compiled(lambda *given: gram.products(*given), signature)
    return lambda *given: backend.to_host(backend.run(program, given, ["float32", "int32"]))


@pytest.mark.parametrize("inputs", [None, ROWS - 1])
def test_products_are_those_of_float64(rows, block, inputs):
    flat = rows.reshape(BATCH, ROWS, -1)[..., :inputs]
    predicted = np.array([2, 0, 1, 1], np.int32)
    made, l1 = compiled_products(flat.shape, blocks.BLOCK_ELEMENTS)(flat, predicted)
    wide = flat.astype(float)
    np.testing.assert_allclose(made, wide @ wide.transpose(0, 2, 1), rtol=1e-12)
    own = wide[np.arange(BATCH), predicted]
    np.testing.assert_allclose(l1, np.abs(wide - own[:, None]).sum(axis=2), rtol=1e-5)


def test_products_of_a_thousand_rows_take_less_memory_than_the_rows():
    """Nothing is run: the sizes of all tensors outside of the loop over blocks are known beforehand."""
    batch, count, size = 8, 1000, 32 * 32 * 3
    program = backend.compiled(
        lambda rows, predicted: gram.products(rows, predicted),
        [((batch, count, size), "float32"), ((batch,), "int32")],
    )
    sizes = [out.shape.num_elements() for op in program.graph.get_operations() for out in op.outputs]
    assert max(size for size in sizes if size) == batch * count * size


MANY_ROWS = {
    "independent": lambda rng, shape: rng.normal(size=shape),
    "of low rank": lambda rng, shape: rng.normal(size=(*shape[:2], 9)) @ rng.normal(size=(9, shape[2])),
    "tiny and huge": lambda rng, shape: rng.normal(size=shape) * 10 ** rng.uniform(-30, 15, (*shape[:2], 1)),
    "nearly the same": lambda rng, shape: rng.normal(size=shape[2]) + 1e-3 * rng.normal(size=shape),
    "one of them zero": lambda rng, shape: rng.normal(size=shape) * (np.arange(shape[1]) != 70)[:, None],
}


@pytest.mark.parametrize("kind", MANY_ROWS)
@pytest.mark.parametrize("elements", [2**13, 2**21])
def test_products_of_many_rows_in_float32_keep_norms_distances_and_eigenvalues(kind, elements):
    flat = MANY_ROWS[kind](np.random.default_rng(0), (2, 130, 333)).astype("float32")
    place = np.array([129, 40], np.int32)
    found, l1 = compiled_products(flat.shape, elements)(flat, place)
    for k in range(2):
        wide = flat[k].astype(float)
        slopes = wide - wide[place[k]]
        norms, apart = np.linalg.norm(wide, axis=1), np.square(slopes).sum(axis=1)
        assert np.all(np.abs(found[k] - wide @ wide.T) <= 1e-6 * np.outer(norms, norms))
        np.testing.assert_allclose(l1[k], np.abs(slopes).sum(axis=1), rtol=1e-6)
        squared = np.diagonal(found[k])
        between = squared + squared[place[k]] - 2 * found[k, place[k]]
        assert np.all(np.abs(between - apart) <= 1e-6 * apart + 1e-8 * np.sqrt(apart) * norms)
        mean = np.square(norms).mean()
        noise = np.abs(np.linalg.eigvalsh(found[k]) - np.linalg.eigvalsh(wide @ wide.T))
        assert noise[:120].max() < gram.NOISE * mean


def test_a_row_that_is_not_finite_spoils_no_product_of_others():
    flat = np.random.default_rng(0).normal(size=(3, 130, 200)).astype("float32")
    wide = flat.astype(float) @ flat.astype(float).transpose(0, 2, 1)
    flat[0, 5, 7], flat[1, 6, 8], flat[2, 7, 9] = np.nan, np.inf, np.nan
    found, _ = gram.products(ops.convert_to_tensor(flat), np.array([3, 6, 7], np.int32))
    for k, bad in enumerate((5, 6, 7)):
        others = np.arange(130) != bad
        np.testing.assert_allclose(
            np.asarray(found)[k][others][:, others], wide[k][others][:, others], rtol=1e-4, atol=1e-4
        )
        assert not np.isfinite(np.asarray(found)[k, bad]).any()
    assert np.isinf(np.asarray(found)[1, 6, 6])


@pytest.mark.parametrize("width", [20, 128])
def test_products_of_many_rows_behind_a_cut_are_those_of_its_factors(width):
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=shape).astype("float32") for shape in ((2, 150, width), (2, width, 300)))
    flat, place = left @ right, np.array([0, 149], np.int32)
    made, l1 = gram.products(*map(ops.convert_to_tensor, (flat, place)), False, (left, right))
    wide = left.astype(float) @ right.astype(float)
    norms = np.linalg.norm(wide, axis=2)
    apart = np.abs(made - wide @ wide.transpose(0, 2, 1)) / (norms[:, :, None] * norms[:, None, :])
    assert apart.max() < (1e-13 if width < gram.MANY else 1e-6)
    own = wide[[0, 1], place]
    np.testing.assert_allclose(l1, np.abs(wide - own[:, None]).sum(axis=2), rtol=1e-5)
    assert np.sort(np.linalg.eigvalsh(made))[:, : 150 - width].max() < 1e-10


def test_products_of_many_rows_are_those_of_float64_where_asked_for():
    flat = np.random.default_rng(0).normal(size=(2, 130, 140)).astype("float32")
    made, _ = gram.products(ops.convert_to_tensor(flat), np.zeros(2, np.int32), exact=True)
    wide = flat.astype(float)
    np.testing.assert_allclose(made, wide @ wide.transpose(0, 2, 1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("pool", "fused"), [(1, 8), (1, 3), (2, 8), (3, 8)])
def test_moments_are_those_of_the_finite_rows_of_real_images(rows, pool, fused, block, monkeypatch):
    monkeypatch.setattr(measures, "FUSED_IMAGES", fused)
    weight = np.ones((BATCH, ROWS), np.float32)
    weight[3] = 0
    weight[1, 2] = 0
    finite = np.ones((BATCH, ROWS), bool)
    finite[1, 2] = False
    spoiled = rows.copy()
    spoiled[0] *= 30  # a first image unlike the others
    rows = spoiled.copy()
    spoiled[1, 2, 4, 4] = np.nan
    weight[0, 1], finite[0, 1], spoiled[0, 1, 3, 3] = 0, False, np.inf
    made = measures.moments_over_batch(*map(ops.convert_to_tensor, (spoiled, weight, finite)), pool)
    for row in range(ROWS):
        kept = rows[weight[:, row] > 0, row].astype(float)
        for y in range(-(-HEIGHT // pool)):
            for x in range(-(-WIDTH // pool)):
                part = kept[:, y * pool : (y + 1) * pool, x * pool : (x + 1) * pool]
                means = part.mean(axis=(1, 2))
                m2 = np.square(part - means.mean(axis=0)).mean(axis=(1, 2)).sum(axis=0)
                truth = means.mean(axis=0), m2, np.abs(part).mean(axis=(0, 1, 2)), np.abs(part).max((0, 1, 2))
                for array, value in zip(made, truth, strict=True):
                    np.testing.assert_allclose(np.asarray(array)[row, y, x], value, rtol=2e-5, atol=1e-6)


def test_the_nearest_rival_is_that_of_a_loop(rows):
    flat = rows.reshape(BATCH, ROWS, -1).astype(float)
    gram = flat @ flat.transpose(0, 2, 1)
    scores = np.array([[3, 1, 2], [1, 5, 4.9], [0, 0, 2], [0, 0, 2]])
    place = scores.argmax(axis=1).astype(np.int32)
    gram[3] = gram[3, 2, 2]  # all rows are the same: no boundary is ever reached
    rival, met = measures.nearest_rival(*map(ops.convert_to_tensor, (gram, scores, place)))
    assert met.numpy().tolist() == [True, True, True, False]
    for k in range(3):
        others = [j for j in range(ROWS) if j != place[k]]
        far = [np.linalg.norm(flat[k, j] - flat[k, place[k]]) for j in others]
        gaps = [scores[k, place[k]] - scores[k, j] for j in others]
        assert rival[k] == others[int(np.argmin(np.divide(gaps, far)))]


def test_what_is_measured_of_two_rows_is_in_float64_where_it_cancels(rows):
    own, rival = rows[:, 0], rows[:, 1]
    x = np.random.default_rng(4).normal(size=own.shape).astype(np.float32)
    magnitude, dot, maps = measures.of_two_rows(*map(ops.convert_to_tensor, (own, rival, x)), 3)
    np.testing.assert_allclose(magnitude, np.sqrt((own.astype(float) ** 2).sum(axis=-1)), rtol=1e-6)
    np.testing.assert_allclose(dot, (own.astype(float) * x).sum(axis=(1, 2, 3)), rtol=1e-12)
    np.testing.assert_array_equal(maps, measures.views(*map(ops.convert_to_tensor, (own, rival)), 3))


def test_views_are_block_means_of_sums_and_norms_over_channels(rows):
    own, rival = rows[:, 0], rows[:, 1]
    made = np.asarray(measures.views(ops.convert_to_tensor(own), ops.convert_to_tensor(rival), 3))
    assert made.shape == (BATCH, 5, 4, 3)
    norms = [np.sqrt((part.astype(float) ** 2).sum(axis=-1)) for part in (own, rival, own - rival)]
    full = [own.sum(axis=-1), rival.sum(axis=-1), *norms]
    for view, truth in zip(made.transpose(1, 0, 2, 3), full, strict=True):
        np.testing.assert_allclose(view[:, 1, 1], truth[:, 3:6, 3:6].mean(axis=(1, 2)), rtol=1e-5)
        np.testing.assert_allclose(view[:, 3, 2], truth[:, 9:, 6:].mean(axis=(1, 2)), rtol=1e-5)
