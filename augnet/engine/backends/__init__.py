"""What the engine asks of an array library, and the one that is in use.

Everything else writes `from augnet.engine.backends import backend`. A backend is a module with the names of
`augnet.engine.backends.tensorflow`; docs/ENGINE.md says what each has to do.
"""

from augnet.engine.backends import tensorflow as backend

__all__ = ["backend"]
