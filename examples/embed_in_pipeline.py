"""Sensitivity statistics inside your own Beam pipeline.

The pipeline below reads image files, prepares them as it likes, and asks for the statistics of each
image's Jacobian with `RunInference`. It writes the images nearest to a decision boundary, as lines of JSON.
Replace the first steps by whatever yields your images: a Parquet file, a table, a queue.

    python examples/embed_in_pipeline.py --model model.keras --images 'photos/*.png' --output statistics.jsonl

Any other argument is a Beam pipeline option, such as --runner=FlinkRunner.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence

import apache_beam as beam
import keras
import numpy as np
from apache_beam.io import fileio
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from transforms.inference import JacobianModelHandler

COLUMNS = ("predicted", "probability", "margin_l2", "frobenius", "border_fraction")


def prepared(file: fileio.ReadableFile, height: int, width: int) -> tuple[str, np.ndarray]:
    """The file's name, and the float32 (height, width, channel) that the model was trained on."""
    with file.open() as stream, Image.open(stream) as picture:
        picture = picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return file.metadata.path, np.asarray(picture, np.float32) / 255


def line(name: str, statistics: dict) -> str:
    """One image as a line of JSON."""
    return json.dumps({"image": name} | {column: statistics[column] for column in COLUMNS})


def closeness(text: str) -> float:
    """Larger, the nearer the image is to a decision boundary; an image without a margin comes last."""
    margin = json.loads(text)["margin_l2"]
    return -math.inf if margin is None else -margin


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Sensitivity statistics inside a Beam pipeline.")
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", required=True, help="a glob")
    parser.add_argument("--output", required=True, help="file of JSON lines")
    parser.add_argument("--nearest", type=int, default=20, help="how many images to list")
    options, beam_arguments = parser.parse_known_args(arguments)
    height, width = keras.saving.load_model(options.model, compile=False).input_shape[1:3]

    # With many outputs add "jacobian.outputs": "top:5"; a margin, though, needs the rows of all outputs.
    handler = JacobianModelHandler(options.model, {"preprocess.scale": "unit"}, batch_size=16)

    with beam.Pipeline(options=PipelineOptions(beam_arguments)) as pipeline:
        (
            pipeline
            | "Match" >> fileio.MatchFiles(options.images)  # FileMetadata
            | "Spread" >> beam.Reshuffle()  # FileMetadata: names travel, pixels do not
            | "Read" >> fileio.ReadMatches()  # ReadableFile
            | "Prepare" >> beam.Map(prepared, height=height, width=width)  # (name, (height, width, 3))
            | "Measure" >> RunInference(KeyedModelHandler(handler))  # (name, statistics)
            | "Line" >> beam.MapTuple(line)  # str
            | "Nearest" >> beam.combiners.Top.Of(options.nearest, key=closeness)  # list of str
            | "Lines" >> beam.FlatMap(iter)  # str
            | "Write" >> beam.io.WriteToText(options.output, shard_name_template="")
        )


if __name__ == "__main__":
    main()
