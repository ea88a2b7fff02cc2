"""AugNet: a Keras model that returns its own Jacobian."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from augnet.models.jacobian import Program, TapeProgram, fill


@keras.saving.register_keras_serializable(package="augnet")
class AugNet(keras.Model):
    """A functional Keras model with `return_jacobian(x)`, the derivative of its outputs by its inputs.

    Built like any functional model, or from a trained one, whose weights it then shares:

        model = AugNet(inputs=inputs, outputs=outputs)
        model = AugNet(inputs=trained.inputs, outputs=trained.outputs)
        model = AugNet.from_model(trained)

    It is compiled, fitted, saved and loaded as any other. The Jacobian always describes the weights of the
    moment: what is compiled at one call and kept for the next is compared with them.

    Where every operation has a derivative rule (docs/ENGINE.md) the Jacobian is computed by rules, several
    times as fast as by a tape: from the first call on, and again from the second call after the weights
    changed. Other models, several inputs or outputs and mixed precision are computed by a tape. The two agree
    to rounding.

    Inference mode: Dropout is off and BatchNormalization uses its moving statistics, always.

    Values of x: floats, integers and booleans are cast to the input's own float type. A model that takes
    integers or strings has no derivative there: TypeError.

    Documented results:
      - an output that does not depend on an input, or only through steps without a derivative (rounding,
        argmax), has zeros;
      - a sample whose input holds a NaN or an infinity has no derivative: its whole Jacobian is NaN. The
        other samples of its batch are not affected;
      - at a kink (ReLU at 0, ties of a max-pool) TensorFlow's choice of a one-sided derivative is used.

    Each sample has its own Jacobian only where samples do not influence each other. A model that mixes the
    samples of a batch even in inference mode is refused at the first call.

    Several inputs or outputs: wherever one array is spoken of below, there is the structure of the model's
    outputs, and at each of its places the structure of the model's inputs. A model made with dictionaries
    gives `jacobian["output"]["input"]`, one made with lists `jacobian[i][j]`.
    """

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any):
        # A list of one tensor, which is what trained.inputs is, would make Keras warn at every call with
        # an array, as the structures then differ.
        super().__init__(inputs=_unwrap(inputs), outputs=_unwrap(outputs), name=name, **kwargs)
        self._program: Program | None = None

    @classmethod
    def from_model(cls, model: keras.Model) -> AugNet:
        """An AugNet with the layers, the weights and the name of a trained model.

        Args:
            model: functional, Sequential, or a subclassed model that has been called or built. The last is
                kept as one layer, as its inside is not a graph that Keras could see.

        Returns:
            A model that shares the weights: training either changes both. It is not compiled. A subclassed
            model's name gets the ending _augnet.

        Raises:
            TypeError: `model` is not a Keras model.
            ValueError: the shape of the model's input is not known.
        """
        if not isinstance(model, keras.Model):
            raise TypeError(f"AugNet.from_model: {type(model).__name__} is not a keras.Model")
        if _is_graph(model):
            return cls(inputs=model.input, outputs=model.output, name=model.name)
        if isinstance(model, keras.Sequential) and getattr(model, "_functional", None) is not None:
            return cls(inputs=model.inputs, outputs=model.outputs, name=model.name)
        inputs = _inputs_of_built(model)
        return cls(inputs=inputs, outputs=model(inputs), name=f"{model.name}_augnet")

    def return_jacobian(self, x: Any) -> Any:
        """The Jacobian at every sample of `x`, as one tensor.

        Args:
            x: (batch, inputs...), NumPy, tensor, Variable or nested lists; for several inputs the model's
                structure of them, or a dictionary of them by name.

        Returns:
            Eager tensor (batch, outputs..., inputs...) of the input's dtype:
            `J[b, o, i] = d model(x)[b, o] / d x[b, i]`.

        Raises:
            ValueError: `x` has another shape or structure than the model's input, or the model mixes samples.
            TypeError: `x` is not numeric, or an input or output of the model is not of a float type.
        """
        arrays = self._arrays(x)
        count = len(arrays[0])
        blocks, shapes = self._compiled(arrays)([_padded(array, max(count, 1)) for array in arrays])
        return self._structured(
            [
                [tf.reshape(block, (len(block), *shape[1:], *block.shape[2:]))[:count] for block in by_input]
                for by_input, shape in zip(blocks, shapes, strict=True)
            ]
        )

    def jacobian(self, x: Any, outputs: int | Sequence[int] | None = None, batch_size: int = 32) -> Any:
        """The Jacobian, or some rows of it, of as many samples as the host's memory holds.

        The device sees `batch_size` samples at a time; the last batch is padded, and the padding dropped.

        Args:
            x: as for `return_jacobian`; a memory-mapped array is read batch by batch.
            outputs: None for all; otherwise positions in the flattened output of a model with one output.
                A number gives that row alone, without an output axis; a sequence keeps the axis:
                `jacobian(x, outputs=[2, 0])` is `jacobian(x)[:, [2, 0]]`.
            batch_size: samples per pass over the device. A model made with a batch size uses that.

        Returns:
            NumPy array (samples, outputs..., inputs...); (samples, len(outputs), inputs...) for a sequence;
            (samples, inputs...) for a number.

        Raises:
            ValueError: as `return_jacobian`; or `outputs` or `batch_size` is out of range.
            TypeError: as `return_jacobian`; or `outputs` holds something else than whole numbers.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
            raise ValueError(f"AugNet.jacobian: batch_size: {batch_size!r} is not a positive whole number")
        arrays = self._arrays(x)
        rows = None if outputs is None else self._row_numbers(outputs, arrays)
        program = self._compiled(arrays)
        count = len(arrays[0])
        size = self.inputs[0].shape[0] or min(int(batch_size), max(count, 1))
        results: list[list[np.ndarray]] = []
        for start in range(0, max(count, 1), size):
            parts = [_padded(array[start : start + size], size) for array in arrays]
            blocks, shapes = program(parts, rows)
            if not results:
                results = [
                    [
                        np.empty(
                            (count, *(shape[1:] if rows is None else [len(rows)]), *block.shape[2:]),
                            block.dtype.as_numpy_dtype,
                        )
                        for block in by_input
                    ]
                    for by_input, shape in zip(blocks, shapes, strict=True)
                ]
            for into, by_input in zip(results, blocks, strict=True):
                for result, block in zip(into, by_input, strict=True):
                    part = result[start : start + size]
                    part[...] = np.asarray(block)[: len(part)].reshape(part.shape)
        if isinstance(outputs, int | np.integer):
            results = [[result[:, 0] for result in by_input] for by_input in results]
        return self._structured(results)

    def _structured(self, blocks: list[list[Any]]) -> Any:
        """Blocks per output and input, in the structure of the outputs, each of that of the inputs."""
        return fill(self.output, iter([fill(self.input, iter(by_input)) for by_input in blocks]))

    def _arrays(self, x: Any) -> list[Any]:
        """`x` as one checked array or tensor per input of the model, in the order of `self.inputs`."""
        if not tf.executing_eagerly():
            raise RuntimeError(
                "AugNet: Jacobians are computed eagerly; inside a tf.function use "
                "tf.GradientTape on the model"
            )
        for spec, role in [(s, "input") for s in self.inputs] + [(s, "output") for s in self.outputs]:
            if not tf.as_dtype(spec.dtype).is_floating:
                raise TypeError(
                    f"AugNet: {role} {spec.name!r} of this model is {spec.dtype}, and only floats have "
                    f"derivatives; make an AugNet of the part of the model whose {role} is a float"
                )
        arrays = [_checked(value, spec) for value, spec in zip(self._parts(x), self.inputs, strict=True)]
        counts = [len(array) for array in arrays]
        if len(set(counts)) > 1:
            raise ValueError(f"AugNet: every input needs the same number of samples, got {counts}")
        return arrays

    def _parts(self, x: Any) -> list[Any]:
        """The parts of `x`, one per input of the model, in the order of `self.inputs`."""
        names = [spec.name for spec in self.inputs]
        if isinstance(x, dict) and not isinstance(self.input, dict) and set(x) == set(names):
            return [x[name] for name in names]
        if len(names) == 1 and not isinstance(x, dict):
            rank = len(self.inputs[0].shape)
            listed = isinstance(x, list | tuple) and len(x) == 1 and len(getattr(x[0], "shape", ())) == rank
            return [x[0] if listed else x]
        parts = _leaves(self.input, x)
        if parts is None:
            expected = fill(self.input, iter(names))
            got = sorted(map(str, x)) if isinstance(x, dict) else type(x).__name__
            got = f"{got} of {len(x)}" if isinstance(x, list | tuple) else got
            raise ValueError(
                f"AugNet: x needs the structure of the model's inputs, {expected}, got {got}; "
                "give one array for each, or a dictionary of arrays by name"
            )
        return parts

    def _row_numbers(self, outputs: int | Sequence[int], arrays: list[Any]) -> np.ndarray:
        if len(self.outputs) > 1:
            raise ValueError(
                f"AugNet.jacobian: outputs={outputs!r} selects among the values of one output, but "
                f"this model has {len(self.outputs)}; leave it out, or make an AugNet of the one you want"
            )
        rows = np.asarray(outputs)
        if rows.size and rows.dtype.kind not in "iu":
            raise TypeError(f"AugNet.jacobian: outputs={outputs!r} is not a whole number or a list of them")
        if rows.size == 0 or rows.ndim > 1:
            raise ValueError(f"AugNet.jacobian: outputs={outputs!r} is not a number or a list of one or more")
        shape = self.outputs[0].shape[1:]
        if None in shape:  # it follows from the input's: ask the model, with one sample
            sample = [tf.cast(_padded(a[:1], 1), s.dtype) for a, s in zip(arrays, self.inputs, strict=True)]
            shape = self(fill(self.input, iter(sample)), training=False).shape[1:]
        total = math.prod(shape)
        if rows.min() < 0 or rows.max() >= total:
            raise ValueError(
                f"AugNet.jacobian: outputs={outputs!r} is out of range; this model's {total} outputs are "
                f"numbered from 0 to {total - 1}"
            )
        return rows.reshape(-1).astype(np.int32)

    def _compiled(self, arrays: list[Any]) -> Program | TapeProgram:
        """The program, built at the first call, which also checks that samples do not mix."""
        if self._program is None:
            program = Program(self)
            if not len(arrays[0]):
                return program.tape
            program.tape.refuse_mixed_samples(arrays)
            self._program = program
        return self._program


