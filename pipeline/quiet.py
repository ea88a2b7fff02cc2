"""Importing TensorFlow and Beam without their start-up lines."""

from __future__ import annotations

import logging
import os
import sys
import tempfile


def import_quietly() -> None:
    """Import TensorFlow and Beam; what they print while they load is shown only if that fails.

    TF_CPP_MIN_LOG_LEVEL silences what comes later, here and in worker processes, but not what TensorFlow's
    libraries write before its logging is set up. Beam warns of optional packages that nobody asked for.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import apache_beam  # noqa: F401
            import tensorflow  # noqa: F401
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            logging.disable(logging.NOTSET)
            os.dup2(kept, 2)
            os.close(kept)
