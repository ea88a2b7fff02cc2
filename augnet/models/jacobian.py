"""The compiled Jacobian of a functional Keras model: what AugNet runs."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from augnet.engine.backends import tensorflow as backend
from augnet.engine.graph.graph import Graph, trace
from augnet.engine.graph.precision import computes_in, in_precision
from augnet.engine.inspection.model_spec import probe_images
from augnet.engine.rows import Plain, rewritten
from augnet.engine.tuning import BATCH_ELEMENTS, FixedPaths, Problem, choose, default_memory
from augnet.errors import ModelError

log = logging.getLogger(__name__)

CHECKED_ROWS = 8
"""Rows of the first call's check that samples do not influence each other. A layer that mixes samples mixes
them in every output behind it, so a few rows are enough."""
MOST_FUNCTIONS = 8
"""Functions of rules that are kept compiled; what else comes is done by the tape."""
WEIGHTS_BYTES = 2**30
"""Of the copies of the weights in those functions, about three in each."""
MANY_NODES = 64
"""Operations of a model up to which rules are made within seconds, and at once."""
NODE_SECONDS = 0.2
"""About how long making and checking rules takes per operation of a larger model (MobileNetV2: 7 s, ResNet50:
50 s). They are made once the tape has taken as long: a few calls do not wait for what does not pay."""

UNRULED = (*backend.Unsupported, ModelError, ArithmeticError, AttributeError, LookupError, RuntimeError)
"""What comes of a model that the rules cannot be applied to."""

Blocks = tuple[list[list[Any]], list[tuple[int, ...]]]
"""(batch, rows, inputs...) per output and input, and the shape (batch, ...) of every output."""


class Program:
    """The Jacobian of one model: by the engine's derivative rules where they apply, elsewhere by a tape.

    The rules are faster (docs/ENGINE.md), but are compiled for one batch size and hold copies of the weights.
    They are compiled for the first batch of all, and after that for what comes a second time. What comes
    once, such as a last smaller batch or the weights between two training steps, is done by the tape, which
    serves every batch size and refers to the model's variables. Before every batch the copies are compared
    with the variables, bit for bit, so that both describe the weights of the moment.

    It is an object of its own, which neither Keras nor TensorFlow tracks, so that a model with a program is
    saved, exported and pickled like one without. Threads may share it.

    Attributes:
        tape: the program that serves every model.
    """

    def __init__(self, model: keras.Model):
        self.tape = TapeProgram(model)
        self._model = model
        self._lock = threading.Lock()
        self._ruled = True
        self._graph: Graph | None = None
        self._tape_seconds = 0.0
        self._weights: list[np.ndarray] | None = None
        self._seen: set[Any] = set()
        self._programs: dict[Any, RuledProgram] = {}
        self._checked: set[Any] = set()

    def __call__(self, arrays: list[Any], rows: np.ndarray | None = None) -> Blocks:
        """The Jacobian of one batch.

        Args:
            arrays: (batch, inputs...) per input.
            rows: numbers of the values of every flattened output; None for all.
        """
        compute = self._by_rules(arrays[0], rows) if self._ruled else None
        if compute is not None:
            try:
                made = compute()
                log.debug("augnet: Jacobian of %d samples by rules", len(arrays[0]))
                return made
            except tf.errors.OpError as error:  # out of memory, or a NaN that arose inside the model
                log.debug("augnet: the rules failed: %s", error)
        log.debug("augnet: Jacobian of %d samples by a tape", len(arrays[0]))
        start = time.monotonic()
        blocks = self.tape(arrays, rows)
        self._tape_seconds += time.monotonic() - start
        return blocks

    def _by_rules(self, array: Any, rows: np.ndarray | None) -> Callable[[], Blocks] | None:
        """What computes the batch by rules; None where the tape has to."""
        key = tuple(array.shape[1:]), None if rows is None else len(rows)
        with self._lock:
            try:
                self._graph = self._graph or _graph(self._model)
                may_compile = self._again((key, len(array))) and self._has_room() and self._pays(self._graph)
                program = self._programs.get(key)
                if program is None and may_compile:
                    program = RuledProgram(self._model, self._graph, *key)
                    if key not in self._checked:
                        program.check(self._model)
                        self._checked.add(key)
                    self._programs[key] = program
                size = None if program is None else program.size_for(len(array), may_compile)
            except UNRULED as error:
                log.debug("augnet: no rules for %r: %s: %s", self._model.name, type(error).__name__, error)
                self._ruled = False
                self._programs.clear()
                return None
        return None if program is None or size is None else lambda: program(array, rows, size)

    def _again(self, request: Any) -> bool:
        """Whether this was asked for before with these weights; or it is the first request of all."""
        first = self._weights is None
        if self._weights is None or not _equal(self._weights, self._model.weights):
            self._weights = [backend.values_of(variable).copy() for variable in self._model.weights]
            self._seen.clear()
            self._programs.clear()
            self._tape_seconds = 0.0
        again = first or request in self._seen
        self._seen.add(request)
        return again

    def _pays(self, graph: Graph) -> bool:
        return len(graph.nodes) <= MANY_NODES or self._tape_seconds >= NODE_SECONDS * len(graph.nodes)

    def _has_room(self) -> bool:
        held = sum(max(1, len(program.functions)) for program in self._programs.values())
        size = 3 * sum(array.nbytes for array in self._weights or ())
        return held < MOST_FUNCTIONS and (held + 1) * size <= WEIGHTS_BYTES


class RuledProgram:
    """The Jacobian by derivative rules, for samples of one shape, a number of rows and the present weights.

    Args:
        graph: the model's.
        shape: of a sample.
        row_count: rows of every sample; None for all.

    Raises:
        ModelError: not every operation of the model has a rule.

    Attributes:
        functions: compiled, by their batch size.
    """

    def __init__(self, model: keras.Model, graph: Graph, shape: tuple[int, ...], row_count: int | None):
        outputs = tuple(model.outputs[0].shape[1:])
        self._outputs = model.compute_output_shape((1, *shape))[1:] if None in outputs else outputs
        self._graph, self._shape, self._dtype = graph, shape, graph.input.dtype
        count = math.prod(self._outputs)
        if not math.prod(shape) or not count:
            raise ModelError("nothing to differentiate")
        self._all = row_count is None
        self._row_count = row_count or count
        self._rewritten = rewritten(graph, shape, self._dtype, self._row_count)
        if not self._rewritten.ruled:
            raise ModelError(f"only some have rules: {self._rewritten.summary}")
        self._memory = default_memory()
        # The rows and the cotangents of every pass, and as many again for what is made of them on the way.
        passes = self._rewritten.coloring.count if self._all and self._rewritten.coloring else self._row_count
        elements = self._row_count * math.prod(shape) + passes * count
        fitting = self._memory // (8 * elements * np.dtype(self._dtype).itemsize)
        self._largest = min(fitting, max(1, BATCH_ELEMENTS // self._rewritten.widest))
        self.functions: dict[int, Callable[..., Any]] = {}

    def check(self, model: keras.Model) -> None:
        """Compare the rules with a tape over the model itself, on noise.

        Nothing is timed: AugNet's first call is to be quick, and the ways that timing finds are hardly faster
        than the likeliest ones.

        Raises:
            ModelError: they differ.
        """
        own, graph = self._rewritten, self._graph

        def flat(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
            return lambda x: tf.reshape(function(x), (x.shape[0], own.output_count))

        images = probe_images(self._shape, False, self._dtype)
        problem = Problem(
            plain=Plain(flat(lambda x: model(x, training=False))),
            rewritten=own,
            oracle=lambda: (Plain(flat(in_precision(graph, "float64"))), own),
            images=images,
            output_count=own.output_count,
            row_count=self._row_count,
            batch_size=max(1, min(len(images), self._largest)),
            widest=own.widest,
            work=own.work,
            memory_bytes=self._memory,
        )
        if choose(problem, seconds=0).program == "plain":
            raise ModelError("rules and tape disagree")

    def size_for(self, count: int, may_compile: bool) -> int | None:
        """The batch size of a compiled function that serves so many samples; None where there is none.

        More samples than fit are done in equal parts.
        """
        if not self._largest:
            return None
        part = math.ceil(count / math.ceil(count / self._largest))
        size = min((size for size in self.functions if part <= size <= 2 * part), default=None)
        if size is None and may_compile:
            size = part
            self.functions[size] = self._compiled(size)
        return size

    def _compiled(self, size: int) -> Callable[..., Any]:
        """Samples (size, inputs...) and row numbers (row,), if not all -> rows (size, row, inputs...)."""
        own = self._rewritten
        chunk = max(1, backend.CACHE_BYTES // (size * own.widest * np.dtype(self._dtype).itemsize))

        def jacobian(x: Any, numbers: Any) -> Any:
            finite = tf.reduce_all(tf.math.is_finite(tf.reshape(x, (size, -1))), axis=1)

            def cotangents(outputs: Any) -> Any:
                one_hot = tf.one_hot(numbers, own.output_count, dtype=outputs.dtype)
                return tf.broadcast_to(one_hot[:, None], (self._row_count, *outputs.shape))

            # A NaN could spoil more than its own sample: an operation may refuse it.
            safe = tf.where(tf.reshape(finite, (size, *[1] * len(self._shape))), x, tf.zeros_like(x))
            if self._all:
                made = own.all_rows(safe, chunk, FixedPaths())
            else:
                _, made = own.rows(safe, cotangents, chunk, FixedPaths())
            nothing = tf.where(finite, tf.zeros((), x.dtype), tf.constant(math.nan, x.dtype))
            return tf.reshape(made + nothing[:, None, None], (size, self._row_count, *self._shape))

        signature = [((size, *self._shape), self._dtype), ((0 if self._all else self._row_count,), "int32")]
        return backend.compiled(jacobian, signature)

    def __call__(self, array: Any, rows: np.ndarray | None, size: int) -> Blocks:
        """The Jacobian of a batch, `size` samples at a time."""
        x = tf.cast(tf.convert_to_tensor(array), self._dtype)
        numbers = tf.constant([] if rows is None else rows, tf.int32)
        blocks = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            missing = size - len(part)
            if missing:
                part = tf.concat([part, tf.repeat(part[-1:], missing, axis=0)], axis=0)
            made = self.functions[size](part, numbers)
            blocks.append(made[: size - missing] if missing else made)
        block = blocks[0] if len(blocks) == 1 else tf.concat(blocks, axis=0)
        return [[block]], [(len(x), *self._outputs)]


def _graph(model: keras.Model) -> Graph:
    """The flat graph of a model of one input and one output that computes in one precision."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ModelError("several inputs or outputs")
    dtype = model.inputs[0].dtype
    if dtype not in ("float32", "float64") or model.outputs[0].dtype != dtype:
        raise ModelError(f"from {dtype} to {model.outputs[0].dtype}")
    graph = trace(model)
    if graph is None:
        raise ModelError("no graph")
    if not all(computes_in(node, dtype) for node in graph.nodes):
        raise ModelError("several precisions")
    return graph


