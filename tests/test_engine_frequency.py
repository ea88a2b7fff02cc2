"""Energy by spatial frequency, against the whole complex DFT in float64."""

import numpy as np
import pytest
from conftest import SIZE, small_cnn
from keras import ops
from statistics_helpers import rings_of as rings_by_loop

from augnet.engine import Engine, EngineOptions, inspect_model
from augnet.engine.batch import RINGS, rings_of
from augnet.engine.measures import blocks, frequency
from augnet.statistics.frequency import band_shares, high_frequency_share

SHAPES = [(8, 8, 3), (11, 7, 2), (6, 13, 1), (1, 9, 1), (10, 1, 4), (1, 1, 3)]


def shares(rows):
    squared = np.square(rows, dtype=np.float64).sum(axis=(2, 3, 4))
    found = frequency.ring_shares(ops.convert_to_tensor(rows), ops.convert_to_tensor(squared))
    return np.asarray(found, np.float64)


@pytest.fixture(params=[1, 300, 10**6])
def block(request, monkeypatch):
    """Blocks of one row, of a few with a rest, and of everything."""
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", request.param)


@pytest.mark.parametrize("shape", SHAPES)
def test_rings_are_those_of_the_whole_transform(shape, block):
    rows = np.random.default_rng(0).normal(0.3, 1.0, size=(2, 5, *shape)).astype("float32")
    found = shares(rows)
    assert found.shape == (2, 5, RINGS)
    for image, row in np.ndindex(2, 5):
        np.testing.assert_allclose(
            found[image, row], rings_by_loop(rows[image, row].astype(float)), atol=2e-6
        )
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)  # Parseval


def test_a_constant_row_has_all_of_its_energy_at_zero():
    found = shares(np.full((1, 1, 6, 9, 3), -0.2, np.float32))[0, 0]
    assert found[0] == pytest.approx(1, rel=1e-6) and high_frequency_share(found) < 1e-9


def test_a_chessboard_has_all_of_it_at_the_corner():
    board = (-1.0) ** np.add.outer(np.arange(8), np.arange(6))
    found = shares(board[None, None, ..., None].astype(np.float32))[0, 0]
    assert found[-1] == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(band_shares(found), [0, 0, 0, 0, 1], atol=1e-6)


def test_white_noise_has_as_much_everywhere():
    rows = np.random.default_rng(1).normal(size=(4, 50, 16, 12, 3)).astype(np.float32)
    vertical, horizontal = 2 * np.fft.fftfreq(16)[:, None], 2 * np.fft.fftfreq(12)
    expected = np.mean(np.hypot(vertical, horizontal) > 0.5)
    found = high_frequency_share(shares(rows))
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / np.sqrt(found.size))


def test_half_of_nyquists_frequency_itself_is_not_above_it():
    wave = np.cos(np.arange(16) * np.pi / 2)[None, :].repeat(4, axis=0)
    assert high_frequency_share(shares(wave[None, None, ..., None].astype(np.float32))) < 1e-6


@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e30])
def test_the_size_of_a_row_does_not_matter(size):
    rows = np.random.default_rng(2).normal(size=(1, 2, 7, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(shares(rows * np.float32(size)), shares(rows), rtol=1e-4, atol=1e-6)


def test_a_row_of_zeros_has_no_shares_and_one_of_nan_spoils_no_other():
    rows = np.random.default_rng(3).normal(size=(1, 3, 6, 6, 1)).astype(np.float32)
    rows[0, 0], rows[0, 1, 2, 2] = 0, np.nan
    found = shares(rows)[0]
    assert (found[0] == 0).all() and np.isnan(found[1]).any()
    np.testing.assert_allclose(found[2], rings_by_loop(rows[0, 2].astype(float)), atol=2e-6)


def test_an_engine_measures_the_predicted_row_and_one_that_the_image_draws():
    images = np.random.default_rng(4).random((20, *SIZE, 3)).astype(np.float32)
    inspected = inspect_model(small_cnn())
    found = []
    for size in (3, 20):
        engine = Engine(inspected, EngineOptions(batch_size=size), tuning_seconds=0)
        batch = engine.measure(images)
        predicted = batch.outputs.argmax(axis=1)
        for k in range(20):
            for row, output in enumerate((predicted[k], batch.drawn[k])):
                truth = rings_by_loop(batch.rows[k, output].astype(float))
                np.testing.assert_allclose(batch.rings[k, row], truth, atol=1e-5)
        found.append(batch.drawn.tolist())
    assert found[0] == found[1] and set(found[0]) == {0, 1, 2}


def test_every_frequency_is_in_a_ring():
    for height, width in [(224, 224), (75, 100), (2, 3)]:
        place = rings_of(height, width)
        assert place.shape == (height, width // 2 + 1) and place.min() == 0 and place.max() < RINGS
        weights = frequency.ring_weights(height, width)
        assert (weights > 0).sum(axis=1).max() == 1
        assert weights.sum() == pytest.approx(1)
