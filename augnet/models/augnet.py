"""AugNet: a Keras model that returns its own Jacobian."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from augnet.engine.backends import backend
from augnet.engine.batching import padded
from augnet.engine.graph.graph import functional_of
from augnet.engine.types import is_float
from augnet.models.model_jacobian import ModelJacobian
from augnet.models.structure import arrays_of, unwrapped


@keras.saving.register_keras_serializable(package="augnet")
class AugNet(keras.Model):
    """A functional Keras model with `return_jacobian(x)`, the derivative of its outputs by its inputs.

    Built like any functional model, or from a trained one, whose weights it then shares:

        model = AugNet(inputs=inputs, outputs=outputs)
        model = AugNet(inputs=trained.inputs, outputs=trained.outputs)
        model = AugNet.from_model(trained)

    It is compiled, fitted, saved and loaded as any other. The Jacobian always describes the weights of the
    moment: what is compiled at one call and kept for the next is compared with them.

    It is computed by derivative rules (docs/ENGINE.md), faster than by a tape, from the first call on, and
    again from the second call after the weights changed. Several inputs or outputs, mixed precision and
    subclassed models are computed by a tape. The two agree to rounding. A program is compiled at the first
    call for a batch size; `prepare` does it ahead, and times which way is the fastest.

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
        super().__init__(inputs=unwrapped(inputs), outputs=unwrapped(outputs), name=name, **kwargs)
        self._jacobian: ModelJacobian | None = None

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
        functional = functional_of(model)
        if functional is not None:
            return cls(inputs=functional.input, outputs=functional.output, name=model.name)
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
        batches = [
            [block if len(block) == count else block[:count] for block in blocks]
            for blocks, count in self._batches(arrays, None, max(len(arrays[0]), 1))
        ]
        whole = [
            parts[0] if len(parts) == 1 else ops.concatenate(parts) for parts in zip(*batches, strict=True)
        ]
        kinds = [spec.dtype for spec in self.inputs] * len(self.outputs)
        return self._structured([ops.cast(block, kind) for block, kind in zip(whole, kinds, strict=True)])

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
        kinds = [backend.numpy_dtype(spec.dtype) for spec in self.inputs] * len(self.outputs)
        results: list[np.ndarray] = []
        done = 0
        for blocks, count in self._batches(arrays, rows, int(batch_size)):
            results = results or [
                np.empty((len(arrays[0]), *block.shape[1:]), kind)
                for block, kind in zip(blocks, kinds, strict=True)
            ]
            for result, block in zip(results, blocks, strict=True):
                result[done : done + count] = backend.to_host(block)[:count]
            done += count
        if isinstance(outputs, int | np.integer):
            results = [result[:, 0] for result in results]
        return self._structured(results)

    def prepare(self, batch_size: int = 32, outputs: int | Sequence[int] | None = None) -> None:
        """Time which program is the fastest on this machine and compile it, ahead of the first call.

        Without it the likeliest program is compiled at the first call, and a better one is looked for once
        calls have taken long enough for that to pay.

        Args:
            batch_size: samples per pass over the device, as will be given to `jacobian`.
            outputs: as will be given to `jacobian`.

        Raises:
            ValueError: the model leaves sizes of its inputs open; then the first call decides.
        """
        shapes = [tuple(spec.shape[1:]) for spec in self.inputs]
        if any(None in shape for shape in shapes):
            raise ValueError(
                f"AugNet.prepare: the model leaves sizes of its inputs open: {shapes}; call jacobian on one "
                "batch of the size that is wanted"
            )
        sample = self._arrays(
            keras.tree.pack_sequence_as(self.input, [np.zeros((1, *shape), np.float32) for shape in shapes])
        )
        rows = None if outputs is None else self._row_numbers(outputs, sample)
        self._model_jacobian().prepare(shapes, rows, batch_size)

    def _batches(self, arrays: list[Any], rows: np.ndarray | None, batch_size: int) -> Iterator[Any]:
        """The blocks of every batch and how many samples are in it; of no samples, those of a padding."""
        if not len(arrays[0]):
            arrays = [padded(array, self.inputs[0].shape[0] or 1) for array in arrays]
            for blocks, _ in self._model_jacobian()(arrays, rows, 1):
                yield blocks, 0
            return
        yield from self._model_jacobian()(arrays, rows, batch_size)

    def _model_jacobian(self) -> ModelJacobian:
        if self._jacobian is None:
            self._jacobian = ModelJacobian(self)
        return self._jacobian

    def _structured(self, blocks: list[Any]) -> Any:
        """Blocks, one for each output for each input, in the structure of the outputs, each of the inputs."""
        count = len(self.inputs)
        starts = range(0, len(blocks), count)
        by_output = [keras.tree.pack_sequence_as(self.input, blocks[i : i + count]) for i in starts]
        return keras.tree.pack_sequence_as(self.output, by_output)

    def _arrays(self, x: Any) -> list[Any]:
        """`x` as one checked array or tensor per input of the model, in the order of `self.inputs`."""
        if not backend.is_eager():
            raise RuntimeError(
                "AugNet: Jacobians are computed eagerly; inside a tf.function use "
                "tf.GradientTape on the model"
            )
        for spec, role in [(s, "input") for s in self.inputs] + [(s, "output") for s in self.outputs]:
            if not is_float(spec.dtype):
                raise TypeError(
                    f"AugNet: {role} {spec.name!r} of this model is {spec.dtype}, and only floats have "
                    f"derivatives; make an AugNet of the part of the model whose {role} is a float"
                )
        return arrays_of(self, x)

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
            sizes = [(1, *array.shape[1:]) for array in arrays]
            shape = self.compute_output_shape(sizes[0] if len(sizes) == 1 else sizes)[1:]
        total = math.prod(shape)
        if rows.min() < 0 or rows.max() >= total:
            raise ValueError(
                f"AugNet.jacobian: outputs={outputs!r} is out of range; this model's {total} outputs are "
                f"numbered from 0 to {total - 1}"
            )
        return rows.reshape(-1).astype(np.int32)


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
