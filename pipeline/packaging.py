"""The package that remote workers install: built from the checkout that the audit is started from."""

from __future__ import annotations

import logging
from pathlib import Path

from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, SetupOptions

from pipeline.remote import is_embedded
from pipeline.runners import is_in_process

log = logging.getLogger(__name__)

INSTALLED_ALREADY = ("EXTERNAL", "LOOPBACK", "PROCESS")
"""Environment types whose workers run what is installed beside them; Beam sends them no package."""


def checkout(folder: Path | None = None) -> Path | None:
    """The checkout that this code runs from, or None where augnet is installed without one.

    Args:
        folder: the one that would hold setup.py; default: the folder above this package.
    """
    folder = folder or Path(__file__).resolve().parents[1]
    return folder if (folder / "setup.py").is_file() and (folder / "augnet").is_dir() else None


def send_package(options: PipelineOptions) -> str | None:
    """Have Beam build the checkout as a package that the workers install; set in `options`.

    So the workers run the same code as this process, whatever is in their image. Nothing is set for runners
    in this process, for workers that run what is installed on their machine, where the user chose a package,
    and where augnet is not run from a checkout.

    Returns:
        The setup.py that was set, or None.
    """
    setup, portable = options.view_as(SetupOptions), options.view_as(PortableOptions)
    if is_in_process(options) or is_embedded(options) or portable.environment_type in INSTALLED_ALREADY:
        return None
    if setup.setup_file or setup.extra_packages:
        return None
    folder = checkout()
    if folder is None:
        log.warning(
            "the workers must have augnet installed: it is not run from a checkout, so none is sent; "
            "--sdk_container_image or --extra_package gives them one"
        )
        return None
    setup.setup_file = str(folder / "setup.py")
    log.info("package: built from %s and installed on every worker (--setup_file)", folder)
    return setup.setup_file
