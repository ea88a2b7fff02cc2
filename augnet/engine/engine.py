"""The engine: batches of images in, what was measured of their Jacobians out."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from augnet.engine.backends import backend
from augnet.engine.batch import JacobianBatch
from augnet.engine.batching import BatchedProgram
from augnet.engine.graph.precision import refuse_missing
from augnet.engine.inspection.inspect_model import InspectedModel
from augnet.engine.kernels import Kernels
from augnet.engine.measures.batch_measures import BatchMeasures
from augnet.engine.measures.moments import empty_moments, merge_moments
from augnet.engine.measures.sketch import combinations
from augnet.engine.options import EngineOptions, RowLayout
from augnet.engine.row_program import RowProgram
from augnet.engine.rows import product
from augnet.engine.tuning import TUNING_SECONDS, Choice, choose
from augnet.engine.types import Tensor, Tensors

DRAWN_LINES = 4
"""Of every so many lines of an image one decides its draw."""
ROUNDING = {"bfloat16": 2.0**-8, "tf32": 2.0**-11}
"""Of one product, relative; where it is so coarse that only float64 tells it from a fault."""


class Engine:
    """Jacobian rows of a model's outputs at its input, measured batch by batch.

    What is computed how is chosen at the first call, by timing where the run is long enough, see tuning.py;
    then the program is compiled for a fixed batch; a smaller batch is padded, and the padding enters no
    result. One lock holds the device, so threads may share an engine.

    Args:
        model: see inspect_model.
        options: what is computed of it. TensorFlow's switch for TensorFloat-32 is one for the process; while
            an engine works it is as its precision wants it, so engines that work at the same time share one.
            Programs that are seen to take more than options.memory_bytes when they are timed are not used,
            and the batch is halved where all do.
        choice: what choice() of an engine of the same model and options gave; then nothing is timed.
        tuning_seconds: for which programs may be timed to find the fastest, and longer where the run is long;
            0: the likeliest is taken.

    Raises:
        ConfigError: outputs that the model does not have, or a precision that the device does not have.

    Attributes:
        spec: what the model is, see ModelSpec.
        options: as given.
        layout: the rows of one image, see RowLayout.
        device: "cpu" or "gpu".
        precision: of the options.
        program: the rows that it computes by.
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
        self.spec, self.options, self.precision = model.spec, options, options.precision
        self.layout = RowLayout.of(model.spec, options)
        self.device = backend.device_kind()
        self._model, self._tuning_seconds = model, tuning_seconds
        self._measures = BatchMeasures(model.spec, options, self.layout)
        self.program = RowProgram(
            model.function,
            model.graph,
            model.input_shape,
            model.dtype,
            model.spec.output_count,
            self.layout.computed,
            memory_bytes=options.memory_bytes,
            raw_pixels=model.spec.model_rescales,
            rounding=ROUNDING.get(options.precision, 0.0),
        )
        self._lock = threading.Lock()
        self._choice = choice
        batch_size = options.batch_size or self.program.likely_batch_size()
        batch_size = min(batch_size, options.images or batch_size)
        size = batch_size if choice is None else choice.batch_size
        dtypes = [model.dtype, "int32", "int32", "int32", model.dtype]
        self._measuring = BatchedProgram(self._compile_measures, dtypes, size)
        self._bare = BatchedProgram(partial(self._compile, self._rows), [model.dtype], size)
        self._forward = BatchedProgram(partial(self._compile, self._outputs), [model.dtype], size)

    @property
    def batch_size(self) -> int:
        """Images per call of the device, at most."""
        return self._measuring.batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self._measuring.batch_size = self._bare.batch_size = self._forward.batch_size = size

    def choice(self) -> Choice:
        """What was chosen: given to another engine, it makes that one do the same."""
        with self._lock, self.arithmetic():
            return self._chosen()

    def arithmetic(self) -> AbstractContextManager[None]:
        """While it is entered, TensorFlow's float32 products are what this engine's precision says."""
        return backend.tensor_float_32(self.precision == "tf32")

    def _chosen(self) -> Choice:
        """The choice; made when it is first needed."""
        if self._choice is None:
            images = self.options.images
            seconds = self._tuning_seconds
            self._choice = choose(self.program, self.batch_size, seconds=seconds, images=images)
            self.batch_size = min(self.batch_size, self._choice.batch_size)
        return self._choice

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
        if images.shape[1:] != self.spec.input_shape or not len(images):
            raise ValueError(
                f"images: {images.shape} is not (n, {', '.join(map(str, self.spec.input_shape))})"
            )
        nobody = np.full(len(images), -1, np.int32)
        labels = nobody if label_ids is None else np.asarray(label_ids, np.int32)
        targets = nobody if target_outputs is None else np.asarray(target_outputs, np.int32)
        with self._lock, self.arithmetic():
            self._chosen()
            draws = _draws(images)
            sketches = combinations(draws, self.options.sketch, self.spec.output_count)
            batches = self._measuring([images, labels, targets, draws, sketches])
            return _joined(
                [self._measures.on_host(backend.to_host(found), count) for found, count in batches]
            )

    def jacobian(self, images: np.ndarray) -> np.ndarray:
        """Rows (n, R, height, width, channel) of images (n, ...); not for outputs="label"."""
        with self._lock, self.arithmetic():
            self._chosen()
            return _on_host(self._bare([images]))

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """Outputs (n, K) of images (n, height, width, channel), in the chosen space: a forward pass alone.

        Raises:
            AuditError: not even one image fits in memory.
        """
        with self._lock, self.arithmetic():
            self._chosen()
            return _on_host(self._forward([images]))

    def jacobian_program(self) -> backend.Program:
        """Images (batch_size, height, width, channel) as a tensor -> rows (batch_size, R, height, width,
        channel).

        Compiled; the rows stay on the device and nothing is measured. For outputs other than "label".
        On a GPU it is to be called inside `arithmetic()`.
        """
        with self._lock, self.arithmetic():
            self._chosen()
            program = self._bare.compile()
        count = backend.to_device(self.batch_size, "int32")
        return lambda images: program(images, count)

    def selected_of(self, image: np.ndarray) -> np.ndarray:
        """The outputs (R,) that the image's rows are of; not for outputs="label"."""
        return self.measure(image[None]).selected[0]

    def float64_rows(self) -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
        """The rules by which this engine computes, in float64; None where it goes by the tape.

        An image (height, width, channel) and outputs (R,) -> rows (R, height, width, channel).
        """
        choice, spec, shape = self.choice(), self.spec, self._model.input_shape
        if choice.program != "rules":
            return None
        rules, _ = self.program.float64()
        kernels = Kernels(choice.kernels)

        def compute(x: Tensor, outputs: Tensor) -> Tensor:
            def cotangents(scores: Tensor) -> Tensor:
                return ops.one_hot(outputs[:, None], spec.output_count, dtype=scores.dtype)

            return rules.rows(x, cotangents, choice.rows_per_pass, kernels)[1]

        signature = [((1, *shape), "float64"), ((self.layout.row_count,), "int32")]
        program = backend.compiled(compute, signature, weights_as_arguments=True)

        def rows(image: np.ndarray, outputs: np.ndarray) -> np.ndarray:
            found = backend.run(program, [image.reshape(1, *shape), outputs], ["float64", "int32"])
            return backend.to_host(found).reshape(-1, *spec.input_shape)

        return rows

    def _compile_measures(self, batch_size: int) -> backend.Program:
        def program(
            images: Tensor, labels: Tensor, targets: Tensor, draws: Tensor, sketches: Tensor, count: Tensor
        ) -> dict[str, Tensors]:
            scores, factors, selected = self._factors(images, targets, sketches)
            counts = ops.arange(batch_size, dtype="int32") < count
            return self._measures.on_device(images, scores, selected, factors, labels, targets, draws, counts)

        dtype, sketches = self._model.dtype, (batch_size, self.options.sketch, self.spec.output_count)
        signature = [((batch_size, *self.spec.input_shape), dtype), *[((batch_size,), "int32")] * 3]
        return self.program.compile(program, [*signature, (sketches, dtype), ((), "int32")])

    def _compile(self, function: Callable[[Tensor], Tensor], batch_size: int) -> backend.Program:
        """A function of images as a program of images and of how many of them are no padding."""
        images = (batch_size, *self.spec.input_shape), self._model.dtype
        return self.program.compile(lambda x, count: function(x), [images, ((), "int32")])

    def _rows(self, images: Tensor) -> Tensor:
        """(batch, R, height, width, channel)."""
        rows = product(self._factors(images, None)[1])
        return ops.reshape(rows, (images.shape[0], -1, *self.spec.input_shape))

    def _outputs(self, images: Tensor) -> Tensor:
        """(batch, K)."""
        return self._model.function(self._input(images))

    def _input(self, images: Tensor) -> Tensor:
        """Images as the model takes them: some have no channel axis."""
        return images if len(self._model.input_shape) == 3 else ops.squeeze(images, axis=-1)

    def _factors(
        self, images: Tensor, targets: Tensor | None, sketches: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Outputs (batch, K), rows (batch, R, inputs) or two factors of them, the output (batch, R) of each.

        Behind them are the rows of combinations of outputs, `sketches` (batch, M, K), where there are any.
        """
        spec, choice = self.spec, self._chosen()
        x = self._input(images)
        picked: list[Tensor] = []

        def cotangents(outputs: Tensor) -> Tensor:
            picked.append(self.options.outputs.select(outputs, targets))
            chosen = ops.one_hot(ops.transpose(picked[0]), spec.output_count, dtype=outputs.dtype)
            if sketches is None or not self.options.sketch:
                return chosen
            mixed = ops.cast(ops.transpose(sketches, (1, 0, 2)), outputs.dtype)
            return ops.concatenate([chosen, mixed], axis=0)

        def compute(x: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
            scores, factors = self.program.factors(x, cotangents, choice)
            return scores, factors, picked[0]

        return (backend.fused(compute) if choice.xla else compute)(x)


def _draws(images: np.ndarray) -> np.ndarray:
    """(n,) int32 numbers, not negative, that an image's own values decide: the same in every batch."""
    return np.array([zlib.crc32(image[::DRAWN_LINES].tobytes()) >> 1 for image in images], np.int32)


def _on_host(batches: Iterable[tuple[Tensor, int]]) -> np.ndarray:
    """What was computed of all images, batch by batch, without the padding."""
    return np.concatenate([backend.to_host(found)[:count] for found, count in batches])


def _joined(batches: list[JacobianBatch]) -> JacobianBatch:
    """Batches, measured one after the other, as one."""
    if len(batches) == 1:
        return batches[0]
    moments = empty_moments(*batches[0].moments.mean.shape)
    for batch in batches:
        merge_moments(moments, batch.moments)
    first, names = batches[0], [field.name for field in fields(JacobianBatch) if field.name != "moments"]
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(batch, name) for batch in batches])
        for name in names
        if isinstance(getattr(first, name), np.ndarray)
    }
    return replace(first, moments=moments, **columns)
