"""Images as files: a folder and everything below it, a glob, or one file.

What is an image is told by the suffix. Files and folders whose name starts with a dot are skipped. Links to
files are followed while they stay below `images.path`; links to folders never are, so that a loop of links
cannot hang a listing. Whatever is not followed and not listed elsewhere (a link that leads out, a folder
that may not be listed) is listed as an image whose `read` fails with the reason, so that nothing goes
missing in silence.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from augnet.config import ImagesConfig
from augnet.errors import ConfigError, ImageError, did_you_mean_path
from augnet.sources.base import ImageRef, Source, check_folder_labels, sample
from augnet.sources.paths import path_to_uri, printable, read_regular, uri_to_path
from augnet.sources.pattern import Pattern, State, split_glob

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy")
"""File name endings of images, matched in either case."""

_GIVE = (
    "give a folder of images, a glob, one image, or a dataset as a .csv, .jsonl, .parquet, .tar, .zip, "
    ".tfrecord, .npz or .npy"
)
_LOOKED_FOR = f"(looked for {' '.join(SUFFIXES)}); {_GIVE}"
_Names = list[str]  # inside FolderSource, `list` is its method


class FolderSource(Source):
    """The images of `images.path`, a folder, a glob such as `data/**/*.png`, or one file.

    `image_id` is the path below the folder, below the glob's fixed leading folder, or the file's name, with
    forward slashes. `label` is the first folder of it. `uri` is the absolute path, or a file:// address for
    the rare name that is not valid UTF-8 (its image_id shows the odd bytes as `\\xff`).

    Args:
        config: the `images` section. `path` may be a file:// address.

    Raises:
        ConfigError: when the path does not exist, or is not local.
    """

    def __init__(self, config: ImagesConfig):
        check_folder_labels(config)
        self._config = config
        self._single: ImageRef | None = None
        self._pattern = Pattern(("**",))
        path = _local_path(config.path)
        root = path
        if os.path.isfile(path):
            name = os.path.basename(path)
            if not _is_image_name(name):
                raise ConfigError(f"images.path: {config.path!r} is not an image {_LOOKED_FOR}")
            self._single = ImageRef(printable(name), path_to_uri(os.path.abspath(path)), None)
            root = os.path.dirname(os.path.realpath(path))  # a link that the user names is followed
        elif not os.path.isdir(path):
            exists = os.path.lexists(path)
            glob = None if exists else split_glob(path)
            if glob is None:
                problem = "is neither a folder nor a regular file" if exists else "does not exist"
                raise ConfigError(f"images.path: {config.path!r} {problem}; {_GIVE}{did_you_mean_path(path)}")
            root, self._pattern = glob
            if not os.path.isdir(root):
                raise ConfigError(
                    f"images.path: {config.path!r} starts in {root!r}, which is not a readable folder; "
                    f"{_GIVE}{did_you_mean_path(root)}"
                )
        self._root = os.path.abspath(root)
        self._real_root = os.path.realpath(root)

    def list(self) -> Iterator[ImageRef]:
        """The images, sorted by image_id; only the folders on the way to the current image are in memory.

        With `limit`, a sample of them (see `sample`).

        Raises:
            ConfigError: on the first step, when there is no image.
        """
        refs = self._walk() if self._single is None else iter([self._single])
        if self._config.limit is not None:
            refs = iter(sample(refs, self._config.limit, self._config.sample_seed))
        first = next(refs, None)
        if first is None:
            raise ConfigError(f"images.path: no image under {self._config.path!r} {_LOOKED_FOR}")
        yield first
        yield from refs

    def read(self, ref: ImageRef) -> bytes:
        """The bytes of one image file.

        Raises:
            ImageError: stage "read": the file is gone, unreadable, empty, larger than `max_bytes`, not a
                regular file, or reached by a link that is not followed.
        """
        path = uri_to_path(ref.uri)
        real_path = os.path.realpath(path)
        if not _is_below(real_path, self._real_root):
            raise ImageError("read", "a link that leads out of images.path, which is not followed")
        try:
            return read_regular(real_path, self._config.max_bytes)
        except OSError as error:
            if os.path.islink(path) and os.path.isdir(path):
                reason = "a link to a folder, which is not followed"
            elif os.path.isdir(path):
                reason = "a folder that could not be listed"
            else:
                reason = f"the file cannot be read: {os.strerror(error.errno or errno.EIO)}"
            raise ImageError("read", reason) from error

    def _walk(self) -> Iterator[ImageRef]:
        """Depth first, on a stack of its own: neither depth nor a folder's size meets Python's limits."""
        try:
            stack = [("", self._pattern.start, self._names("", self._pattern.start))]
        except OSError as error:
            reason = os.strerror(error.errno or errno.EIO)
            raise ConfigError(
                f"images.path: the folder {self._root!r} cannot be listed: {reason}; "
                "give a folder that you may read"
            ) from error
        while stack:
            folder, state, names = stack[-1]
            if not names:
                stack.pop()
                continue
            name = names.pop()
            path = folder + name
            if not name.endswith("/"):
                yield self._ref(path)
                continue
            inner_state = self._pattern.step(state, name[:-1])
            try:
                stack.append((path, inner_state, self._names(path, inner_state)))
            except OSError:
                yield self._ref(path[:-1])

    def _names(self, folder: str, state: State) -> _Names:
        """What to visit in a folder, last first; a folder's name ends with a slash.

        The slash makes the order of names the order of whole paths: `a.png` comes before `a/b.png`.
        """
        names = []
        with os.scandir(os.path.join(self._root, folder)) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if self._pattern.step(state, entry.name):
                        names.append(entry.name + "/")
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    if self._misses(entry.path, self._pattern.step(state, entry.name)):
                        names.append(entry.name)
                elif _is_image_name(entry.name) and self._pattern.matches(state, entry.name):
                    names.append(entry.name)
        names.sort(key=printable, reverse=True)
        return names

    def _misses(self, folder_link: str, state: State) -> bool:
        """Whether this link to a folder, not followed, hides what is not listed at its own place.

        Args:
            folder_link: path of the link.
            state: of the glob inside that folder, were it followed.
        """
        if not state:
            return False
        target = os.path.realpath(folder_link)
        if not _is_below(target, self._real_root):
            return True
        target_state = self._pattern.start
        for name in os.path.relpath(target, self._real_root).split(os.sep):
            if name == ".":  # the root itself
                break
            if name.startswith("."):
                return True
            target_state = self._pattern.step(target_state, name)
        return not target_state >= state

    def _ref(self, path: str) -> ImageRef:
        image_id = printable(path)
        label, slash, _ = image_id.partition("/")
        has_label = bool(slash) and self._config.labels != "none"
        return ImageRef(image_id, path_to_uri(os.path.join(self._root, path)), label if has_label else None)


def _is_image_name(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _local_path(path: str) -> str:
    scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]+)://", path)
    if scheme is None:
        return path
    if not path.startswith("file:///"):
        raise ConfigError(
            f"images.path: {path!r} is not on this machine, and {scheme[0]} cannot be read; "
            "copy or mount the images, and give a local path or file:///path"
        )
    return uri_to_path(path)
