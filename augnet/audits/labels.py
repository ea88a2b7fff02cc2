"""Which model output a label names, and what the classes are called."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from augnet.config import Config, ImagesConfig
from augnet.errors import ConfigError, did_you_mean_path
from augnet.redact import without_secrets
from augnet.sources import ImageRef, Source
from augnet.storage.addresses import open_address, open_file

_LISTED = 5
"""Labels without an output that are named; more are only counted."""


def read_classes(config: Config) -> Config:
    """The configuration with the names themselves where `images.classes` names a file that holds them.

    Raises:
        ConfigError: the file cannot be read.
    """
    if not isinstance(config.images.classes, str):
        return config
    images = config.images.model_copy(update={"classes": read_names(config.images.classes)})
    return config.model_copy(update={"images": images})


def class_names(config: ImagesConfig, source: Source) -> tuple[tuple[str, ...], str] | None:
    """The names of the classes in the order of their numbers, and who gave them; None where nobody did.

    `images.classes`, which `read_classes` has read, wins over the dataset's own metadata.
    """
    if isinstance(config.classes, tuple):
        return config.classes, "images.classes"
    names = source.class_names()
    return None if names is None else (names, "the dataset's own class names")


def name_labels(refs: Iterable[ImageRef], classes: tuple[str, ...] | None) -> Iterator[ImageRef]:
    """The images with labels that are class numbers replaced by the classes' names."""
    if classes is None:
        yield from refs
        return
    numbers = {str(number): name for number, name in enumerate(classes)}
    known = set(classes)
    for ref in refs:
        if ref.label in numbers and ref.label not in known:
            ref = replace(ref, label=numbers[ref.label])
        yield ref


def name_outputs(
    classes: tuple[tuple[str, ...], str] | None, labels: Mapping[str, int], outputs: int
) -> tuple[dict[str, int], str]:
    """Which model output each label names, and how that was decided, for a person.

    Class names decide where they are known. Else labels that are all numbers below the number of outputs name
    those outputs, and exactly as many labels as outputs name them in sorted order, as Keras' own
    image_dataset_from_directory does. Where these two disagree, or neither holds, labels name no output.
    Labels without an output are named and counted.

    Args:
        classes: as of `class_names`.
        labels: images by label, sorted.
        outputs: of the model.

    Raises:
        ConfigError: `images.classes` does not fit the model.
    """
    count = max(outputs, 2)  # one sigmoid output tells two classes apart
    if classes is not None:
        names, origin = classes
        if len(names) == count:
            mapping = {name: index for index, name in enumerate(names)}
            return mapping, origin + _left_out(labels, mapping)
        if origin == "images.classes":
            raise ConfigError(
                f"images.classes: has {len(names)} names; the model's outputs tell {count} classes apart; "
                "name each, in order"
            )
        return {}, (
            f"{origin} are {len(names)}, but the model has {outputs} outputs; give images.classes, a name "
            "for each"
        )
    if not labels:
        return {}, "there are no labels"
    in_order = {label: index for index, label in enumerate(labels)} if len(labels) == count else {}
    as_numbers = {label: int(label) for label in labels if label.isascii() and label.isdigit()}
    if len(set(as_numbers.values())) < len(labels):
        as_numbers = {}
    fitting = {label: number for label, number in as_numbers.items() if number < count}
    if in_order and len(fitting) == len(labels) and in_order != as_numbers:
        return (
            {},
            "the labels' numeric and alphabetical orders differ; give images.classes to say which holds",
        )
    if fitting and (len(fitting) == len(labels) or not in_order):
        return fitting, "the labels are output numbers" + _left_out(labels, fitting)
    if in_order:
        return in_order, "the labels, sorted, name the outputs in order (as Keras' folders do)"
    return {}, f"{len(labels)} labels do not match {outputs} outputs; give images.classes to name them"


def _left_out(labels: Mapping[str, int], mapping: Mapping[str, int]) -> str:
    """'; no output for 2 labels: 'owl' (12 images), 'cow' (1 image)', or nothing."""
    missing = {label: images for label, images in labels.items() if label not in mapping}
    if not missing:
        return ""
    named = [
        f"{label!r} ({images} image{'' if images == 1 else 's'})"
        for label, images in [*missing.items()][:_LISTED]
    ]
    more = ", ..." if len(missing) > _LISTED else ""
    plural = "" if len(missing) == 1 else "s"
    return (
        f"; no output for {len(missing)} label{plural}, which count as unlabelled: {', '.join(named)}{more}"
    )


def read_names(path: str) -> tuple[str, ...]:
    """The names in a file: one on each line, or a JSON list."""
    given = without_secrets(path)
    try:
        with open_file(*open_address(path, "images.classes")) as stream:
            text = stream.read(2**24).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"images.classes: {given!r} cannot be read ({without_secrets(str(error))}); give a list of "
            f"names, or a text file with one on each line{did_you_mean_path(path)}"
        ) from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if text.lstrip().startswith("["):
        try:
            names = json.loads(text)
        except ValueError:
            names = []
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"images.classes: {given!r} does not hold names that differ, one on each line")
    return tuple(names)