def _equal(arrays: list[np.ndarray], variables: list[Any]) -> bool:
    """Whether the variables hold these values, bit for bit: a NaN equals itself."""

    def same(array: np.ndarray, now: np.ndarray) -> bool:
        if (array.shape, array.dtype) != (now.shape, now.dtype):
            return False
        bits = f"u{array.itemsize}"
        return np.array_equal(array.view(bits), now.view(bits))

    return len(arrays) == len(variables) and all(
        same(array, backend.values_of(variable)) for array, variable in zip(arrays, variables, strict=True)
    )


class TapeProgram:
    """The Jacobian of any model by a tape: one trace serves every batch size and every choice of rows.

    One forward pass on a tape, then one backward pass per row in a loop. The trace refers to the model's
    variables, so it sees what training changes.
    """

    def __init__(self, model: keras.Model):
        self._inputs, self._outputs = model.inputs, model.outputs

        def jacobian(inputs: list[Any], rows: list[Any], share: Any) -> Any:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(inputs)
                outputs = keras.tree.flatten(model(fill(model.input, iter(inputs)), training=False))
                flat = [tf.reshape(output, (tf.shape(output)[0], -1)) for output in outputs]
            finite = tf.ones_like(share, tf.bool)
            for tensor in inputs:
                finite &= tf.reduce_all(tf.math.is_finite(tf.reshape(tensor, (tf.shape(tensor)[0], -1))), 1)
            blocks = [_rows(tape, inputs, y, r, share, finite) for y, r in zip(flat, rows, strict=True)]
            return blocks, [tf.shape(output) for output in outputs]

        signature = [
            # A batch size in keras.Input is no rule for Keras (a Sequential keeps that of its first call).
            [tf.TensorSpec((None, *spec.shape[1:]), spec.dtype) for spec in model.inputs],
            [tf.TensorSpec((None,), tf.int32) for _ in model.outputs],
            tf.TensorSpec((None,), tf.float32),
        ]
        # Traced here, not at the first call: TensorFlow warns when it sees many functions traced by calls.
        function = tf.function(jacobian, input_signature=signature, autograph=False)
        self._function = function.get_concrete_function()

    def __call__(
        self, arrays: list[Any], rows: np.ndarray | None = None, share: np.ndarray | None = None
    ) -> Blocks:
        """The Jacobian of one batch.

        Args:
            arrays: (batch, inputs...) per input.
            rows: numbers of the values of every flattened output; None for all.
            share: (batch,) how much each sample's outputs count; None for 1.
        """
        inputs = [
            tf.cast(tf.convert_to_tensor(array), spec.dtype)
            for array, spec in zip(arrays, self._inputs, strict=True)
        ]
        numbers = tf.constant([] if rows is None else rows, tf.int32)
        share = np.ones(len(inputs[0]), np.float32) if share is None else share
        blocks, shapes = self._function(inputs, [numbers] * len(self._outputs), tf.constant(share))
        return blocks, [tuple(shape.numpy().tolist()) for shape in shapes]

    def refuse_mixed_samples(self, arrays: list[Any]) -> None:
        """Raise where an output of the first sample depends on the input of another.

        It runs the program itself on copies of one sample, so it costs no second trace.
        """
        size = self._inputs[0].shape[0] or 2
        copies = [np.repeat(np.asarray(array[:1]), size, axis=0) for array in arrays]
        totals = [math.prod(axis or 1 for axis in spec.shape[1:]) for spec in self._outputs]
        rows = np.linspace(0, min(totals) - 1, min(CHECKED_ROWS, *totals)).astype(np.int32)
        blocks, _ = self(copies, rows, np.eye(size, dtype=np.float32)[0])
        # NaN compares as False, and says nothing about mixing.
        if any(np.any(np.abs(block.numpy()[1:]) > 0) for by_input in blocks for block in by_input):
            raise ValueError(
                "AugNet: this model mixes the samples of a batch: an output of one depends on the input of "
                "another, even in inference mode, so that no sample has a Jacobian of its own; take out the "
                "layer that mixes them"
            )