def _unwrap(struct: Any) -> Any:
    while isinstance(struct, list | tuple) and len(struct) == 1:
        struct = struct[0]
    return struct


def _leaves(struct: Any, x: Any) -> list[Any] | None:
    """The parts of `x` at the tensors of `struct`, in the order of `_fill`; None where the two differ."""
    if isinstance(struct, dict):
        if not isinstance(x, dict) or set(x) != set(struct):
            return None
        pairs = [(struct[key], x[key]) for key in sorted(struct)]
    elif isinstance(struct, list | tuple):
        if not isinstance(x, list | tuple) or len(x) != len(struct):
            return None
        pairs = list(zip(struct, x, strict=True))
    else:
        return None if isinstance(x, dict) else [x]
    parts = [_leaves(*pair) for pair in pairs]
    return None if None in parts else [leaf for part in parts for leaf in part or ()]


def _checked(value: Any, spec: Any) -> Any:
    """`value` as an array or tensor with the shape that `spec` asks for, its batch axis aside."""
    name = f"input {spec.name!r}"
    if isinstance(value, tf.Variable | keras.Variable):
        value = tf.convert_to_tensor(value)
    elif not isinstance(value, tf.Tensor | np.ndarray):
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"AugNet: {name} is not an array: {error}; make all samples one shape") from None
    try:
        kind = tf.as_dtype(value.dtype)
    except TypeError:
        kind = tf.string
    if not (kind.is_floating or kind.is_integer or kind.is_bool):
        raise TypeError(f"AugNet: {name} holds {value.dtype}; give real numbers, which become {spec.dtype}")
    got, wanted = tuple(value.shape), tuple(spec.shape)
    if len(got) != len(wanted) or any(w not in (None, g) for g, w in zip(got[1:], wanted[1:], strict=True)):
        expected = ("batch", *(axis if axis is not None else "any" for axis in wanted[1:]))
        advice = "give an array of that shape"
        if len(got) == len(wanted) - 1 and all(w in (None, g) for g, w in zip(got, wanted[1:], strict=True)):
            advice = "the batch axis is missing: for one sample give x[None]"
        elif 1 in wanted[1:] and math.prod(got[1:]) == math.prod(axis or 0 for axis in wanted[1:]):
            advice = f"reshape it to {(got[0] if got else 1, *wanted[1:])}"
        shape = "(" + ", ".join(map(str, expected)) + ")"
        raise ValueError(f"AugNet: {name} has the shape {shape}, got {got}; {advice}")
    return value


