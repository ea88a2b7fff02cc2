"""Which model outputs get a Jacobian row: the words of the configuration, parsed once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Literal

from augnet.errors import ConfigError

TOP = re.compile(r"top:([1-9][0-9]*)")


@dataclass(frozen=True)
class RowSelection:
    """The outputs that an image's Jacobian rows are of. `str()` gives the word of the configuration back.

    Attributes:
        kind: "all", "predicted" (the largest output), "label" (the output that the image's label names),
            "top" (the largest outputs) or "listed".
        top: how many, for kind "top".
        outputs: their numbers, for kind "listed".
    """

    kind: Literal["all", "predicted", "label", "top", "listed"]
    top: int = 0
    outputs: tuple[int, ...] = ()

    @classmethod
    def parse(cls, value: str | Sequence[int]) -> RowSelection:
        """The selection that a word ("all", "predicted", "label", "top:5") or a list of outputs stands for.

        Raises:
            ValueError: neither; the message says what is, and goes on after "give".
        """
        match value:
            case "all" | "predicted" | "label":
                return cls(value)
            case str():
                if top := TOP.fullmatch(value):
                    return cls("top", top=int(top[1]))
            case Sequence() if value and all(_is_number(number) for number in value):
                if len(set(value)) < len(value):
                    raise ValueError("each output number once, such as [0, 3, 7]")
                return cls("listed", outputs=tuple(int(number) for number in value))
        raise ValueError("all, predicted, label, top:N or a list of output numbers such as [0, 3, 7]")

    def __str__(self) -> str:
        if self.kind == "top":
            return f"top:{self.top}"
        return str(list(self.outputs)) if self.kind == "listed" else self.kind

    @property
    def fixed(self) -> bool:
        """Whether every image has rows of the same outputs."""
        return self.kind in ("all", "listed")

    def numbers(self, output_count: int) -> tuple[int, ...]:
        """The outputs of a fixed selection, of a model with so many."""
        if not self.fixed:
            raise ValueError(f"RowSelection: which outputs {self} means depends on the image")
        return tuple(range(output_count)) if self.kind == "all" else self.outputs

    def count(self, output_count: int) -> int:
        """R, the rows of an image, of a model with so many outputs."""
        if self.fixed:
            return len(self.numbers(output_count))
        return min(self.top, output_count) if self.kind == "top" else 1

    def contains(self, other: RowSelection, output_count: int | None = None) -> bool:
        """Whether all rows of `other` are among these, for any image.

        Args:
            output_count: of the model; None: for a model with any number of outputs.
        """
        if self == other or self._is_everything(output_count):
            return True
        if other.kind == "predicted":
            return self.kind == "top"
        if other.kind == "top":
            return (self.kind == "top" and other.top <= self.top) or (
                self.kind == "predicted" and other.top == 1
            )
        return self.kind == "listed" == other.kind and set(other.outputs) <= set(self.outputs)

    def _is_everything(self, output_count: int | None) -> bool:
        """Whether these are rows of all outputs. A label may be unknown, and its row then is none's."""
        return self.kind == "all" or (
            output_count is not None and self.kind != "label" and self.count(output_count) == output_count
        )

    def refuse_unknown(self, key: str, output_count: int) -> None:
        """Raise ConfigError, naming the key, where outputs are listed that the model does not have."""
        missing = [number for number in self.outputs if number >= output_count]
        if missing:
            raise ConfigError(
                f"{key}: {missing} are not outputs of the model, which has {output_count} "
                f"(0 to {output_count - 1})"
            )

    def select(self, scores: Any, targets: Any) -> Any:
        """The outputs that the rows are of: a tensor (batch, R) int32.

        Args:
            scores: (batch, K) tensor.
            targets: (batch,) int32 tensor, the output that an image's label names; -1 where it is not known,
                and then so is the row. Only for kind "label".
        """
        from keras import ops  # here, so that the command line's help comes without TensorFlow

        batch, output_count = scores.shape
        if self.kind == "predicted":
            return ops.cast(ops.argmax(scores, axis=-1), "int32")[:, None]
        if self.kind == "label":
            return targets[:, None]
        if self.kind == "top":
            _, largest = ops.top_k(scores, self.count(output_count), sorted=True)
            return ops.cast(largest, "int32")
        numbers = ops.convert_to_tensor([self.numbers(output_count)], dtype="int32")
        return ops.broadcast_to(numbers, (batch, self.count(output_count)))


def _is_number(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 0


ALL = RowSelection("all")
