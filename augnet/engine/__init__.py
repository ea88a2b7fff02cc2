"""Images in, Jacobian rows and their statistics out, as fast as the hardware allows.

docs/ENGINE.md has a table of its files.
"""

# ruff: noqa: F401 (what it hands on)

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augnet.engine.batch import JacobianBatch, MapMoments
    from augnet.engine.engine import Engine
    from augnet.engine.inspection.inspect_model import InspectedModel, inspect_model
    from augnet.engine.model_spec import ModelSpec
    from augnet.engine.options import EngineOptions, RowLayout
    from augnet.engine.tuning import Choice
    from augnet.selection import RowSelection

_MODULES = {
    "Choice": "augnet.engine.tuning",
    "Engine": "augnet.engine.engine",
    "EngineOptions": "augnet.engine.options",
    "InspectedModel": "augnet.engine.inspection.inspect_model",
    "JacobianBatch": "augnet.engine.batch",
    "MapMoments": "augnet.engine.batch",
    "ModelSpec": "augnet.engine.model_spec",
    "RowLayout": "augnet.engine.options",
    "RowSelection": "augnet.selection",
    "inspect_model": "augnet.engine.inspection.inspect_model",
}


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the containers need no TensorFlow."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
