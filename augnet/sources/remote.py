"""Images in object storage: a folder and everything below it, or a glob, by any address that fsspec opens."""

from __future__ import annotations

from collections.abc import Iterator

from augnet.config import ImagesConfig
from augnet.errors import ConfigError
from augnet.redact import without_secrets
from augnet.sources.base import ImageRef, Source, check_folder_labels, sample
from augnet.sources.files import list_files, read_address
from augnet.sources.folder import SUFFIXES
from augnet.storage.addresses import open_address


class RemoteSource(Source):
    """The images of `images.path`, such as gs://bucket/images or s3://bucket/images/**/*.png.

    `image_id` is the path below the folder, or below the glob's fixed leading folder; `label` is the first
    folder of it; `uri` is the address. What is an image is told by the suffix, as for local folders. All
    names are in memory while they are sorted.

    Args:
        config: the `images` section.

    Raises:
        ConfigError: the address is of a kind that nothing installed here can open.
    """

    reads_at_once = 16  # each waits for the network

    def __init__(self, config: ImagesConfig):
        check_folder_labels(config)
        self._config = config
        self._fs, path = open_address(config.path, "images.path")
        self._path = path.rstrip("/")
        self._is_glob = any(sign in self._path for sign in "*?[")

    def list(self) -> Iterator[ImageRef]:
        """The images, sorted by image_id.

        Raises:
            ConfigError: on the first step, when there is no image, or the folder cannot be listed.
        """
        given = without_secrets(self._config.path)
        root = self._path
        if self._is_glob:
            root = self._path[: min(self._path.find(s) for s in "*?[" if s in self._path)].rpartition("/")[0]
        try:
            found = list_files(self._fs, self._path, self._is_glob)
        except OSError as error:
            reason = without_secrets(str(error)) or type(error).__name__
            raise ConfigError(f"images.path: {given!r} cannot be listed: {reason}") from None
        ids = sorted(path[len(root) + 1 :] for path in found if path.lower().endswith(SUFFIXES))
        hidden = (image_id for image_id in ids if not any(p.startswith(".") for p in image_id.split("/")))
        refs: Iterator[ImageRef] = (self._ref(root, image_id) for image_id in hidden)
        if self._config.limit is not None:
            refs = iter(sample(refs, self._config.limit, self._config.sample_seed))
        first = next(refs, None)
        if first is None:
            raise ConfigError(
                f"images.path: no image under {given!r} (looked for {' '.join(SUFFIXES)}); give a folder or "
                "a glob"
            )
        yield first
        yield from refs

    def read(self, ref: ImageRef) -> bytes:
        """The bytes of one image.

        Raises:
            ImageError: stage "read": it is gone, empty, larger than `max_bytes`, or may not be read.
        """
        return read_address(self._fs, ref.uri, self._config.max_bytes)

    def _ref(self, root: str, image_id: str) -> ImageRef:
        label, slash, _ = image_id.partition("/")
        uri = self._fs.unstrip_protocol(f"{root}/{image_id}")
        return ImageRef(image_id, str(uri), label if slash and self._config.labels != "none" else None)
