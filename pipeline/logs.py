"""What is printed: log lines without secrets, and no start-up lines of TensorFlow and Beam."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from augnet.redact import without_secrets


def import_tensorflow() -> None:
    """Import TensorFlow; what its libraries print before its logging is set up is shown only if that fails.

    TF_CPP_MIN_LOG_LEVEL silences what comes later, here and in worker processes.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # else one process takes all of a GPU's memory
    with _quiet():
        import tensorflow  # noqa: F401


def import_beam() -> None:
    """Import Beam, which warns of optional packages that nobody asked for.

    It prints the traceback of whatever ends a unit, too, beside logging it: no more.
    """
    with _quiet():
        import apache_beam  # noqa: F401
        from apache_beam.runners.worker import sdk_worker
    setattr(sdk_worker, "print", lambda *_, **__: None)  # noqa: B010  (it is no attribute yet)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the block prints on standard error and logs below ERROR, unless it fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            logging.disable(logging.NOTSET)
            os.dup2(kept, 2)
            os.close(kept)


PACKAGES = ("augnet", "transforms", "pipeline")
LEVEL_VARIABLE = "AUGNET_LOG_LEVEL"
"""Environment variable: the level that worker processes share with their driver."""


def set_up_logging(level: str | None = None) -> None:
    """One line per event on standard error, without the secrets of any URI.

    Args:
        level: of augnet's own lines; default: the driver's. Others' are shown from WARNING on. What Beam's
            workers say of an exception is shown at "debug" only: the command ends with its message.
    """
    level = level or os.environ.get(LEVEL_VARIABLE, "info")
    os.environ[LEVEL_VARIABLE] = level
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    if level != "debug":
        handler.addFilter(_is_news)
    logging.basicConfig(handlers=[handler])
    for package in PACKAGES:
        logging.getLogger(package).setLevel(level.upper())


def _is_news(record: logging.LogRecord) -> bool:
    package = record.name.partition(".")[0]
    return package in PACKAGES or (package != "apache_beam" and record.levelno >= logging.WARNING)


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))
