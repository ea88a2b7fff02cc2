"""Which model output a label names."""

from __future__ import annotations

from augnet.errors import ConfigError


def name_outputs(
    classes: tuple[str, ...] | None, labels: tuple[str, ...], outputs: int
) -> tuple[dict[str, int], str]:
    """Which model output each label names, and how that was decided.

    `images.classes` decides where given. Else labels that are all numbers below the number of outputs name
    those outputs, and exactly as many labels as outputs name them in sorted order, as Keras' own
    image_dataset_from_directory does. Where these two disagree, or neither holds, labels name no output.

    Raises:
        ConfigError: `images.classes` does not fit the model or lacks a label.
    """
    if classes is not None:
        unknown = sorted(set(labels) - set(classes))
        if len(classes) != max(outputs, 2) or unknown:
            problem = f"lacks {unknown[:5]}" if unknown else f"has {len(classes)} names"
            raise ConfigError(
                f"images.classes: {problem}; name each of the model's {outputs} outputs, in order"
            )
        return {name: index for index, name in enumerate(classes)}, "images.classes"
    if not labels:
        return {}, "there are no labels"
    count = max(outputs, 2)  # one sigmoid output tells two classes apart
    in_order = {label: index for index, label in enumerate(labels)} if len(labels) == count else {}
    as_numbers = {label: int(label) for label in labels if label.isascii() and label.isdigit()}
    if len(set(as_numbers.values())) < len(labels) or max(as_numbers.values()) >= count:
        as_numbers = {}
    if in_order and as_numbers and in_order != as_numbers:
        return (
            {},
            "the labels' numeric and alphabetical orders differ; give images.classes to say which holds",
        )
    if as_numbers:
        return as_numbers, "the labels are output numbers"
    if in_order:
        return in_order, "the labels, sorted, name the outputs in order (as Keras' folders do)"
    return {}, f"{len(labels)} labels do not match {outputs} outputs; give images.classes to name them"
