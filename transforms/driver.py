"""Worker processes that do not outlive the driver that started them."""

from __future__ import annotations

import os
import threading
import time

DRIVER_VARIABLE = "AUGNET_DRIVER"
"""Environment variable: the process id of the driver, for the worker processes that it starts."""


def end_with_driver() -> None:
    """In a process that the driver started on its own machine: end at once when the driver is gone."""
    driver = int(os.environ.get(DRIVER_VARIABLE, os.getpid()))
    if driver != os.getpid() and not any(thread.name == DRIVER_VARIABLE for thread in threading.enumerate()):
        threading.Thread(target=_wait_for_end, args=(driver,), name=DRIVER_VARIABLE, daemon=True).start()


def _wait_for_end(driver: int) -> None:
    while True:
        time.sleep(0.5)
        try:
            os.kill(driver, 0)
        except ProcessLookupError:
            os._exit(1)
