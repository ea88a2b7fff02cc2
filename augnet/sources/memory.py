"""Images of this process's memory: the arrays that a notebook holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from augnet.config import ImagesConfig
from augnet.errors import ConfigError
from augnet.sources.arrays import refuse_unfit
from augnet.sources.base import ImageRef, Source, refuse_metadata, sample
from augnet.sources.container import label_text


class MemorySource(Source):
    """An array of images, as of `arrays.ArraysSource`. `image_id` is the index; `uri` names the contents.

    Args:
        config: the `images` section; its path, format, image and size limits have no say.
        images: (image, height, width) or (image, height, width, channel). Values of uint8 and uint16 are
            levels, those of floats the model's own input.
        labels: (image,) or one-hot (image, class); None for none.

    Raises:
        ConfigError: the arrays are of another shape or type, or not as many labels as images.
    """

    def __init__(self, config: ImagesConfig, images: Any, labels: Any = None):
        refuse_metadata(config, "arrays have")
        self._config = config
        self._images = np.ascontiguousarray(images)
        self._labels = None if labels is None or config.labels == "none" else np.asarray(labels)
        refuse_unfit("images", self._images.shape, self._images.dtype)
        self.holds_inputs = self._images.dtype.kind == "f"
        if not len(self._images):
            raise ConfigError("images: there is no image in the array")
        if self._labels is not None and self._labels.shape[:1] != self._images.shape[:1]:
            raise ConfigError(
                f"images: {len(self._images)} images, but labels of shape {self._labels.shape}; give one "
                "label for each image"
            )
        digest = hashlib.sha256(f"{self._images.shape} {self._images.dtype.str} ".encode())
        digest.update(self._images.data)
        self._digest = digest.hexdigest()

    def list(self) -> Iterator[ImageRef]:
        """The images in their order."""
        refs = map(self._ref, range(len(self._images)))
        limit = self._config.limit
        yield from refs if limit is None else sample(refs, limit, self._config.sample_seed)

    def read(self, ref: ImageRef) -> np.ndarray:
        """One image."""
        return self._images[int(ref.image_id)]

    def _ref(self, index: int) -> ImageRef:
        label = None if self._labels is None else label_text(self._labels[index])
        return ImageRef(str(index), f"memory:{self._digest}#{index}", label)
