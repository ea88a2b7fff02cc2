"""From a run's description to the engine that computes it, its choices by timing made once and kept."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from augnet.audits.run import Run
from augnet.config import Config, config_json
from augnet.engine import Engine, ModelSpec
from augnet.sources import Preprocess
from augnet.storage import names
from augnet.storage.files import OutputFolder, json_bytes

log = logging.getLogger(__name__)


def open_engine(run: Run, model: keras.Model, folder: OutputFolder) -> tuple[Engine, Preprocess]:
    """The engine that computes what the run asks for, and the preprocessing that feeds it.

    What the engine chooses by timing is chosen once: the first worker of an audit writes it into the audit's
    folder, where every other worker and every resumed run reads it. It is kept in the user's cache too, so
    that the next audit of the same model on this machine chooses alike, and gives the same bytes.
    """
    config, spec = run.config, ModelSpec(**run.model)
    preprocess = open_preprocess(config, spec)

    def engine(choice: dict[str, Any] | None) -> Engine:
        return Engine(
            model,
            **engine_settings(config),
            input_scale=preprocess.input_scale if config.jacobian.input_space == "pixel" else None,
            label_count=len(run.mapped_labels),
            map_pool=run.map_pool,
            choice=choice,
        )

    name = names.engine(spec.device)
    if not folder.exists(name):
        folder.write_json_once(name, _kept_choice(run, lambda: engine(None).choice()))
    return engine(folder.read_json(name)), preprocess


def open_preprocess(config: Config, spec: ModelSpec) -> Preprocess:
    """How image files become inputs of this model.

    Raises:
        ConfigError: the model's input and the configuration do not fit together.
    """
    return Preprocess(
        config.preprocess,
        *spec.input_shape,
        model_rescales=spec.rescale_reason,
        max_pixels=config.images.max_pixels,
    )


def engine_settings(config: Config) -> dict[str, Any]:
    """The arguments of Engine that the configuration alone decides."""
    return {
        "output": config.model.output,
        "space": config.model.space,
        "outputs": config.jacobian.outputs,
        "stored": config.store.jacobians,
        "store_dtype": config.store.dtype,
        "store_channels": config.store.channels,
        "store_pool": config.store.pool,
        "precision": config.jacobian.precision,
        "batch_size": config.jacobian.batch_size,
        "memory_bytes": None if config.jacobian.memory == "auto" else int(config.jacobian.memory),
        "input_size": config.preprocess.size,
        "reduce": config.jacobian.reduce,
    }


def _kept_choice(run: Run, choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The choice in the user's cache, or a new one, which is kept there where the cache can be written."""
    cache, key = OutputFolder(str(cache_folder())), f"{_choice_key(run)}.json"
    if not cache.exists(key):
        choice = choose()
        try:
            cache.write_json_once(key, choice)
        except OSError as error:
            log.info("engine: its choices are not kept for later audits (%s)", error)
            return choice
    return cache.read_json(key)


def cache_folder() -> Path:
    """Where choices are kept between audits: $XDG_CACHE_HOME/augnet/engine, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "augnet" / "engine"


def _choice_key(run: Run) -> str:
    """Digest of all that a choice depends on: model, rows, what is kept of them, libraries, device, cores."""
    config = config_json(run.config)
    parts = {
        "model": run.identity["model"],
        **{section: config[section] for section in ("jacobian", "store")},
        "spec": run.model,
        "maps": [len(run.mapped_labels), run.map_pool],
        "versions": run.versions,
        "cores": os.cpu_count(),
    }
    return hashlib.sha256(json_bytes(parts)).hexdigest()
