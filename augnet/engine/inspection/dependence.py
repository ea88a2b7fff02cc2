"""Which outputs depend on the image, and which of them only through steps that have no gradient.

Values alone cannot tell: an output may be constant on a few images because its ReLU is dead there, and the
row of an output that is rounded is zero as if it did not matter. So every operation of the graph is tried by
itself, on random inputs of many sizes and both signs in place of what the images make of it: what stays the
same under all of them does not depend on its input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Graph, Node, Value
from augnet.engine.graph.shapes import shapes_of
from augnet.engine.rewrites.rule_lookup import with_rules
from augnet.engine.types import Tensor

SIZES = (0.1, 1.0, 1e2, 1e6)
"""Of the random inputs; each is tried with both signs, so that no ReLU is dead under all of them."""
IMAGES = 2 * len(SIZES)
SAME = 1e-6
"""Relative difference that is rounding: a constant may be computed in another order for another image."""


@dataclass(frozen=True)
class Dependence:
    """How the outputs depend on the image.

    Attributes:
        connected: (K,) bool, the output changes with the image.
        differentiable: (K,) bool, it does so by a way along which a gradient flows.
    """

    connected: np.ndarray
    differentiable: np.ndarray


def has_steps(graph: Graph, image: np.ndarray) -> bool:
    """Whether an operation passes no gradient on to one of its inputs, at this image (*model_input).

    Operations with a derivative rule pass one on, so only the others are tried.
    """
    graph = with_rules(graph, shapes_of(graph, image.shape, str(image.dtype)))
    if all(node.rule is not None and node.rule.passes_gradient for node in graph.nodes):
        return False
    tensors = {graph.input: backend.constant(image[None], image.dtype)}
    for node in graph.nodes:
        if node.rule is not None and node.rule.passes_gradient:
            node.run(tensors)
            continue
        results, passes = backend.passes_gradient(node, [tensors[value] for value in node.inputs])
        if not all(passes):
            return True
        tensors.update(zip(node.outputs, results, strict=True))
    return False


def dependence(graph: Graph, image: np.ndarray) -> Dependence:
    """A sweep through the graph that finds the steps without a gradient, then two in which they are held.

    Two, as what a step leads to may shut another way to the image: where(x > 0, x, 0) is held once open and
    once shut.

    Raises:
        backend.Refused: an operation does not take arbitrary numbers, or its gradient is not known.
    """
    free = _Sweep(image)
    connected = free.run(graph)
    if all(map(all, free.passes.values())):
        return Dependence(connected, connected)
    held = [_Sweep(image, free.passes, free.changing, turned).run(graph) for turned in (False, True)]
    return Dependence(connected, held[0] | held[1])


class _Sweep:
    """One run of a graph on random numbers.

    Args:
        image: (*model_input), whose values stay where nothing depends on the image.
        passes: for each node, whether a gradient flows to each of its inputs; those to which none flows are
            held. None: nothing is held, and it is found out.
        changing: for each value, which elements change when nothing is held.
        turned: the held elements have the opposite sign or truth.
    """

    def __init__(
        self,
        image: np.ndarray,
        passes: dict[Node, list[bool]] | None = None,
        changing: dict[Value, np.ndarray] | None = None,
        turned: bool = False,
    ):
        self._image, self._turned = image, turned
        self._hold = passes is not None
        self.passes: dict[Node, list[bool]] = passes or {}
        self.changing: dict[Value, np.ndarray] = changing or {}
        self._rng = np.random.default_rng(0)

    def run(self, graph: Graph) -> np.ndarray:
        """Outputs (K,) bool that change."""
        start = np.broadcast_to(self._image, (IMAGES, *self._image.shape))
        tensors = {graph.input: backend.constant(self._random(start), self._image.dtype)}
        left = {value: len(readers) for value, readers in graph.users().items()}
        for node in graph.nodes:
            results = self._call(node, [tensors[value] for value in node.inputs])
            for value, tensor in zip(node.outputs, results, strict=True):
                tensors[value] = self._replaced(value, tensor)
            for value in dict.fromkeys(node.inputs):  # tensors of a large model do not all fit in memory
                left[value] -= 1
                if not left[value] and value is not graph.output:
                    del tensors[value]
        return _changes(np.asarray(tensors[graph.output])).reshape(-1)

    def _call(self, node: Node, given: list[Tensor]) -> tuple[Tensor, ...]:
        if self._hold:
            flows = self.passes[node]
            given = [x if flow else self._held(x) for x, flow in zip(given, flows, strict=True)]
            results = node(*given)
        else:
            results, self.passes[node] = backend.passes_gradient(node, given)
        if any(map(_varies, given)):
            return results
        # Of the same numbers for every image: what differs is rounding, however small their sum is.
        return tuple(map(self._held, results))

    def _held(self, tensor: Tensor) -> Tensor:
        """One image's values for all images."""
        array = np.asarray(tensor)
        if not _is_batch(array):
            return tensor
        return backend.constant(np.broadcast_to(array[-1 if self._turned else 0], array.shape), tensor.dtype)

    def _replaced(self, value: Value, tensor: Tensor) -> Tensor:
        """The tensor with random numbers where it changes, and with random constants where it is held."""
        array = np.asarray(tensor)
        kind = array.dtype.kind
        if not _is_batch(array) or kind not in "fb":
            return tensor
        changes = _changes(array)
        if not self._hold:
            self.changing[value] = changes
        noise = self._random(array)
        constant = -noise[:1] if self._turned else noise[:1]
        held = np.where(self.changing[value], constant > 0 if kind == "b" else constant, array[:1])
        return backend.constant(np.where(changes, array if kind == "b" else noise, held), tensor.dtype)

    def _random(self, like: np.ndarray) -> np.ndarray:
        noise = self._rng.standard_normal(like.shape[1:], np.float32)
        factors = np.array([sign * size for size in SIZES for sign in (1, -1)], np.float32)
        return factors.reshape(-1, *(1,) * noise.ndim) * noise


def _varies(tensor: Tensor) -> bool:
    """Whether the images' values differ in the least."""
    array = np.asarray(tensor)
    return _is_batch(array) and bool(np.any(array[1:] != array[:1]))


def _is_batch(array: np.ndarray) -> bool:
    return array.ndim > 0 and len(array) == IMAGES


def _changes(array: np.ndarray) -> np.ndarray:
    """Whether each element of (image, ...) differs between images; a NaN does."""
    if array.dtype.kind != "f":
        return np.any(array[1:] != array[:1], axis=0)
    first, others = array[:1], array[1:]
    with np.errstate(invalid="ignore", over="ignore"):
        same = np.abs(others - first) <= SAME * np.maximum(np.abs(others), np.abs(first))
    return np.logical_not(same.all(axis=0))
