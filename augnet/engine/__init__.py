"""Images in, Jacobian rows and their statistics out, as fast as the hardware allows.

engine.py         Engine: batches of images -> JacobianBatch
options.py        what an engine is asked for (EngineOptions), and the rows that follow from it (RowLayout)
inspection/       what a model is (inspect_model), and which models have no Jacobian
graph/            a Keras model as a flat list of operations
tuning.py         what is chosen by timing (Choice)
batch.py          JacobianBatch, MapMoments
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augnet.engine.batch import JacobianBatch, MapMoments
    from augnet.engine.engine import Engine
    from augnet.engine.inspection.model_spec import InspectedModel, ModelSpec, inspect_model
    from augnet.engine.options import EngineOptions, RowLayout
    from augnet.engine.tuning import Choice
    from augnet.selection import RowSelection

__all__ = [
    "Choice",
    "Engine",
    "EngineOptions",
    "InspectedModel",
    "JacobianBatch",
    "MapMoments",
    "ModelSpec",
    "RowLayout",
    "RowSelection",
    "inspect_model",
]

_MODULES = {
    "Choice": "augnet.engine.tuning",
    "Engine": "augnet.engine.engine",
    "EngineOptions": "augnet.engine.options",
    "InspectedModel": "augnet.engine.inspection.model_spec",
    "JacobianBatch": "augnet.engine.batch",
    "MapMoments": "augnet.engine.batch",
    "ModelSpec": "augnet.engine.inspection.model_spec",
    "RowLayout": "augnet.engine.options",
    "RowSelection": "augnet.selection",
    "inspect_model": "augnet.engine.inspection.model_spec",
}


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the containers need no TensorFlow."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
