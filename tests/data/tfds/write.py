"""Writes insects/ here: nine pictures in two splits, as TensorFlow Datasets 4.9.10 stores them.

Run from the root of the repository: PYTHONPATH=tests python tests/data/tfds/write.py
"""

from pathlib import Path

import tensorflow_datasets as tfds
from dataset_forms import CLASSES, pictures

if __name__ == "__main__":
    image = tfds.features.Image(shape=(12, 10, 3), encoding_format="png")
    features = tfds.features.FeaturesDict(
        {"image": image, "label": tfds.features.ClassLabel(names=list(CLASSES)), "id": tfds.features.Text()}
    )
    rows = [(i.name, {"image": i.pixels, "label": i.number, "id": i.name}) for i in pictures(9)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="insects",
        version="1.0.0",
        data_dir=Path(__file__).parent,
        split_datasets={"train": rows[:6], "test": rows[6:]},
        features=features,
    )
