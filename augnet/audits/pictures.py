"""The images of a finished audit, read again from where they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np

from augnet.config import Config, PreprocessConfig
from augnet.errors import AugnetError
from augnet.sources import ImageRef, Preprocess, Source, open_source
from augnet.storage.reader import Audit


class AuditedPictures:
    """Reads and prepares images as the audit did.

    Args:
        audit: its run.json says where the images are, and how they were resized and scaled.
    """

    def __init__(self, audit: Audit):
        self._run = audit.run

    def of(self, ref: ImageRef) -> np.ndarray | None:
        """What the model saw, uint8 (height, width, 1 or 3); None where it cannot be read any more."""
        if self._reader is None:
            return None
        source, preprocess = self._reader
        try:
            return preprocess.picture(preprocess(source.read(ref)).image)
        except (AugnetError, OSError):
            return None

    def of_many(self, refs: Sequence[ImageRef]) -> list[np.ndarray | None]:
        """The pictures of images in the order of their listing, several read at the same time."""
        if self._reader is None:
            return [None] * len(refs)
        source, _ = self._reader
        if refs and source.reads_forward(refs[0]):
            return [self.of(ref) for ref in refs]
        with ThreadPoolExecutor(max(source.reads_at_once, os.cpu_count() or 1)) as pool:
            return list(pool.map(self.of, refs))

    @cached_property
    def _reader(self) -> tuple[Source, Preprocess] | None:
        run = self._run
        try:
            config = Config.model_validate(run["config"])
            settled = PreprocessConfig.model_validate(
                {**run["config"]["preprocess"], "scale": run["preprocess"]["scale"]}
            )
            height, width, channels = run["model"]["input_shape"]
            preprocess = Preprocess(settled, height, width, channels, False, config.images.max_pixels)
            return open_source(config.images), preprocess
        except (AugnetError, OSError, ValueError):  # the images are elsewhere by now
            return None
