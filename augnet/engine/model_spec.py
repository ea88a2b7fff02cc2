"""What is known of a model whose Jacobian is computed; it needs neither the model nor Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class ModelSpec:
    """A model's shape and habits.

    Attributes:
        input_shape: (height, width, channel) of an image.
        output_count: K, the length of the output vector.
        activation: "softmax" or "sigmoid" where the model ends with one, else None.
        space: "logits" where such an end is taken off, else "model".
        model_rescales: the model itself scales raw pixels (0..255).
        rescale_reason: what was found in the model that says so, or "".
        unconnected: outputs that do not depend on the image.
        no_gradient: outputs that depend on it only through steps without a gradient (rounding, argmax): their
            rows are zero, which says nothing of them. Not known, and empty, for a model without a graph.
        scale, scale_reason: the scale of pixels that the network in the model was published with, and what in
            the model says so; or "".
    """

    input_shape: tuple[int, int, int]
    output_count: int
    activation: str | None
    space: str
    model_rescales: bool
    rescale_reason: str = ""
    unconnected: tuple[int, ...] = ()
    no_gradient: tuple[int, ...] = ()
    scale: str = ""
    scale_reason: str = ""

    @property
    def gives_logits(self) -> bool:
        """Whether outputs and rows are those before a softmax or sigmoid, or there is none."""
        return self.space == "logits" or self.activation is None

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> ModelSpec:
        """The spec that asdict() and JSON wrote; keys of another version are left out.

        Raises:
            TypeError: a key is missing.
        """
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {
            key: tuple(part) if isinstance(part, list) else part for key, part in tree.items() if key in known
        }
        return cls(**values)
