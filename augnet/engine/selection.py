"""Which outputs get a Jacobian row, image by image."""

from __future__ import annotations

from typing import Any

from keras import ops

from augnet.config import Outputs
from augnet.errors import ConfigError


def check_outputs(key: str, outputs: Outputs, count: int) -> None:
    """Raises ConfigError, naming `key`, where a list of outputs has some that a model of `count` lacks."""
    if not isinstance(outputs, str):
        missing = [number for number in outputs if number >= count]
        if missing:
            raise ConfigError(
                f"{key}: {missing} are not outputs of the model, which has {count} (0 to {count - 1})"
            )


def row_count(outputs: Outputs, output_count: int) -> int:
    """R, the rows per image that the config's word or list asks for; K outputs exist."""
    if outputs == "none":
        return 0
    if outputs == "all":
        return output_count
    if isinstance(outputs, str):
        return min(int(outputs[4:]), output_count) if outputs.startswith("top:") else 1
    return len(outputs)


def stored_shape(
    stored: Outputs, rows: int, input_shape: tuple[int, int, int], pool: int, channels: str
) -> tuple[int, int, int, int]:
    """(S, height, width, channel) of what is kept of one image's rows.

    Args:
        stored: which rows: all | none | predicted | label | top:N, or a tuple of outputs.
        rows: R, rows computed.
        input_shape: (height, width, channel) of a computed row.
        pool: side of the blocks of pixels that are averaged.
        channels: keep | l2 | sum.
    """
    height, width, depth = input_shape
    kept = min(rows, row_count(stored, rows))
    return kept, -(-height // pool), -(-width // pool), depth if channels == "keep" else 1


def select(outputs: Outputs, scores: Any, targets: Any) -> Any:
    """Model outputs (batch, R) int32, one per row.

    Args:
        outputs: all | predicted | label | top:N, or a tuple of outputs.
        scores: (batch, K).
        targets: (batch,) int32, the output of an image's label; -1 where it is not known, and then the row is
            -1.
    """
    batch, count = scores.shape
    if outputs == "predicted":
        return ops.cast(ops.argmax(scores, axis=-1), "int32")[:, None]
    if outputs == "label":
        return targets[:, None]
    if isinstance(outputs, str) and outputs.startswith("top:"):
        _, indices = ops.top_k(scores, min(int(outputs[4:]), count), sorted=True)
        return ops.cast(indices, "int32")
    numbers = range(count) if outputs == "all" else outputs
    return ops.broadcast_to(
        ops.convert_to_tensor([list(numbers)], dtype="int32"), (batch, len(list(numbers)))
    )


def position(selected: Any, wanted: Any) -> tuple[Any, Any]:
    """Where each wanted output stands among the selected.

    Args:
        selected: (batch, R) int32.
        wanted: (batch, S) int32.

    Returns:
        positions (batch, S) int32, 0 where absent, and found (batch, S) bool.
    """
    same = ops.equal(selected[:, None, :], wanted[:, :, None])
    return ops.cast(ops.argmax(ops.cast(same, "int32"), axis=-1), "int32"), ops.any(same, axis=-1)