def _padded(array: Any, size: int) -> Any:
    """`array` (n, ...) with its last sample repeated up to `size`; of an empty one, zeros."""
    if len(array) == size:
        return array
    array = np.asarray(array)
    last = array[-1:] if len(array) else np.zeros((1, *array.shape[1:]), array.dtype)
    return np.concatenate([array, np.repeat(last, size - len(array), axis=0)])


def _is_graph(model: keras.Model) -> bool:
    """Whether calling the model runs the graph between model.input and model.output, and nothing else."""
    return type(model).call.__qualname__ == "Functional.call"


def _inputs_of_built(model: keras.Model) -> Any:
    """Symbolic inputs of the shapes that a subclassed model was built with, its batch axis left open."""
    shapes = (model.get_build_config() or {}).get("input_shape") if model.built else None

    def inputs(struct: Any) -> Any:
        if isinstance(struct, dict):
            return {key: inputs(part) for key, part in struct.items()}
        if struct and all(axis is None or isinstance(axis, int) for axis in struct):
            return keras.Input(tuple(struct[1:]), dtype=model.variable_dtype)
        return [inputs(part) for part in struct]

    if not shapes:
        raise ValueError(
            f"AugNet.from_model: the input shape of {model.name!r} ({type(model).__name__}) is not known; "
            "call it once on a batch, or call its build(input_shape), or wrap it: "
            "AugNet(inputs=x, outputs=model(x)) with x = keras.Input(...)"
        )
    return inputs(shapes)
