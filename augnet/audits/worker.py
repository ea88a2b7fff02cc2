"""From a run's description to the engine that computes it, its choices by timing made once and kept."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from augnet.audits.engine_setup import (
    engine_errors_by_key,
    engine_options,
    inspect_as_configured,
    open_preprocess,
)
from augnet.audits.run import Run
from augnet.config import config_json
from augnet.engine import Choice, Engine, InspectedModel
from augnet.engine.backends import backend
from augnet.errors import AuditError
from augnet.models.loading import fingerprint, load_model
from augnet.sources import Preprocess, Source, open_source
from augnet.storage import names
from augnet.storage.files import OutputFolder, json_digest

log = logging.getLogger(__name__)

MANY_IMAGES = 1024
"""Below this, the number of images may bound a batch and the time for choosing, so a choice is for it alone;
above it, for numbers of the same power of two."""

_handed_on: dict[str, tuple[InspectedModel, Source | None]] = {}
"""By the fingerprint of the run: model and images of whoever planned the audit in this process."""


@contextmanager
def handing_on(run: Run, model: InspectedModel, source: Source | None = None) -> Iterator[None]:
    """While it is entered, workers of the run in this process take this model, and these images if any."""
    _handed_on[run.fingerprint] = model, source
    try:
        yield
    finally:
        _handed_on.pop(run.fingerprint, None)


def model_of(run: Run) -> InspectedModel:
    """The model of a run: handed on by its planner, else loaded.

    Raises:
        AuditError: the model is no longer the one that was planned with.
    """
    if run.fingerprint in _handed_on:
        return _handed_on[run.fingerprint][0]
    model = load_model(run.config.model)
    if fingerprint(model) != run.identity["model"]:
        path = run.config.model.path
        raise AuditError(f"model.path: {path!r} changed after the audit began; restore it or use --fresh")
    return inspect_as_configured(model, run.config)


def source_of(run: Run) -> Source:
    """The images of a run: handed on by its planner, else opened."""
    _, source = _handed_on.get(run.fingerprint, (None, None))
    return source or open_source(run.config.images)


def open_engine(run: Run, model: InspectedModel, folder: OutputFolder) -> tuple[Engine, Preprocess]:
    """The engine that computes what the run asks for, and the preprocessing that feeds it.

    What the engine chooses by timing is chosen once for each kind of device: the first worker writes it into
    the audit's folder, where every other worker and every resumed run reads it. It is kept in the user's
    cache too, so that the next audit of the same model on this machine chooses alike, and gives the same
    bytes; but not where the machine was busy while programs were timed.

    Raises:
        ConfigError: the device does not have the precision that is asked for.
    """
    preprocess = open_preprocess(run.config, model.spec)
    options = engine_options(
        run.config, preprocess, label_count=len(run.mapped_labels), map_pool=run.map_pool, images=run.images
    )
    cache, key = OutputFolder(str(cache_folder())), f"{_choice_key(run)}.json"
    name, engine = names.engine(backend.device_kind()), None
    with engine_errors_by_key():
        if not folder.exists(name):
            choice = _kept_choice(cache, key)
            if choice is None:
                engine = Engine(model, options)
                choice = _kept(engine.choice(), cache, key)
            folder.write_json_once(name, choice.to_json())
        choice = Choice.from_json(folder.read_json(name))  # another worker's, where that was faster
        if engine is None or engine.choice() != choice:
            engine = Engine(model, options, choice=choice)
    return engine, preprocess


def cache_folder() -> Path:
    """Where choices are kept between audits: $XDG_CACHE_HOME/augnet/engine, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "augnet" / "engine"


def _kept_choice(cache: OutputFolder, key: str) -> Choice | None:
    """The choice of an earlier audit; None where there is none that can be read."""
    if not cache.exists(key):
        return None
    try:
        return Choice.from_json(cache.read_json(key))
    except (AuditError, TypeError) as error:
        log.info("engine: the choice kept in %s cannot be read (%s)", cache.path(key), error)
        cache.remove(key)
        return None


def _kept(choice: Choice, cache: OutputFolder, key: str) -> Choice:
    """The choice, kept for later audits where it is good for them, or what another audit kept meanwhile."""
    if choice.busy:
        log.info("engine: its choices are not kept for later audits, as the machine was busy")
        return choice
    try:
        cache.write_json_once(key, choice.to_json())
    except OSError as error:
        log.info("engine: its choices are not kept for later audits (%s)", error)
    return _kept_choice(cache, key) or choice


def _choice_key(run: Run) -> str:
    """Digest of all that a choice depends on: model, rows, what is kept of them, libraries, device, cores."""
    config = config_json(run.config)
    parts = {
        "model": run.identity["model"],
        **{section: config[section] for section in ("jacobian", "store")},
        "spec": asdict(run.model),
        "maps": [len(run.mapped_labels), run.map_pool],
        "images": run.images if run.images < MANY_IMAGES else 1 << (run.images.bit_length() - 1),
        "versions": run.versions,
        "device": backend.device_kind(),
        "cores": os.cpu_count(),
    }
    return json_digest(parts)
