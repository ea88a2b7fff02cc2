"""From a configuration to an inspected model, the preprocessing that feeds it, and the engine's options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import keras

from augnet.config import Config
from augnet.engine import EngineOptions, InspectedModel, ModelSpec, inspect_model
from augnet.errors import AugnetError, ModelError
from augnet.models.loading import load_model
from augnet.models.one_image import of_one_image
from augnet.models.presets import suggest_scale
from augnet.sources import Preprocess

KEYS = {
    "output": "model.output",
    "input_size": "preprocess.size",
    "outputs": "jacobian.outputs",
    "sketch": "jacobian.sketch",
    "reduce": "jacobian.reduce",
    "precision": "jacobian.precision",
    "memory_bytes": "jacobian.memory",
    "stored": "store.jacobians",
}
"""Arguments of the engine, and the keys of the configuration that set them."""


@contextmanager
def engine_errors_by_key() -> Iterator[None]:
    """Errors of the engine, which names its arguments in backticks, name the configuration's keys instead."""
    try:
        yield
    except AugnetError as error:
        message = re.sub(r"`(\w+)`", lambda argument: KEYS.get(argument[1], argument[0]), str(error))
        raise type(error)(message) from error


def open_model(config: Config, model: keras.Model | None = None) -> InspectedModel:
    """The configured model, loaded unless it is handed over, and inspected.

    Raises:
        ModelError: no model is there, or it has no Jacobian.
        ConfigError: the configuration does not fit it.
    """
    if model is None:
        return inspect_as_configured(load_model(config.model), config)
    if not isinstance(model, keras.Model):
        raise ModelError(f"model: a {type(model).__name__} does not fit; give a keras.Model, or its path")
    return inspect_as_configured(of_one_image(model, config.model.constants), config)


def inspect_as_configured(model: keras.Model, config: Config) -> InspectedModel:
    """A loaded model, inspected; raises as open_model."""
    with engine_errors_by_key():
        inspected = inspect_model(
            model,
            output=config.model.output,
            space=config.model.space,
            input_size=config.preprocess.size,
            reduce=config.jacobian.reduce,
            precision=config.jacobian.precision,
        )
    suggestion = suggest_scale(model, config.model.output)
    if suggestion is None:
        return inspected
    spec = replace(inspected.spec, scale=suggestion.scale, scale_reason=suggestion.reason)
    return replace(inspected, spec=spec)


def open_preprocess(config: Config, spec: ModelSpec) -> Preprocess:
    """How image files become inputs of this model; raises ConfigError where the two do not fit together."""
    return Preprocess(
        config.preprocess,
        *spec.input_shape,
        model_rescales=spec.rescale_reason,
        max_pixels=config.images.max_pixels,
        suggested=spec.scale,
        suggested_reason=spec.scale_reason,
    )


def engine_options(
    config: Config,
    preprocess: Preprocess | None = None,
    *,
    label_count: int = 0,
    map_pool: int = 1,
    images: int | None = None,
    attributions: Literal["lead", "each"] | None = None,
) -> EngineOptions:
    """What the configuration asks of the engine; label_count and what follows it are those of an audit.

    `preprocess` is for jacobian.input_space: pixel; the sizes of rows need none.
    """
    jacobian, store, scale = config.jacobian, config.store, None
    if preprocess is not None and jacobian.input_space == "pixel":
        scale = tuple(preprocess.input_scale.tolist())
    return EngineOptions(
        outputs=jacobian.outputs,
        sketch=jacobian.sketch or 0,
        stored=store.jacobians,
        store_dtype=store.dtype,
        store_channels=store.channels,
        store_pool=store.pool,
        precision=jacobian.precision,
        batch_size=None if jacobian.batch_size == "auto" else jacobian.batch_size,
        memory_bytes=None if jacobian.memory == "auto" else int(jacobian.memory),
        input_scale=scale,
        label_count=label_count,
        map_pool=map_pool,
        images=images,
        attributions=attributions,
    )
