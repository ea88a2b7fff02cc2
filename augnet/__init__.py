"""augnet: which pixels does each prediction of a trained Keras model depend on, and how strongly?

    from augnet import AugNet, audit, open_audit

Importing this package is light. TensorFlow is imported when `AugNet` is first used or an audit begins,
pyarrow with `open_audit`, matplotlib with the first figure, and Apache Beam never: the pipeline lives in
`transforms` and `pipeline`.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from augnet.jobs.audit import audit
    from augnet.jobs.opened import open_audit
    from augnet.models.augnet import AugNet
    from augnet.plots.axes import plot_jacobian, plot_map

__version__ = "0.1.0"
__all__ = ["AugNet", "__version__", "audit", "open_audit", "plot_jacobian", "plot_map"]

_HOME = {
    "AugNet": "augnet.models.augnet",
    "audit": "augnet.jobs.audit",
    "open_audit": "augnet.jobs.opened",
    "plot_jacobian": "augnet.plots.axes",
    "plot_map": "augnet.plots.axes",
}


# Asking the system for memory anew in every operation takes up to a third of an engine's time. TensorFlow
# reads these before its first operation; without the second it would take 64 GiB at most.
os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(2**20))


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'augnet' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
