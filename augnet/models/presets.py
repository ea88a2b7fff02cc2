"""Networks of keras.applications, known by their layers, and the scale of pixels that they were trained on.

A fine-tuned network keeps the layers of the original, and the person who audits it forgets that a ResNet50
takes BGR without ImageNet's mean. So the layers' names and kernels say which module's `preprocess_input` is
meant, unless what lies in front of the network does that already.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import keras
import numpy as np

from augnet.config import APPLICATIONS
from augnet.engine.graph.graph import Graph, Node, trace
from augnet.errors import ModelError
from augnet.models.explain import LOADING_ERRORS
from augnet.models.one_image import RAW_PIXELS

COLOURS = ((0, 0, 0), (255, 255, 255), (200, 30, 90), (17, 140, 250))
GREYS = ((0,), (255,), (60,), (200,))
"""Constant images that are sent through what lies in front of a network."""
OPEN_AXIS = 96
"""Height and width at which a model that leaves them open is looked at."""
SAME = 1e-3
"""Difference of what reaches a network from what it was trained on, as a share of that one's range."""


@dataclass(frozen=True)
class Backbone:
    """How the networks of one module of keras.applications are known.

    Attributes:
        module: its name below keras.applications.
        stem: name of the first layer with weights, as a pattern.
        kernel: shape of that layer's kernel; None for any length.
        others: names of layers that must be there too, as patterns.
        bare: the module's preprocess_input does nothing, as its networks scale by themselves. Built with
            include_preprocessing=False they take this scale instead.
    """

    module: str
    stem: str
    kernel: tuple[int | None, ...]
    others: tuple[str, ...]
    bare: str = ""


BACKBONES = (
    Backbone("resnet", "conv1_conv", (7, 7, 3, 64), ("conv1_bn", "conv2_block1_0_conv")),
    Backbone("resnet", "conv1", (7, 7, 3, 64), ("bn_conv1", "res2a_branch2a")),  # as named up to Keras 2.2
    Backbone("resnet_v2", "conv1_conv", (7, 7, 3, 64), ("conv2_block1_preact_bn", "conv2_block1_1_conv")),
    Backbone("densenet", "conv1_conv", (7, 7, 3, 64), ("conv2_block1_0_bn", "conv2_block1_1_conv")),
    Backbone("vgg19", "block1_conv1", (3, 3, 3, 64), ("block1_conv2", "block3_conv4")),
    Backbone("vgg16", "block1_conv1", (3, 3, 3, 64), ("block1_conv2", "block2_conv1")),
    Backbone("xception", "block1_conv1", (3, 3, 3, 32), ("block1_conv1_bn", "block2_sepconv1")),
    Backbone("inception_v3", r"conv2d(_\d+)?", (3, 3, 3, 32), ("mixed0",)),
    Backbone("inception_resnet_v2", r"conv2d(_\d+)?", (3, 3, 3, 32), ("mixed_5b",)),
    Backbone("mobilenet", "conv1", (3, 3, 3, None), ("conv_dw_1", "conv_pw_1")),
    Backbone("mobilenet_v2", "Conv1", (3, 3, 3, None), ("bn_Conv1", "expanded_conv_depthwise")),
    Backbone("mobilenet_v3", "[cC]onv", (3, 3, 3, 16), ("expanded_conv_depthwise",), bare="minus_one_one"),
    Backbone("nasnet", "stem_conv1", (3, 3, 3, None), ("stem_bn1", r"(reduction|normal|adjust)_conv_.*")),
    Backbone("efficientnet", "stem_conv", (3, 3, 3, None), ("block1a_dwconv", "block1a_se_reduce")),
    Backbone("efficientnet_v2", "stem_conv", (3, 3, 3, None), ("block1a_project_conv",), "minus_one_one"),
    Backbone(
        "convnext",
        r"convnext_\w+_stem_conv",
        (4, 4, 3, None),
        (r"convnext_\w+_stage_0_block_0_depthwise_conv",),
        "imagenet",
    ),
)
"""The first that fits counts."""


