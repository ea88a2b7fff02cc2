"""Engines for tests, asked for by the words of the configuration."""

from augnet.engine import Engine, EngineOptions, RowSelection, inspect_model

INSPECTION = ("output", "space", "input_size", "reduce")
OWN = ("choice", "tuning_seconds")
FEW = 8


def engine_of(model, **settings):
    """The engine of a Keras model; settings are those of inspect_model, EngineOptions and Engine.

    Batches are of a few images, for the few that tests have; `batch_size=None` leaves them to the engine.
    """
    settings.setdefault("batch_size", FEW)
    inspection = {key: settings.pop(key) for key in INSPECTION if key in settings}
    own = {key: settings.pop(key) for key in OWN if key in settings}
    for key in ("outputs", "stored"):
        if key in settings:
            settings[key] = None if settings[key] == "none" else RowSelection.parse(settings[key])
    options = EngineOptions(**settings)
    return Engine(inspect_model(model, precision=options.precision, **inspection), options, **own)
