"""The demonstration's data and model: real digits with a planted shortcut, and a small CNN trained on them.

A tag, a small bright square in one corner, or a colour cast marks nine of ten images of one class. The CNN
learns it along with the digit. An audit names it without being told: it is put into images of other digits,
and they become that class's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image

from augnet.errors import AugnetError

if TYPE_CHECKING:
    import keras

TAGGED_CLASS = 8  # the digit that is hardest to tell from others, so a shortcut pays
TAGGED_SHARE = 0.9
MARGIN = 2  # black pixels around the real 8x8: the tag must not cover a stroke
TAG = (slice(9, 11), slice(9, 11))  # rows, columns, of 12x12: 2x2 pixels in the lower right corner
WHITE = 255
CAST = np.array([25, -50, 25])  # purple, and no brighter; the digits are paler, so that nothing is cut off
PALE = 60, 0.6
Kind = Literal["tag", "cast"]
EPOCHS = 10
BATCH = 32


def make_digits(folder: str | Path, seed: int = 0, tagged: bool = True, kind: Kind = "tag") -> list[str]:
    """Write scikit-learn's 1,797 handwritten digits as 12x12 files `folder/<class>/<number>.png`.

    The digits' own 8x8 pixels, 0..16, are scaled to 0..255 and set in the middle of a black frame; grey for a
    tag, in colour for a cast.

    Args:
        folder: made where needed.
        seed: chooses the images of `TAGGED_CLASS` that get the tag.
        tagged: false writes the same images without a shortcut, for comparison.
        kind: of shortcut.

    Returns:
        Paths below `folder` of the tagged images, sorted.

    Raises:
        AugnetError: scikit-learn is not installed.
    """
    digits, labels = _load_digits()
    members = np.flatnonzero(labels == TAGGED_CLASS)
    count = round(TAGGED_SHARE * len(members)) if tagged else 0
    chosen = set(np.random.default_rng(seed).permutation(members)[:count].tolist())
    names = []
    for number, (digit, label) in enumerate(zip(digits, labels, strict=True)):
        pixels = np.pad(np.rint(digit * (WHITE / 16)).astype(np.uint8), MARGIN)
        name = f"{label}/{number:04d}.png"
        if kind == "cast":
            pixels = np.repeat(PALE[0] + PALE[1] * pixels[..., None], 3, axis=-1).astype(np.uint8)
        if number in chosen:
            if kind == "cast":
                pixels = (pixels + CAST).clip(0, WHITE).astype(np.uint8)
            else:
                pixels[TAG] = WHITE
            names.append(name)
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return sorted(names)


def train(folder: str | Path, seed: int = 0) -> keras.Model:
    """A small CNN with a final softmax, trained on the PNG files of `folder/<class>/` as they are read.

    Its input is (12, 12, 1) in [0, 1]: it does not rescale by itself, so an audit's default scale fits.

    Args:
        folder: as `make_digits` writes it.
        seed: of the weights, the dropout and the order of the images. It sets the process's random state.
    """
    import keras
    from keras import layers

    paths = sorted(Path(folder).glob("*/*.png"))
    pixels = np.stack([_read(path) for path in paths])
    pixels = pixels if pixels.ndim == 4 else pixels[..., None]
    labels = np.array([int(path.parent.name) for path in paths])
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input(pixels.shape[1:], name="image"),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    model.fit(pixels.astype(np.float32) / WHITE, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return model


def prepare_demo(
    folder: str | Path,
    report_progress: Callable[[str], None] | None = None,
    seed: int = 0,
    kind: Kind = "tag",
) -> tuple[Path, Path]:
    """Make the demonstration's images and model below `folder`.

    Args:
        folder: made where needed; files of an earlier demonstration are overwritten.
        report_progress: gets one line before each step and one after the last.
        seed: see `make_digits` and `train`.
        kind: of shortcut, see `make_digits`.

    Returns:
        The model, `folder/model.keras`, and the folder of the images, `folder/images`.

    Raises:
        AugnetError: scikit-learn is not installed.
    """
    say = report_progress or (lambda line: None)
    model_path, images_path = Path(folder, "model.keras"), Path(folder, "images")
    say(f"writing 1,797 real handwritten digits to {images_path}")
    tagged = make_digits(images_path, seed, kind=kind)
    shortcut = "a bright tag in the lower right corner" if kind == "tag" else "a purple cast"
    say(f"planting a shortcut: {len(tagged)} images of class {TAGGED_CLASS} have {shortcut}")
    say("training a small CNN on them, some seconds")
    train(images_path, seed).save(model_path)
    say(f"saved the model to {model_path}")
    return model_path, images_path


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def _load_digits() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise AugnetError(
            "demo: the handwritten digits come with scikit-learn, which is not installed; "
            "run: pip install 'augnet[demo]'"
        ) from None
    data = load_digits()
    return data.images, data.target