@dataclass(frozen=True)
class Suggestion:
    """The scale of pixels that a model shows.

    Attributes:
        scale: a value of preprocess.scale.
        reason: what in the model says so, as a clause.
    """

    scale: str
    reason: str


def suggest_scale(model: keras.Model, output: int | str | None = None) -> Suggestion | None:
    """The scale that the model's layers show it was trained with; None where they show nothing.

    Args:
        model: of one image.
        output: which of several outputs.
    """
    try:
        graph = trace(model, output)
    except ModelError:  # the inspection says so better
        return None
    if graph is None:
        return None
    if found := recognise(graph):
        backbone, stem = found
        if suggestion := _in_front_of(graph, backbone, stem):
            return suggestion
    if any(layer.name == RAW_PIXELS for layer in graph.layers()):
        return Suggestion("none", "the model's input was declared as integers")
    return None


def recognise(graph: Graph) -> tuple[Backbone, Node] | None:
    """The network of keras.applications that is part of a model, and the node of its first layer."""
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        if isinstance(node.source, keras.layers.Layer):
            nodes.setdefault(node.source.name.replace("/", "_"), node)
    for backbone in BACKBONES:
        if all(any(re.fullmatch(other, name) for name in nodes) for other in backbone.others):
            for name, node in nodes.items():
                if re.fullmatch(backbone.stem, name) and _has_kernel(node, backbone.kernel):
                    return backbone, node
    return None


def _has_kernel(node: Node, kernel: tuple[int | None, ...]) -> bool:
    weights = getattr(node.source, "weights", ())
    if not weights or len(weights[0].shape) != len(kernel):
        return False
    return all(b in (None, a) for a, b in zip(weights[0].shape, kernel, strict=True))


def _in_front_of(graph: Graph, backbone: Backbone, stem: Node) -> Suggestion | None:
    """The scale with which the network gets what it was trained on, through what lies in front of it."""
    module = APPLICATIONS + backbone.module
    found = f"its layers are those of {module}"
    grey = len(graph.input.shape) == 2 or graph.input.shape[-1] == 1
    pixels = np.array(GREYS if grey else COLOURS, "float32")
    colours = np.repeat(pixels, 3, axis=1) if grey else pixels
    try:
        raw, unit = (_arriving(graph, stem, given) for given in (pixels, pixels / 255))
    except LOADING_ERRORS:  # it takes something else than images of three channels or one
        return None
    if backbone.bare:
        without = Suggestion(backbone.bare, f"{found}, built without its own preprocessing")
        return without if _same(raw, colours) else None
    preprocess_input = getattr(keras.applications, backbone.module).preprocess_input
    trained_on = np.asarray(preprocess_input(colours[:, None, None].copy()))[:, 0, 0]
    if _same(raw, colours) and not _same(trained_on, colours):
        return Suggestion(module, found)
    if _same(raw, trained_on) and not _same(raw, colours):
        return Suggestion("none", f"{found}, and what is in front of them does its preprocess_input")
    if _same(unit, trained_on):
        return Suggestion(
            "unit", f"{found}, and what is in front of them makes its preprocess_input of [0, 1]"
        )
    return None


def _arriving(graph: Graph, stem: Node, colours: np.ndarray) -> np.ndarray:
    """What reaches the network's first layer in the middle of images of one colour: (image, 3).

    Raises:
        ValueError: that is no image of three channels.
    """
    height, width, *channel = (size or OPEN_AXIS for size in graph.input.shape)
    images = np.broadcast_to(colours[:, None, None], (len(colours), height, width, colours.shape[-1]))
    front = Graph(graph.input, stem.inputs[0], graph.nodes).pruned()
    given = keras.ops.convert_to_tensor(images if channel else images[..., 0])
    arriving = keras.ops.convert_to_numpy(front(given))
    if arriving.ndim != 4 or arriving.shape[-1] != 3:
        raise ValueError(f"images of shape {arriving.shape[1:]}")
    return arriving[:, arriving.shape[1] // 2, arriving.shape[2] // 2].astype(np.float64)


def _same(arriving: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(arriving - expected).max() <= SAME * np.ptp(expected))
