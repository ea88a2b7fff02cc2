"""The engine inside somebody else's Beam pipeline: `RunInference(JacobianModelHandler("model.keras"))`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import ModelHandler

from augnet.audits.engine_setup import engine_errors_by_key, engine_options, open_model, open_preprocess
from augnet.audits.measure import measure_images
from augnet.config import Config, load_config
from augnet.engine import Choice, Engine
from augnet.errors import ConfigError, ImageError
from augnet.sources import Preprocess
from augnet.statistics.image import task_of
from augnet.storage.catalog import catalog
from transforms.audit import NAMESPACE

SECTIONS = ("model", "preprocess", "jacobian", "store", "statistics")
"""The sections of the configuration that have a say in what is computed of an image."""


@dataclass(frozen=True)
class Labelled:
    """An image whose true output is known.

    Attributes:
        image: float32 (height, width, channel), or the bytes of an image file.
        output: the model output that is right; for a model with one sigmoid output, the class 0 or 1.
    """

    image: np.ndarray | bytes
    output: int


Element = np.ndarray | bytes | Labelled
"""float32 (height, width, channel) in the model's own input space, or an image file's bytes."""


@dataclass(frozen=True)
class Measuring:
    """What a worker process holds: the model, compiled, and what makes its input of an image file."""

    engine: Engine
    preprocess: Preprocess


class JacobianModelHandler(ModelHandler[Element, dict[str, Any], Measuring]):
    """Images -> the statistics of their Jacobians, as in the `statistics/` of an audit.

    An element is a float32 array in the model's own input space, the bytes of an image file, or either with
    its true output as `Labelled`. `KeyedModelHandler(JacobianModelHandler(...))` takes (key, element).

    A result is one flat dict: every measured column of `augnet.storage.catalog` (None where a
    figure is not known) and `failure`, which is None, or the stage and reason for bytes that are no image;
    then all other columns are None. The pixels do not travel on with the result, nor do Jacobians, unless
    store.jacobians asks for rows: then `stored` holds their S outputs and `jacobian` the rows, (S, height,
    width, channel). Where they are large, write them in the next step and pass on their place.

    Batches have a fixed size, because a compiled program has: the last one of a bundle is padded by the
    engine, and a batch that memory has no room for is measured in parts.

    Args:
        model_path: .keras, .h5 or a SavedModel folder, as every worker sees it.
        settings: configuration keys of the sections model, preprocess, jacobian, store and statistics, such
            as {"jacobian.outputs": "top:5"}. Here store.jacobians is `none` unless it is given.
        batch_size: images per batch.
        labelled: whether the elements' outputs are classes, which tells a classifier that returns logits
            from a regression. A model that ends in a softmax or sigmoid says so itself.
        choice: what `Engine.choice()` gave, or the JSON of an audit's engine-<device>.json: all workers then
            compute alike, to the last bit. None: each worker process times for itself, for some seconds.

    Raises:
        ConfigError: a setting that is not known or not valid.
    """

    def __init__(
        self,
        model_path: str,
        settings: Mapping[str, Any] | None = None,
        *,
        batch_size: int = 32,
        labelled: bool = False,
        choice: Choice | Mapping[str, Any] | None = None,
    ):
        super().__init__(min_batch_size=batch_size, max_batch_size=batch_size)
        settings = dict(settings or {})
        for key in settings:
            if key.split(".")[0] not in SECTIONS:
                raise ConfigError(f"{key}: is not for RunInference; the sections are {', '.join(SECTIONS)}")
        nowhere = {"images.path": "", "output": ""}  # images come as elements, results go on as elements
        flags = nowhere | {"store.jacobians": "none"} | settings | {"model.path": model_path}
        self._config: Config = load_config(flags=flags)
        self._batch_size, self._labelled = batch_size, labelled
        self._choice = Choice.from_json(choice) if isinstance(choice, Mapping) else choice

    def load_model(self) -> Measuring:
        """The model, its preprocessing and its compiled program; Beam calls it once per worker process.

        Raises:
            ModelError: no model is there, or it has no Jacobian.
            ConfigError: the settings do not fit the model or the device.
        """
        inspected = open_model(self._config)
        preprocess = open_preprocess(self._config, inspected.spec)
        options = engine_options(self._config, preprocess)
        with engine_errors_by_key():
            engine = Engine(inspected, options, choice=self._choice)
        engine.batch_size = min(engine.batch_size, self._batch_size)
        return Measuring(engine, preprocess)

    def run_inference(
        self, batch: Sequence[Element], model: Measuring, inference_args: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """One result per element, in order.

        Raises:
            ValueError: an array of another shape than the model's input.
            AuditError: not even one image fits in memory.
        """
        results: list[dict[str, Any]] = []
        places, images, outputs = [], [], []
        for place, element in enumerate(batch):
            labelled = element if isinstance(element, Labelled) else Labelled(element, -1)
            results.append({"failure": None})
            try:
                images.append(_input(labelled.image, model))
                outputs.append(labelled.output)
                places.append(place)
            except ImageError as problem:
                results[place] = dict.fromkeys(self._measured_columns()) | {
                    "failure": f"{problem.stage}: {problem}"
                }
        if images:
            found = self._measure(np.stack(images), np.array(outputs, np.int32), model.engine)
            for place, result in zip(places, found, strict=True):
                results[place] = result | results[place]
        return results

    def get_num_bytes(self, batch: Sequence[Element]) -> int:
        """Bytes of the images of a batch, from their headers; Beam's own would pickle them all."""
        images = (element.image if isinstance(element, Labelled) else element for element in batch)
        return sum(len(image) if isinstance(image, bytes) else image.nbytes for image in images)

    def get_metrics_namespace(self) -> str:
        """`augnet`, under which Beam counts inferences, their latency and sizes."""
        return NAMESPACE

    def share_model_across_processes(self) -> bool:
        """False: arrays would be pickled on their way to a shared process. Threads do share the model."""
        return False

    def update_model_path(self, model_path: str | None = None) -> None:
        """Go on with another model, for Beam's automatic model refresh."""
        if model_path:
            model = self._config.model.model_copy(update={"path": model_path})
            self._config = self._config.model_copy(update={"model": model})

    def _measure(self, images: np.ndarray, outputs: np.ndarray, engine: Engine) -> list[dict[str, Any]]:
        """The statistics, and the rows where they are wanted, of images (n, height, width, channel)."""
        task = task_of(engine.spec.activation, engine.spec.output_count, self._labelled)
        statistics = self._config.statistics
        measured, columns = measure_images(
            engine,
            images,
            task=task,
            border=statistics.border,
            noise=statistics.noise,
            noise_copies=statistics.noise_copies,
            targets=outputs,
        )
        results: list[dict[str, Any]] = pa.table(columns).to_pylist()
        if measured.rows is not None:
            for result, stored, rows in zip(results, measured.stored, measured.rows, strict=True):
                result |= {"stored": stored.tolist(), "jacobian": rows}
        return results

    def _measured_columns(self) -> list[str]:
        noise, sketch = self._config.statistics.noise, self._config.jacobian.sketch is not None
        return [statistic.name for statistic in catalog(noise, sketch)]


def _input(image: np.ndarray | bytes, model: Measuring) -> np.ndarray:
    if isinstance(image, bytes):
        return model.preprocess(image).image
    if image.shape != model.engine.spec.input_shape:
        raise ValueError(
            f"RunInference: an image of shape {image.shape}; the model takes "
            f"{model.engine.spec.input_shape}, (height, width, channel), in its own input space"
        )
    return image.astype(np.float32, copy=False)
