"""The engine: batches of images in, what was measured of their Jacobians out."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.backends import tensorflow as backend
from augnet.engine.batch import JacobianBatch
from augnet.engine.graph.graph import Graph
from augnet.engine.graph.precision import in_precision, refuse_missing
from augnet.engine.inspection.model_spec import InspectedModel, probe_images
from augnet.engine.measures import on_device as measures
from augnet.engine.measures.moments import densify, merge_moments
from augnet.engine.options import EngineOptions, RowLayout
from augnet.engine.rows import Plain, Rewritten, rewritten
from augnet.engine.selection import ALL, RowSelection, position
from augnet.engine.tuning import (
    BATCH_ELEMENTS,
    DISAGREES,
    SMALL_WORK,
    Choice,
    FixedPaths,
    Problem,
    choose,
    default_memory,
)
from augnet.errors import AuditError

log = logging.getLogger(__name__)

AUTO_BATCH = (64, 256)
"""Images of an automatic batch at most: of any model, and of one so small that a call costs more than it
computes (SMALL_WORK)."""
ROWS_BYTES = 512 * 1024**2
"""Rows of one batch: they are copied to the host together, where a shard waits for them."""
ROUNDING = {"bfloat16": 2.0**-8, "tf32": 2.0**-11}
"""Of one product, relative; where it is so coarse that only float64 tells it from a fault."""
TUNING_SECONDS = 6.0
"""About how long programs are timed before the first batch."""


class Engine:
    """Jacobian rows of a model's outputs at its input, measured batch by batch.

    What is computed how is chosen by a short timing at the first call, see tuning.py; then the program is
    compiled for a fixed batch shape; a smaller batch is padded by repeating its last image,
    and the padding enters no result. One lock holds the device, so threads may share an engine.

    Args:
        model: see inspect_model.
        options: what is computed of it. TensorFlow's switch for TensorFloat-32 is one for the process; while
            an engine works it is as its precision wants it, so engines that work at the same time share one.
            Programs that are seen to take more than options.memory_bytes when they are timed are not used,
            and the batch is halved where all do.
        choice: what choice() of an engine of the same model and options gave; then nothing is timed.
        tuning_seconds: about how long the first call may try programs; 0: no timing.

    Raises:
        ConfigError: outputs that the model does not have, or a precision that the device does not have.

    Attributes:
        spec: what the model is, see ModelSpec.
        options: as given.
        layout: the rows of one image, see RowLayout.
        batch_size: images per call of measure, at most.
        device: "cpu" or "gpu".
        precision: of the options.
    """

    def __init__(
        self,
        model: InspectedModel,
        options: EngineOptions = EngineOptions(),  # noqa: B008 (it is frozen)
        *,
        choice: Choice | None = None,
        tuning_seconds: float = TUNING_SECONDS,
    ):
        if options.precision != model.precision:
            raise ValueError(
                f"Engine: options.precision is {options.precision!r}, but the model was inspected for "
                f"{model.precision!r}; give both the same"
            )
        refuse_missing(options.precision)
        self._inspected, self.options, self.precision = model, options, options.precision
        self.spec = spec = model.spec
        self.layout = RowLayout.of(spec, options)
        self.device = backend.device_kind()
        channels = spec.input_shape[2]
        self._scale = (
            None
            if options.input_scale is None
            else np.broadcast_to(np.asarray(options.input_scale, float), (channels,))
        )
        self._map_pool = min(options.map_pool, max(spec.input_shape[:2]))
        self._memory = options.memory_bytes or default_memory()
        self._lock = threading.Lock()
        self._program: Callable[..., Any] | None = None
        self._bare_program: Callable[..., Any] | None = None
        self._tuning_seconds = tuning_seconds
        self._plain = Plain(model.function)
        self._rewritten: Rewritten | None = None
        if model.graph is not None:
            self._rewritten = rewritten(model.graph, model.input_shape, model.dtype, self.layout.row_count)
        self._choice = choice
        if choice is not None:
            self.batch_size = choice.batch_size
        else:
            self.batch_size = options.batch_size or self._first_batch_size()

    def choice(self) -> Choice:
        """What was chosen: given to another engine, it makes that one do the same."""
        with self._lock, self.arithmetic():
            return self._chosen()

    def arithmetic(self) -> AbstractContextManager[None]:
        """While it is entered, TensorFlow's float32 products are what this engine's precision says."""
        return backend.tensor_float_32(self.precision == "tf32")

    def _chosen(self) -> Choice:
        """The choice; made by timing when it is first needed."""
        if self._choice is None:
            inspected, spec = self._inspected, self.spec
            images = probe_images(inspected.input_shape, spec.model_rescales, inspected.dtype)
            problem = Problem(
                plain=self._plain,
                rewritten=self._rewritten,
                oracle=self._float64_programs if inspected.dtype != "float64" else None,
                images=images,
                output_count=spec.output_count,
                row_count=self.layout.row_count,
                batch_size=self.batch_size,
                widest=self._rewritten.widest if self._rewritten else 0,
                work=self._rewritten.work if self._rewritten else 0,
                memory_bytes=self._memory,
                rounding=ROUNDING.get(self.precision, 0.0),
            )
            self._choice = choose(problem, self._tuning_seconds)
            self.batch_size = self._choice.batch_size
            if self._choice.report.get("rewritten") == DISAGREES:
                log.warning("engine: the rewritten model %s; going the plain way", DISAGREES)
        return self._choice

    def _float64_programs(self) -> tuple[Plain, Rewritten]:
        """The plain and the rewritten program in float64."""
        graph = self._inspected.graph
        assert graph is not None and self._rewritten is not None
        wide = in_precision(graph, "float64")
        own = self._rewritten  # rules compute in whatever precision they are given
        if not own.ruled or self.precision == "bfloat16":
            own = rewritten(wide, self._inspected.input_shape, "float64", self.layout.row_count)
        return Plain(self._flat(wide)), own

    def _flat(self, graph: Graph) -> Callable[[Any], Any]:
        return lambda x: ops.reshape(graph(x), (x.shape[0], self.spec.output_count))

    def measure(
        self,
        images: np.ndarray,
        label_ids: np.ndarray | None = None,
        target_outputs: np.ndarray | None = None,
    ) -> JacobianBatch:
        """What there is to know about the Jacobian of each image.

        Args:
            images: (n, height, width, channel), in the model's own input space.
            label_ids: (n,) int, below label_count; -1 for an image without a label. Default: none.
            target_outputs: (n,) int, the model output of the image's label, for outputs="label"; -1 if
                unknown.

        Raises:
            AuditError: not even one image fits in memory.
        """
        count = len(images)
        if images.shape[1:] != self.spec.input_shape or not count:
            raise ValueError(
                f"images: {images.shape} is not (n, {', '.join(map(str, self.spec.input_shape))})"
            )
        labels = np.full(count, -1, np.int32) if label_ids is None else np.asarray(label_ids, np.int32)
        targets = (
            np.full(count, -1, np.int32) if target_outputs is None else np.asarray(target_outputs, np.int32)
        )
        with self._lock, self.arithmetic():
            self._chosen()
            done, parts = 0, []
            while done < count:
                piece = slice(done, min(count, done + self.batch_size))
                try:
                    parts.append(self._measure(images[piece], labels[piece], targets[piece]))
                except backend.OutOfMemory as error:
                    self._halve(error)
                    continue
                done = piece.stop
        return _joined(parts)

    def _halve(self, error: Exception) -> None:
        if self.batch_size == 1:
            raise AuditError(
                f"engine: one image does not fit in memory on the {self.device} ({str(error)[:200]}); "
                "choose fewer rows (`outputs`), a smaller size, or a device with more memory"
            ) from error
        self.batch_size = math.ceil(self.batch_size / 2)
        self._program = self._bare_program = None
        log.warning("engine: out of memory, going on with %d images per batch", self.batch_size)

    def _first_batch_size(self) -> int:
        """As many images as fill the device, and as the rows, their copies and the moments leave room for."""
        height, width, channels = self.spec.input_shape
        row_bytes = height * width * channels * np.dtype(self._inspected.dtype).itemsize
        rows_bytes = self.layout.row_count * row_bytes
        most = min(self._memory // (8 * rows_bytes), ROWS_BYTES // rows_bytes)
        own = self._rewritten
        if own is None:
            most = min(most, AUTO_BATCH[0])
        else:
            most = min(most, BATCH_ELEMENTS // own.widest, int(np.clip(SMALL_WORK // own.work, *AUTO_BATCH)))
        return 2 ** int(math.log2(max(1, most)))

    def _measure(self, images: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> JacobianBatch:
        count, batch = len(images), self.batch_size
        if self._program is None:
            self._program = self._compile()

        def padded(values: np.ndarray, fill: Any = None) -> np.ndarray:
            if count == batch:
                return values
            last = values[-1:] if fill is None else np.full_like(values[-1:], fill)
            return np.concatenate([values, np.repeat(last, batch - count, axis=0)])

        weight = padded(np.ones(count, np.float32), 0.0)
        arrays = [padded(images), padded(labels, -1), padded(targets), weight]
        made = backend.run(self._program, arrays, [self._inspected.dtype, "int32", "int32", "float32"])
        return self._unpack(made, count)

    @property
    def _heavy(self) -> bool:
        return self._rewritten is not None and self._rewritten.heavy

    def _compile(self) -> Callable[..., Any]:
        batch = self.batch_size
        signature = [
            ((batch, *self.spec.input_shape), self._inspected.dtype),
            ((batch,), "int32"),
            ((batch,), "int32"),
            ((batch,), "float32"),
        ]
        return backend.compiled(self._traced, signature, light=self._heavy)

    def _traced(self, images: Any, labels: Any, targets: Any, weight: Any) -> dict[str, Any]:
        """The whole program, for tensors: forward pass, rows, and everything measured of them."""
        batch = self.batch_size
        scores, rows, selected = self._rows(images, targets)
        if self._scale is not None:
            rows = rows * ops.convert_to_tensor(self._scale, dtype=rows.dtype)
        if self.options.outputs.kind == "label":
            rows = ops.where(ops.reshape(selected, (batch, -1, 1, 1, 1)) < 0, math.nan, rows)
        return self._measured(images, scores, selected, rows, labels, targets, weight)

    def _rows(self, images: Any, targets: Any) -> tuple[Any, Any, Any]:
        """Outputs (batch, K), rows (batch, R, height, width, channel), the output (batch, R) of each row."""
        spec, chosen = self.spec, self._chosen()
        x = images if len(self._inspected.input_shape) == 3 else ops.squeeze(images, axis=-1)
        picked: list[Any] = []

        def cotangents(outputs: Any) -> Any:
            picked.append(self.options.outputs.select(outputs, targets))
            return ops.one_hot(ops.transpose(picked[0]), spec.output_count, dtype=outputs.dtype)

        program: Plain | Rewritten = self._plain
        if chosen.program == "rewritten" and self._rewritten is not None:
            program = self._rewritten

        def compute(x: Any) -> Any:
            scores, rows = program.rows(x, cotangents, chosen.rows_per_pass, FixedPaths(chosen.paths))
            return scores, rows, picked[0]

        scores, rows, selected = (backend.fused(compute) if chosen.xla else compute)(x)
        shape = (images.shape[0], self.layout.row_count, *spec.input_shape)
        return scores, ops.reshape(rows, shape), selected

    def jacobian_program(self) -> Callable[[Any], Any]:
        """Images (batch_size, height, width, channel) as a tensor -> rows (batch_size, R, height, width,
        channel).

        Compiled; the rows stay on the device and nothing is measured. For outputs other than "label".
        On a GPU it is to be called inside `arithmetic()`.
        """
        with self._lock, self.arithmetic():
            self._chosen()
        shape: tuple[int, ...] = (self.batch_size, *self.spec.input_shape)
        signature = [(shape, self._inspected.dtype)]
        return backend.compiled(lambda images: self._rows(images, None)[1], signature, light=self._heavy)

    def jacobian(self, images: np.ndarray) -> np.ndarray:
        """Rows (n, R, height, width, channel) of n <= batch_size images; not for outputs="label"."""
        if self._bare_program is None:
            self._bare_program = self.jacobian_program()
        padded = np.concatenate([images, np.repeat(images[-1:], self.batch_size - len(images), axis=0)])
        with self._lock, self.arithmetic():
            return backend.run(self._bare_program, [padded], [self._inspected.dtype])[: len(images)]

    def selected_of(self, image: np.ndarray) -> np.ndarray:
        """The outputs (R,) that the image's rows are of; not for outputs="label"."""
        return self.measure(image[None]).selected[0]

    def float64_function(self) -> Callable[[Any], Any] | None:
        """The model as it is, in float64: images (n, height, width, channel) -> outputs (n, K), or None."""
        if self._inspected.graph is None:
            return None
        return self._of_images(self._flat(in_precision(self._inspected.graph, "float64")))

    def float64_rows(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
        """The rules by which this engine computes, in float64; None where it goes the plain way.

        An image (height, width, channel) and outputs (R,) -> rows (R, height, width, channel).
        """
        with self._lock, self.arithmetic():
            chosen = self._chosen()
        inspected, spec = self._inspected, self.spec
        if inspected.graph is None or chosen.program != "rewritten":
            return None
        wide = in_precision(inspected.graph, "float64")
        own = rewritten(wide, inspected.input_shape, "float64", self.layout.row_count)

        def compute(x: Any, outputs: Any) -> Any:
            def cotangents(made: Any) -> Any:
                return ops.one_hot(outputs[:, None], spec.output_count, dtype=made.dtype)

            return own.rows(x, cotangents, chosen.rows_per_pass, FixedPaths(chosen.paths))[1]

        signature = [((1, *inspected.input_shape), "float64"), ((self.layout.row_count,), "int32")]
        program = backend.compiled(compute, signature, light=True)

        def rows(image: np.ndarray, outputs: np.ndarray) -> np.ndarray:
            arrays = [image.reshape(1, *inspected.input_shape), outputs]
            return backend.run(program, arrays, ["float64", "int32"]).reshape(-1, *spec.input_shape)

        return rows

    def own_function(self) -> Callable[[Any], Any]:
        """The model as it is, in the engine's precision: images (n, height, width, channel) to outputs."""
        return self._of_images(self._inspected.function)

    def _of_images(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        if len(self._inspected.input_shape) == 3:
            return function
        return lambda images: function(ops.squeeze(images, axis=-1))

    def _measured(
        self, images: Any, scores: Any, selected: Any, rows: Any, labels: Any, targets: Any, weight: Any
    ) -> dict[str, Any]:
        spec, batch, count = self.spec, self.batch_size, self.layout.row_count
        labels_mapped = self.options.label_count
        nan = math.nan
        predicted = ops.cast(ops.argmax(scores, axis=-1), "int32")
        place, found = position(selected, predicted[:, None])
        place, found = place[:, 0], found[:, 0]
        gram, l1 = measures.products(ops.reshape(rows, (batch, count, -1)), place)
        flat = ops.reshape(rows, (batch * count, *spec.input_shape))
        first = ops.arange(batch, dtype="int32") * count
        own = ops.take(flat, first + place, axis=0)
        wide = ops.cast(own, "float64") * ops.cast(images, "float64")
        made = {
            "scores": scores,
            "selected": selected,
            "gram": gram,
            "l1": ops.where(found[:, None], l1, nan),
            "magnitude": ops.where(
                found[:, None, None], ops.cast(ops.sqrt(ops.sum(ops.square(own), axis=-1)), "float32"), nan
            ),
            "own_l1": ops.where(found, ops.sum(ops.cast(ops.absolute(own), "float64"), axis=(1, 2, 3)), nan),
            "dot": ops.where(found, ops.sum(wide, axis=(1, 2, 3)), nan),
        }
        finite = ops.isfinite(ops.diagonal(gram, axis1=1, axis2=2))
        counts = ops.logical_and(ops.cast(weight, "bool")[:, None], finite)
        if self.options.outputs.fixed:
            weights = ops.cast(counts, rows.dtype)
            made["moments"] = measures.moments_over_batch(rows, weights, finite, self._map_pool)
        else:
            group = ops.reshape(ops.where(counts, selected, -1), (-1,))
            made["moments"] = measures.moments_by_group(flat, group, spec.output_count, self._map_pool)
        if labels_mapped:
            own_counts = ops.take(ops.reshape(counts, (-1,)), first + place, axis=0)
            group = ops.where(ops.logical_and(own_counts, found), labels, -1)
            made["label_moments"] = measures.moments_by_group(own, group, labels_mapped, self._map_pool)
            made["label_group"] = group
        if self.options.stored is not None:
            stored = self.options.stored
            made["rows"], made["stored"] = self._kept(stored, flat, selected, scores, targets, first)
        return made

    def _kept(
        self, wanted: RowSelection, flat: Any, selected: Any, scores: Any, targets: Any, first: Any
    ) -> tuple[Any, Any]:
        options, batch = self.options, self.batch_size
        if wanted in (ALL, options.outputs):
            stored, rows = selected, flat
        else:
            stored = wanted.select(scores, targets)
            places, found = position(selected, stored)
            rows = ops.take(flat, ops.reshape(first[:, None] + places, (-1,)), axis=0)
            if wanted.kind == "label":
                rows = ops.where(ops.reshape(found, (-1, 1, 1, 1)), rows, math.nan)
        rows = measures.stored_rows(rows, options.store_channels, options.store_pool, options.store_dtype)
        return ops.reshape(rows, (batch, *self.layout.stored_shape)), stored

    def _unpack(self, made: dict[str, Any], count: int) -> JacobianBatch:
        spec, labels_mapped = self.spec, self.options.label_count
        scores = made["scores"][:count].astype(np.float64)
        selected = made["selected"][:count]
        every = np.arange(spec.output_count)
        finite = np.isfinite(np.diagonal(made["gram"][:count], axis1=1, axis2=2))
        if self.options.outputs.fixed:
            rows = np.asarray(self.options.outputs.numbers(spec.output_count))
            parts = [(rows, finite.sum(axis=0), made["moments"])]
        else:
            known = selected[(selected >= 0) & finite]
            parts = [(every, np.bincount(known, minlength=spec.output_count), made["moments"])]
        if labels_mapped:
            known = made["label_group"][:count]
            known = known[known >= 0]
            counts = np.bincount(known, minlength=labels_mapped)
            parts.append((spec.output_count + np.arange(labels_mapped), counts, made["label_moments"]))
        return JacobianBatch(
            outputs=scores,
            probabilities=probabilities(scores, spec.activation, spec.space),
            selected=selected,
            gram=made["gram"][:count],
            l1_from_predicted=made["l1"][:count],
            magnitude=made["magnitude"][:count],
            input_dot=made["dot"][:count],
            stored=made["stored"][:count] if "stored" in made else np.zeros((count, 0), np.int32),
            rows=made["rows"][:count] if "rows" in made else None,
            predicted_l1=made["own_l1"][:count],
            moments=densify(parts, spec.output_count + labels_mapped),
        )


def probabilities(scores: np.ndarray, activation: str | None, space: str) -> np.ndarray | None:
    """Probabilities (n, K) float64 of scores (n, K); None for a model without a final softmax or sigmoid."""
    if activation is None:
        return None
    if space == "model":
        return scores
    if activation == "softmax":
        shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)
    return np.exp(-np.logaddexp(0, -scores))


def _joined(parts: list[JacobianBatch]) -> JacobianBatch:
    """Batches, measured one after the other, as one."""
    if len(parts) == 1:
        return parts[0]
    made: dict[str, Any] = {}
    for field in fields(JacobianBatch):
        values = [getattr(part, field.name) for part in parts]
        if field.name == "moments":
            moments = values[0]
            for value in values[1:]:
                merge_moments(moments, value)
            made[field.name] = moments
        else:
            made[field.name] = None if values[0] is None else np.concatenate(values)
    return JacobianBatch(**made)
