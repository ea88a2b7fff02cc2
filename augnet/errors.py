"""The errors that a user can cause. The command line prints their message, never a traceback."""

from __future__ import annotations


class AugnetError(Exception):
    """A problem that the user can mend; the message says how."""


class ConfigError(AugnetError):
    """A bad argument or configuration, found before any work (exit status 2)."""


class ModelError(ConfigError):
    """A model that cannot be loaded or differentiated as asked (exit status 2)."""


class AuditError(AugnetError):
    """An audit that ended with a problem (exit status 1)."""


class ImageError(AugnetError):
    """One image that cannot be used; it becomes a row in failures/.

    Attributes:
        stage: "read" (bytes), "decode" (pixels), "preprocess" (model input) or "compute" (Jacobian).
    """

    def __init__(self, stage: str, reason: str):
        super().__init__(reason)
        self.stage = stage
