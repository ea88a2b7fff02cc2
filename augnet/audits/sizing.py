"""How large an audit's Jacobians are, how they are cut into units, and whether they fit."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable

from augnet.audits.engine_setup import engine_options
from augnet.config import Config
from augnet.engine import ModelSpec, RowLayout
from augnet.errors import ConfigError
from augnet.selection import RowSelection
from augnet.storage.files import OutputFolder

log = logging.getLogger(__name__)

UNIT_IMAGES = 512
UNIT_COMPUTED_BYTES = 64 * 1024**3
"""A unit ends at whichever bound comes first: this many images, bytes computed, or store.shard_bytes."""

SMALLER = {"dtype": "float16", "channels": "l2", "pool": 4, "jacobians": RowSelection("predicted")}
"""Keys of `store`, and values to propose where Jacobians do not fit."""

SAMPLE_MARGIN = 1.1
"""A sample tells the size on disk to 10 %."""


def unit_images(config: Config, spec: ModelSpec) -> int:
    """Images per unit: a power of two, so that batches fill, within the bounds above; at least one."""
    layout = RowLayout.of(spec, engine_options(config))
    computed = layout.computed * math.prod(spec.input_shape) * 4
    stored = max(1, layout.bytes_per_image)
    most = min(UNIT_IMAGES, UNIT_COMPUTED_BYTES // computed, config.store.shard_bytes // stored)
    return 1 << max(0, most.bit_length() - 1)


def stored_bytes(config: Config, spec: ModelSpec) -> int:
    """Bytes of one image's stored Jacobian, before compression."""
    return RowLayout.of(spec, engine_options(config)).bytes_per_image


def refuse_oversize(
    config: Config, spec: ModelSpec, images: int, measure: Callable[[], float | None]
) -> None:
    """Raise ConfigError when the Jacobians would pass store.max_bytes or the free disk.

    Args:
        measure: bytes on disk of one image of a sample, or None where it showed none. It is asked only where
            there would be no room before compression.
    """
    bound = images * stored_bytes(config, spec)
    limits = _limits(config)
    if bound <= min(limits.values()):
        log.info("Jacobians: %s before compression", readable_bytes(bound))
        return
    sampled = measure()
    expected, margin = (bound, 1.0) if sampled is None else (images * sampled, SAMPLE_MARGIN)
    for name, limit in limits.items():
        if expected * margin > limit:
            fitting = [
                f"store.{key}: {value}"
                for key, value in SMALLER.items()
                if images * stored_bytes(_with_store(config, key, value), spec) <= limit
            ] or ["store.jacobians: none"]
            raise ConfigError(
                f"store.jacobians: {config.store.jacobians} would write about {readable_bytes(expected)} "
                f"for {images} images, more than {name} ({readable_bytes(limit)}); "
                f"any of these would fit: {', '.join(fitting)}"
            )
    log.info("Jacobians: about %s, %s before compression", readable_bytes(expected), readable_bytes(bound))


def _limits(config: Config) -> dict[str, int]:
    """What bounds the bytes of Jacobians: name -> bytes."""
    limits = {"store.max_bytes": config.store.max_bytes}
    folder = OutputFolder(config.output)
    if folder.is_local:
        # An audit that is taken up again, or replaced, has the room of the shards that it has written.
        written = sum(os.path.getsize(folder.path(name)) for name in folder.names("jacobians"))
        limits["the free disk"] = shutil.disk_usage(_existing_parent(folder.path(""))).free + written
    return limits


def readable_bytes(value: float) -> str:
    """'3.4 MB': decimal units, as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def _with_store(config: Config, key: str, value: object) -> Config:
    return config.model_copy(update={"store": config.store.model_copy(update={key: value})})


def _existing_parent(path: str) -> str:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path
