"""A change of precision inside a model."""

from __future__ import annotations

from dataclasses import dataclass

from keras import ops

from augnet.engine.graph.graph import Cast
from augnet.engine.rules.base import Jvp, Kernels, Pixelwise, Rule, Vjp
from augnet.engine.rules.registry import Call, serves
from augnet.engine.rules.steps import Step
from augnet.engine.types import Op, Tensor, is_float


@dataclass(frozen=True)
class Convert(Pixelwise):
    """x in another floating-point dtype; cotangents come back in the dtype of x."""

    dtype: str

    def __call__(self, x: Tensor) -> Tensor:
        return ops.cast(x, self.dtype)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, Jvp]:
        def vjp(g: Tensor) -> tuple[Tensor]:
            return (ops.cast(g, x.dtype),)

        return self(x), vjp, self


@serves(Cast, "Cast")
def _cast(op: Op, call: Call) -> list[Rule] | None:
    if len(call.node.inputs) != 1:
        return None
    kinds = {call.node.inputs[0].dtype, op.dtype}
    if not all(map(is_float, kinds)):
        return [Step(op)]
    return [] if len(kinds) == 1 else [Convert(op.dtype)]