def _rows(tape: Any, inputs: list[Any], flat: Any, rows: Any, share: Any, finite: Any) -> list[Any]:
    """Rows (batch, row, inputs...) of `flat` (batch, K) by each input; all K where `rows` is empty."""
    total = tf.shape(flat)[1]
    rows = tf.cond(tf.size(rows) > 0, lambda: rows, lambda: tf.range(total))
    share = tf.cast(share, flat.dtype)[:, None]

    def one(row: Any) -> list[Any]:
        cotangent = share * tf.one_hot(row, total, dtype=flat.dtype)
        gradients = tape.gradient(flat, inputs, cotangent, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [
            tf.where(tf.reshape(finite, [-1] + [1] * (len(g.shape) - 1)), g, tf.constant(math.nan, g.dtype))
            for g in gradients
        ]

    kinds = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    stacks = tf.map_fn(one, rows, fn_output_signature=kinds, parallel_iterations=backend.passes_at_once())
    return [tf.transpose(stack, [1, 0, *range(2, len(stack.shape))]) for stack in stacks]


def fill(struct: Any, values: Iterator[Any]) -> Any:
    """`struct` with its tensors replaced by `values`, in Keras' order: dictionaries by sorted key."""
    if isinstance(struct, dict):
        filled = {key: fill(struct[key], values) for key in sorted(struct)}
        return {key: filled[key] for key in struct}
    if isinstance(struct, list | tuple):
        return type(struct)([fill(part, values) for part in struct])
    return next(values)
