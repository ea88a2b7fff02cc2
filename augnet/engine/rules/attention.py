"""Attention: dot products of queries and keys say how much of each value is taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import layers, ops

from augnet.engine.graph.graph import Node, Value
from augnet.engine.rules.base import Kernels, Rule, Vjp
from augnet.engine.rules.combining import Add
from augnet.engine.rules.dense import Dense
from augnet.engine.rules.einsum import Einsum
from augnet.engine.rules.elementwise import ElementFunction
from augnet.engine.rules.registry import Call, serves, weights_of
from augnet.engine.rules.shaping import Reshape
from augnet.engine.rules.softmax import Softmax, softmax_product
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Attention(Rule):
    """softmax(q k^T scale) v for each head; q, k, v are (batch, position, head * width).

    Vaswani et al. 2017, arXiv 1706.03762.
    """

    heads: int
    scale: float

    def _heads(self, x: Tensor) -> Tensor:
        """(..., position, head * width) -> (..., head, position, width)."""
        split = ops.reshape(x, (*x.shape[:-1], self.heads, x.shape[-1] // self.heads))
        return ops.swapaxes(split, -3, -2)

    def _joined(self, x: Tensor) -> Tensor:
        x = ops.swapaxes(x, -3, -2)
        return ops.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))

    def _weights(self, q: Tensor, k: Tensor) -> Tensor:
        return ops.softmax(ops.matmul(q * self.scale, _swapped(k)), axis=-1)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = self._heads(q), self._heads(k), self._heads(v)
        return self._joined(ops.matmul(self._weights(q, k), v))

    def linearize(self, kernels: Kernels, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Vjp, None]:
        q, k, v = self._heads(q), self._heads(k), self._heads(v)
        p = self._weights(q, k)
        turned = _swapped(p)

        def vjp(g: Tensor) -> tuple[Tensor, ...]:
            g = self._heads(g)
            scores = softmax_product(p, ops.matmul(g, _swapped(v))) * self.scale
            parts = ops.matmul(scores, k), ops.matmul(_swapped(scores), q), ops.matmul(turned, g)
            return tuple(self._joined(part) for part in parts)

        return self._joined(ops.matmul(p, v)), vjp, None


def _swapped(x: Tensor) -> Tensor:
    return ops.swapaxes(x, -1, -2)


@serves(layers.MultiHeadAttention)
def _multi_head(layer: Op, call: Call) -> list[Node] | None:
    """Query, key and value by dense layers, attention by its rule, and a dense layer over the heads."""
    node = call.node
    named: dict[str, Any] = dict(zip(("query", "value", "key"), node.args, strict=False)) | node.kwargs
    if len(node.inputs) not in (2, 3) or len(node.outputs) != 1:
        return None
    if not all(isinstance(named.get(name), Value) for name in ("query", "value")):
        return None
    query, value = named["query"], named["value"]
    key: Value = named["key"] if isinstance(named.get("key"), Value) else value
    if any(len(call.shapes[part]) != 2 for part in (query, key, value)) or layer._output_shape is not None:
        return None
    if (
        getattr(layer, "_use_gate", False)
        or getattr(layer, "_sliding_window", None)
        or layer._attention_axes != (1,)
    ):
        return None

    def dense(inner: Op, inputs: int) -> Dense:
        bias = None if inner.bias is None else weights_of(inner.bias).reshape(-1)
        return Dense(weights_of(inner.kernel).reshape(inputs, -1), bias)

    heads, scale = layer._num_heads, 1 / float(layer._key_dim) ** 0.5
    projections = (layer._query_dense, query), (layer._key_dense, key), (layer._value_dense, value)
    parts = [call.put(dense(inner, call.shapes[part][-1]), part) for inner, part in projections]
    mixed = call.put(Attention(heads, scale), *parts)
    call.put(dense(layer._output_dense, heads * layer._value_dim), mixed)
    return call.replacement()


def _query_key_value(call: Call) -> tuple[Value, Value, Value] | None:
    """What Keras' plain attention layers take as a list: query, value and perhaps key."""
    given = call.node.args[0]
    if len(call.node.args) != 1 or not isinstance(given, list | tuple) or len(call.node.outputs) != 1:
        return None
    if len(given) not in (2, 3) or any(len(shape) != 2 for shape in call.inputs):
        return None
    return given[0], given[2] if len(given) == 3 else given[1], given[1]


@serves(layers.Attention)
def _attention(layer: Op, call: Call) -> list[Node] | None:
    parts = _query_key_value(call)
    if parts is None or layer.score_mode != "dot":
        return None
    scale = 1.0 if layer.scale is None else float(weights_of(layer.scale))
    call.put(Attention(1, scale), *parts)
    return call.replacement()


@serves(layers.AdditiveAttention)
def _additive_attention(layer: Op, call: Call) -> list[Node] | None:
    """softmax(sum scale * tanh(q + k)) v, the sum over channels (Bahdanau et al. 2014, arXiv 1409.0473)."""
    parts = _query_key_value(call)
    if parts is None:
        return None
    query, key, value = parts
    (targets, channels), (sources, _) = call.shapes[query], call.shapes[key]
    weights = weights_of(layer.scale) if layer.use_scale else np.ones(channels)
    q = call.put(Reshape((targets, 1, channels)), query)
    k = call.put(Reshape((1, sources, channels)), key)
    bent = call.put(ElementFunction(ops.tanh), call.put(Add((1, 1)), q, k))
    scores = call.put(Dense(weights.reshape(-1, 1)), bent)
    share = call.put(Softmax(), call.put(Reshape((targets, sources)), scores))
    call.put(Einsum(("abc", "acd"), "abd"), share, value)
    return call.replacement()
