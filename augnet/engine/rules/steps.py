"""Steps: operations whose output changes only in jumps, so that no gradient flows; and what they choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from keras import ops

from augnet.engine.graph.graph import Value
from augnet.engine.rules.base import Jvp, Kernels, Pixelwise, Vjp, reduced_to
from augnet.engine.rules.registry import Call, serves
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Step(Pixelwise):
    """Any function whose derivative is zero wherever it has one."""

    function: Callable[..., Tensor]
    passes_gradient: ClassVar[bool] = False

    def __call__(self, *tensors: Tensor) -> Tensor:
        return self.function(*tensors)

    def linearize(self, kernels: Kernels, *tensors: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        return self(*tensors), lambda g: (None,) * len(tensors), lambda *tangents: None


@dataclass(frozen=True, eq=False)
class Where(Pixelwise):
    """Elements of one or another tensor, each broadcast, as a condition says.

    Attributes:
        constants: in the order condition, where it holds, elsewhere; None for what is a tensor.
    """

    constants: tuple[Any, Any, Any]  # numbers and arrays, as Keras takes them
    passes_gradient: ClassVar[bool] = False

    def _filled(self, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        queue = iter(tensors)
        return [next(queue) if constant is None else constant for constant in self.constants]

    def __call__(self, *tensors: Tensor) -> Tensor:
        return ops.where(*self._filled(tensors))

    def linearize(self, kernels: Kernels, *tensors: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        output = self(*tensors)
        condition = ops.cast(self._filled(tensors)[0], "bool")
        is_tensor = [constant is None for constant in self.constants]

        def vjp(g: Tensor) -> tuple[Tensor | None, ...]:
            parts = [None, ops.where(condition, g, 0), ops.where(condition, 0, g)]
            own = [part for part, given in zip(parts, is_tensor, strict=True) if given]
            return tuple(
                None if part is None else reduced_to(part, tuple(tensor.shape))
                for part, tensor in zip(own, tensors, strict=True)
            )

        def jvp(*tangents: Tensor | None) -> Tensor | None:
            queue = iter(tangents)
            _, holds, elsewhere = (next(queue) if given else None for given in is_tensor)
            count = next((part.shape[0] for part in (holds, elsewhere) if part is not None), None)
            if count is None:
                return None
            zero = ops.zeros((), output.dtype)
            chosen = ops.where(
                condition, zero if holds is None else holds, zero if elsewhere is None else elsewhere
            )
            return ops.broadcast_to(chosen, (count, *output.shape))

        return output, vjp, jvp


OPERATIONS = """
All Any Argmax Argmin Ceil Digitize Equal Floor Greater GreaterEqual Heaviside Isclose Isfinite Isinf Isnan
Less LessEqual LogicalAnd LogicalNot LogicalOr LogicalXor NotEqual OneHot OnesLike Round Sign Signbit
StopGradient Trunc ZerosLike
"""


@serves(*OPERATIONS.split())
def _step(op: Op, call: Call) -> list[Step]:
    return [Step(lambda *tensors: call.node(*tensors)[0])]


@serves("Where")
def _where(op: Op, call: Call) -> list[Where] | None:
    if len(call.node.args) != 3 or call.node.kwargs:
        return None
    condition, holds, elsewhere = (None if isinstance(arg, Value) else arg for arg in call.node.args)
    return [Where((condition, holds, elsewhere))]
