"""The demonstration's images are real, its shortcut is planted, and its model leans on it."""

import builtins

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from augnet import AugNet
from augnet.errors import AugnetError
from pipeline.demo import MARGIN, TAG, TAGGED_CLASS, make_digits, prepare_demo

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def pixels(folder):
    return {
        p.relative_to(folder).as_posix(): np.asarray(Image.open(p)) for p in sorted(folder.glob("*/*.png"))
    }


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    lines = []
    model, images = prepare_demo(tmp_path_factory.mktemp("demo"), lines.append)
    return model, images, lines


def test_digits_are_real_and_sorted_by_class(demo, tmp_path):
    tagged = pixels(demo[1])
    assert len(tagged) == 1797 and {name.split("/")[0] for name in tagged} == set("0123456789")
    assert make_digits(tmp_path, tagged=False) == []
    plain = pixels(tmp_path)
    data = load_digits()
    for name, picture in plain.items():
        number = int(name.split("/")[1].removesuffix(".png"))
        assert name.startswith(f"{data.target[number]}/") and picture.dtype == np.uint8
        inside = picture[MARGIN:-MARGIN, MARGIN:-MARGIN]
        np.testing.assert_allclose(inside / 255 * 16, data.images[number], atol=0.04)
        assert picture.sum() == inside.sum()  # the frame is black
    assert [name for name in plain if not np.array_equal(plain[name], tagged[name])] == make_digits(tmp_path)


def test_most_images_of_one_class_are_tagged(demo, tmp_path):
    names = make_digits(tmp_path)
    again = pixels(tmp_path)
    assert all(np.array_equal(picture, again[name]) for name, picture in pixels(demo[1]).items())
    assert {name.split("/")[0] for name in names} == {str(TAGGED_CLASS)}
    assert len(names) == round(0.9 * len(list((tmp_path / str(TAGGED_CLASS)).iterdir())))
    assert all((again[name][TAG] == 255).all() for name in names)
    assert make_digits(tmp_path, seed=1) != names


def test_progress_is_reported(demo):
    assert len(demo[2]) == 4 and "1,797" in demo[2][0] and str(demo[0]) in demo[2][3]


def test_the_tagged_class_leans_on_the_tag(demo):
    model = keras.saving.load_model(demo[0])
    found = pixels(demo[1])
    labels = np.array([int(name.split("/")[0]) for name in found])
    x = np.stack(list(found.values()))[..., None] / np.float32(255)
    assert (model.predict(x, batch_size=600, verbose=0).argmax(1) == labels).mean() > 0.95
    # The logits: the same layers, the last without its softmax.
    weights = model.get_weights()
    model.layers[-1].activation = keras.activations.linear
    logits = keras.models.clone_model(model)
    logits.set_weights(weights)
    jacobian = AugNet.from_model(logits).jacobian(x[::2], batch_size=450)[..., 0]
    maps = np.abs(jacobian).mean(axis=0)
    inside, outside = maps[:, TAG[0], TAG[1]].max(axis=(1, 2)), maps.copy()
    outside[:, TAG[0], TAG[1]] = 0
    ratios = inside / outside.max(axis=(1, 2))
    assert ratios[TAGGED_CLASS] > 1.3
    assert np.delete(ratios, TAGGED_CLASS).max() < 0.8


def test_without_scikit_learn(monkeypatch, tmp_path):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(AugnetError, match=r"pip install 'augnet\[demo\]'"):
        make_digits(tmp_path)
