"""Any linear function: the backend knows its transpose."""

from __future__ import annotations

from dataclasses import dataclass

from keras import layers

from augnet.engine.backends import backend
from augnet.engine.graph.graph import Node, Value
from augnet.engine.rules.base import Kernel, Kernels, Rule, Vjp, on_rows
from augnet.engine.rules.registry import Call, existing_layers, serves
from augnet.engine.types import Op, Tensor


@dataclass(frozen=True, eq=False)
class Linear(Rule):
    """Any linear function of one tensor, plus a constant."""

    function: Kernel

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)

    def linearize(self, kernels: Kernels, x: Tensor) -> tuple[Tensor, Vjp, None]:
        def back(g: Tensor) -> Tensor:
            return backend.transposed(self.function, (g.shape[0], *x.shape[1:]), g)

        return self(x), lambda g: (on_rows(back)(g),), None


@serves(
    *(layers.Resizing, layers.UpSampling3D, layers.AveragePooling3D, layers.RepeatVector),
    *(layers.ZeroPadding3D, layers.Cropping3D),
    *existing_layers("AdaptiveAveragePooling1D", "AdaptiveAveragePooling2D", "AdaptiveAveragePooling3D"),
)
def _linear_layer(layer: Op, call: Call) -> list[Rule]:
    return [Linear(call.node.op)]


OPERATIONS = """
AdaptiveAveragePool AffineTransform BroadcastTo Conv ConvTranspose CropImages Cross Cumsum DepthToSpace
DepthwiseConv Diagonal Diff Dot ExtractPatches Flip Fliplr Fold GaussianBlur GetItem Inner Kron Mean
Moveaxis Outer Pad PadImages RGBToGrayscale Repeat Resize Roll Rot90 ScaleAndTranslate SeparableConv Slice
SobelEdges SpaceToDepth Sum Swapaxes Take TakeAlongAxis Tensordot Tile Trace Transpose Trapezoid Tril Triu
Unfold
"""


@serves(*OPERATIONS.split())
def linear_operation(op: Op, call: Call) -> list[Rule] | None:
    """An operation that is linear in its first argument, the only tensor of it."""
    if len(call.node.inputs) != 1 or not isinstance(call.node.args[0], Value):
        return None
    return [Linear(lambda x: call.node(x)[0])]


@serves("ArraySplit", "Dsplit", "Hsplit", "Split", "Unstack", "Vsplit")
def _parts(op: Op, call: Call) -> list[Node] | None:
    """One operation for each part, as a rule has one output."""
    if len(call.node.inputs) != 1:
        return None

    def part(number: int) -> Kernel:
        return lambda x: call.node(x)[number]

    (value,) = call.node.inputs
    for number, output in enumerate(call.node.outputs):
        call.put(Linear(part(number)), value, output=output)
    return call.nodes
