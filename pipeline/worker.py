"""A worker process of `--direct_running_mode=multi_processing`: Beam's own, but quiet and never orphaned."""

from __future__ import annotations

import logging
import os
import signal

from pipeline.logs import import_beam, import_tensorflow, set_up_logging
from transforms.driver import end_with_driver


def main() -> None:
    """Work for the driver that started this process, until it has no more work or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    end_with_driver()
    set_up_logging()
    os.environ.pop(
        "LOGGING_API_SERVICE_DESCRIPTOR", None
    )  # lines go to standard error, not through the driver
    import_beam()
    import_tensorflow()
    from apache_beam.runners.worker import sdk_worker_main

    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    sdk_worker_main.main([])


if __name__ == "__main__":
    main()
