"""Folders of TensorFlow Datasets: TFRecord files of one or more splits. Its library is not needed."""

from __future__ import annotations

import re

from augnet.config import ImagesConfig
from augnet.errors import ConfigError
from augnet.sources.container import LOOKED_AT
from augnet.sources.tfrecord import TFRecordSource

_SPLIT = re.compile(r"-([^-/]+)\.tfrecord-\d+-of-\d+$")


class TfdsSource(TFRecordSource):
    """The images of one split of a folder such as mnist/3.0.1, or of a glob of its files.

    Args:
        config: the `images` section.

    Raises:
        ConfigError: the folder holds several splits.
    """

    markers = frozenset({"features.json"})
    needs_marker = True

    def __init__(self, config: ImagesConfig):
        super().__init__(config)
        found = map(_SPLIT.search, self.files.peek(LOOKED_AT))
        splits = sorted({match[1] for match in found if match})
        if len(splits) > 1:
            raise ConfigError(
                f"images.path: {self.files.given!r} holds the splits {', '.join(splits)}; give the files "
                f"of one, such as '{self.files.given.rstrip('/')}/*-{splits[0]}.tfrecord*'"
            )
