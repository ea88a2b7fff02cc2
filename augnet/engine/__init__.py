"""Images in, Jacobian rows and their statistics out, as fast as the hardware allows.

engine.py       Engine: batches of images -> JacobianBatch
spec.py         what a model is (inspect_model), and which models have no Jacobian
graph.py        a Keras model as a flat list of operations
batch.py        JacobianBatch, MapMoments
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augnet.engine.batch import JacobianBatch, MapMoments
    from augnet.engine.engine import Engine
    from augnet.engine.inspection.model_spec import ModelSpec, inspect_model

__all__ = ["Engine", "JacobianBatch", "MapMoments", "ModelSpec", "inspect_model"]


def __getattr__(name: str) -> Any:
    """Loaded when asked for: the containers need no TensorFlow."""
    import importlib

    modules = {
        "Engine": "engine",
        "ModelSpec": "inspection.model_spec",
        "inspect_model": "inspection.model_spec",
    }
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{modules.get(name, 'batch')}"), name)
