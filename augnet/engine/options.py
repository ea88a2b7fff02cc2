"""What an engine is asked for, and the rows that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from augnet.errors import ConfigError
from augnet.selection import ALL, RowSelection

if TYPE_CHECKING:
    from augnet.engine.model_spec import ModelSpec

Precision = Literal["float32", "float64", "bfloat16", "tf32"]


@dataclass(frozen=True)
class EngineOptions:
    """What is computed of a model's Jacobian, what of it is handed back, and within which bounds.

    Attributes:
        outputs: rows to compute.
        sketch: M, random combinations of all outputs whose rows are computed too, see measures/sketch.py; 0:
            none.
        stored: rows to hand back, of those computed; "all" means all of those. None: no rows.
        store_dtype: "float32", "float16", "bfloat16" or "float64", of the rows handed back.
        store_channels: keep | l2 | sum, what becomes of their channels.
        store_pool: side of the blocks of pixels that they are averaged over.
        precision: of the arithmetic; "tf32" is float32 with TensorFloat-32 products. Rows are float32 except
            in float64. To be that which the model was inspected with.
        batch_size: images per call of the device, at most; None: chosen by the engine.
        memory_bytes: what a batch may take; None: half of what is free.
        input_scale: d model input / d pixel, one for all channels or one for each; rows are multiplied by it.
        label_count: labels whose maps are gathered beside the outputs'.
        map_pool: maps are gathered over blocks of map_pool x map_pool pixels.
        images: how many the run has; None: not known. No batch is larger.
        attributions: maps of what the pixels add to an output: "lead", to the lead of the predicted output
            over its rival; "each", to every output with a row. None: no such maps.
    """

    outputs: RowSelection = ALL
    sketch: int = 0
    stored: RowSelection | None = ALL
    store_dtype: str = "float32"
    store_channels: Literal["keep", "l2", "sum"] = "keep"
    store_pool: int = 1
    precision: Precision = "float32"
    batch_size: int | None = None
    memory_bytes: int | None = None
    input_scale: tuple[float, ...] | None = None
    label_count: int = 0
    map_pool: int = 1
    images: int | None = None
    attributions: Literal["lead", "each"] | None = None


@dataclass(frozen=True)
class RowLayout:
    """The rows of one image: what is computed of a model by these options, and what is handed back.

    Attributes:
        row_count: R, rows of outputs.
        computed: rows computed, those of random combinations too.
        stored_shape: (S, height, width, channel) of the rows handed back, after pooling and reduction.
        bytes_per_image: of the rows handed back.
    """

    row_count: int
    computed: int
    stored_shape: tuple[int, int, int, int]
    bytes_per_image: int

    @classmethod
    def of(cls, spec: ModelSpec, options: EngineOptions) -> RowLayout:
        """The layout for a model.

        Raises:
            ConfigError: outputs that the model does not have, or a sketch of no fewer rows than all.
        """
        options.outputs.refuse_unknown("`outputs`", spec.output_count)
        row_count, kept = options.outputs.count(spec.output_count), 0
        computed = row_count + options.sketch
        if options.sketch and computed >= spec.output_count:
            raise ConfigError(
                f"`sketch`: {options.sketch} combinations and the {row_count} rows of `outputs`: "
                f"{options.outputs} are no fewer than the model's {spec.output_count} outputs; leave "
                "`sketch` out, and take `outputs`: all"
            )
        if options.stored is not None:
            options.stored.refuse_unknown("`stored`", spec.output_count)
            kept = min(row_count, options.stored.count(spec.output_count))
        height, width, channels = spec.input_shape
        stored_shape = (
            kept,
            math.ceil(height / options.store_pool),
            math.ceil(width / options.store_pool),
            channels if options.store_channels == "keep" else 1,
        )
        size = math.prod(stored_shape) * np.dtype(options.store_dtype).itemsize
        return cls(row_count, computed, stored_shape, size)
