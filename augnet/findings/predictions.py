"""Doubts about the predictions themselves, of the kind that wrong preprocessing causes.

A model that gets pixels on another scale than it was trained on often predicts one class for everything, or
guesses. Neither is proof: it may simply be a bad model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

MIN_IMAGES = 50
CONSTANT = 0.99
"""Share of the images with one prediction from which on predictions count as constant."""
CHANCE_DEVIATIONS = 3.0
"""Standard deviations above guessing within which an accuracy may be chance."""

ADVICE = "is preprocess.scale what the model was trained with?"


def is_guessing(accuracy: float, classes: int, judged: int) -> bool:
    """Whether so many images may be predicted right by chance."""
    chance = 1 / classes
    return accuracy <= chance + CHANCE_DEVIATIONS * math.sqrt(chance * (1 - chance) / judged)


def doubted_predictions(
    predicted: Mapping[str, int], labels: Mapping[str, int], judged: int, accuracy: float | None
) -> list[str]:
    """One sentence for each reason to doubt that the model got the images it was trained for.

    Args:
        predicted: output (its number) -> images it was predicted for.
        labels: label -> images with it.
        judged: images with a label that the model has an output for.
        accuracy: share of those predicted right; None where there are none.
    """
    images, classes = sum(predicted.values()), sum(1 for count in labels.values() if count)
    if images < MIN_IMAGES:
        return []
    output, most = max(predicted.items(), key=lambda entry: entry[1])
    if most >= CONSTANT * images and classes != 1:
        return [f"output {output} is predicted for {most} of {images} images; {ADVICE}"]
    if accuracy is None or judged < MIN_IMAGES or classes < 2:
        return []
    if not is_guessing(accuracy, classes, judged):
        return []
    return [f"the accuracy {accuracy:.1%} is that of guessing among {classes} labels; {ADVICE}"]
