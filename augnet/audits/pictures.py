"""The pictures of a finished audit's images, read once more from where they were."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from augnet.config import Config, PreprocessConfig
from augnet.errors import AugnetError, ImageError
from augnet.sources import ImageRef, Preprocess, Source, open_source
from augnet.storage.reader import Audit


class Pictures:
    """Reads pictures as the audit's model was given them: resized, and in its colours."""

    def __init__(self, audit: Audit):
        self._audit = audit

    def read(self, image_id: str, uri: str) -> np.ndarray:
        """uint8 (height, width, 1 or 3).

        Raises:
            ImageError: it cannot be read any more.
        """
        if isinstance(self._opened, ImageError):
            raise self._opened
        source, preprocess = self._opened
        try:
            return preprocess.picture(preprocess(source.read(ImageRef(image_id, uri, None))).image)
        except (AugnetError, OSError) as error:
            raise ImageError("read", str(error)) from error

    @cached_property
    def _opened(self) -> tuple[Source, Preprocess] | ImageError:
        """The dataset; or why it cannot be opened, such as when it is elsewhere by now."""
        run = self._audit.run
        try:
            config = Config.model_validate(run["config"])
            settled = PreprocessConfig.model_validate(
                {**run["config"]["preprocess"], "scale": run["preprocess"]["scale"]}
            )
            height, width, channels = run["model"]["input_shape"]
            preprocess = Preprocess(settled, height, width, channels, False, config.images.max_pixels)
            return open_source(config.images), preprocess
        except (AugnetError, OSError, ValueError) as error:
            return ImageError("read", str(error))
