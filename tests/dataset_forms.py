"""The same pictures as a dataset of every form, each written by the format's own usual writer."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cow")


@dataclass(frozen=True)
class Picture:
    """A picture of a dataset: its name without ending, its pixels (height, width, 3) uint8, and its class."""

    name: str
    pixels: np.ndarray
    number: int

    @property
    def label(self) -> str:
        return CLASSES[self.number]

    @property
    def png(self) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "PNG")
        return buffer.getvalue()


def pictures(count: int = 200, size: tuple[int, int] = (12, 10)) -> list[Picture]:
    rng = np.random.default_rng(11)
    return [
        Picture(f"{index:04d}", rng.integers(0, 256, (*size, 3), np.uint8), index % len(CLASSES))
        for index in range(count)
    ]


def write_folder(folder: Path, images: list[Picture]) -> Path:
    for image in images:
        path = folder / image.label / f"{image.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.png)
    return folder


def write_manifest(folder: Path, images: list[Picture], ending: str = ".csv") -> Path:
    """A table of paths and labels by pandas, beside the folder of the pictures."""
    import pandas

    write_folder(folder / "images", images)
    table = pandas.DataFrame(
        {
            "file_name": [f"images/{image.label}/{image.name}.png" for image in images],
            "label": [image.label for image in images],
            "hospital": ["north" if image.number else "south" for image in images],
        }
    )
    path = folder / f"images{ending}"
    match ending:
        case ".csv":
            table.to_csv(path, index=False)
        case ".tsv":
            table.to_csv(path, index=False, sep="\t")
        case ".jsonl":
            table.to_json(path, orient="records", lines=True)
        case ".parquet":
            table.to_parquet(path)
    return path


def write_webdataset(folder: Path, images: list[Picture], shard: int = 80, ending: str = ".tar") -> Path:
    """Shards with the class's number in a `.cls` member, by the webdataset package."""
    import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(images), shard)):
        with webdataset.TarWriter(str(folder / f"shard-{number:03d}{ending}")) as writer:
            for image in images[start : start + shard]:
                writer.write({"__key__": image.name, "png": image.png, "cls": image.number})
    return folder


def write_zip(folder: Path, images: list[Picture]) -> Path:
    """A folder of pictures, packed by Python's own zipfile."""
    write_folder(folder / "images", images)
    with zipfile.ZipFile(folder / "pictures.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for image in images:
            name = f"images/{image.label}/{image.name}.png"
            archive.write(folder / name, name)
    return folder / "pictures.zip"


def write_parquet(folder: Path, images: list[Picture], **settings: int) -> Path:
    """A column of bytes and one of class names, by pandas."""
    import pandas

    folder.mkdir(parents=True, exist_ok=True)
    table = pandas.DataFrame({"image": [i.png for i in images], "label": [i.label for i in images]})
    table.to_parquet(folder / "pictures.parquet", **settings)
    return folder / "pictures.parquet"


def hf_dataset(images: list[Picture]):
    """A `datasets.Dataset` with an Image and a ClassLabel column."""
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))}
    )
    rows = {
        "image": [{"bytes": image.png, "path": f"{image.name}.png"} for image in images],
        "label": [image.number for image in images],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def write_hf_parquet(folder: Path, images: list[Picture]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    hf_dataset(images).to_parquet(folder / "train-00000-of-00001.parquet")
    return folder


def write_hf(folder: Path, images: list[Picture]) -> Path:
    hf_dataset(images).save_to_disk(folder)
    return folder


def write_tfrecord(folder: Path, images: list[Picture], gzip: bool = False, shard: int = 90) -> Path:
    """Examples with an encoded image and a class's number, by TensorFlow's own writer."""
    import tensorflow as tf

    def feature(kind: str, value: object) -> tf.train.Feature:
        lists = {"bytes": tf.train.BytesList, "int64": tf.train.Int64List}
        return tf.train.Feature(**{f"{kind}_list": lists[kind](value=[value])})

    folder.mkdir(parents=True, exist_ok=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP" if gzip else "")
    count = -(-len(images) // shard)
    for number in range(count):
        path = folder / f"train.tfrecord-{number:05d}-of-{count:05d}"
        with tf.io.TFRecordWriter(str(path), options) as writer:
            for image in images[number * shard : (number + 1) * shard]:
                features = {
                    "image/encoded": feature("bytes", image.png),
                    "image/class/label": feature("int64", image.number),
                    "image/class/text": feature("bytes", image.label.encode()),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    return folder


def write_npz(folder: Path, images: list[Picture], packed: bool = False) -> Path:
    """Arrays x and y, by NumPy."""
    folder.mkdir(parents=True, exist_ok=True)
    save = np.savez_compressed if packed else np.savez
    save(folder / "pictures.npz", x=np.stack([i.pixels for i in images]), y=[i.number for i in images])
    return folder / "pictures.npz"


def write_npy(folder: Path, images: list[Picture]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "x.npy", np.stack([image.pixels for image in images]))
    np.save(folder / "y.npy", [image.number for image in images])
    return folder
