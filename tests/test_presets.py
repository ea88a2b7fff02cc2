"""Networks of keras.applications are known by their layers, and get the pixels they were trained on."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from augnet.engine.graph.graph import trace
from augnet.models.presets import BACKBONES, recognise, suggest_scale

SIZE = (75, 75, 3)  # the smallest that all of them take
apps = keras.applications
NETWORKS = {
    "convnext": apps.ConvNeXtTiny,
    "densenet": apps.DenseNet121,
    "efficientnet": apps.EfficientNetB0,
    "efficientnet_v2": apps.EfficientNetV2B0,
    "inception_resnet_v2": apps.InceptionResNetV2,
    "inception_v3": apps.InceptionV3,
    "mobilenet": apps.MobileNet,
    "mobilenet_v2": apps.MobileNetV2,
    "mobilenet_v3": apps.MobileNetV3Small,
    "nasnet": apps.NASNetMobile,
    "resnet": apps.ResNet50,
    "resnet_v2": apps.ResNet50V2,
    "vgg16": apps.VGG16,
    "vgg19": apps.VGG19,
    "xception": apps.Xception,
}
SCALED_INSIDE = ("convnext", "efficientnet", "efficientnet_v2", "mobilenet_v3")


def network(name, **options):
    return NETWORKS[name](weights=None, include_top=False, input_shape=SIZE, **options)


def test_every_backbone_is_a_module_of_keras_applications():
    assert {backbone.module for backbone in BACKBONES} == set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_recognised(name):
    model = network(name)
    backbone, _ = recognise(trace(model))
    suggestion = suggest_scale(model)
    assert backbone.module == name
    if name in SCALED_INSIDE:  # the inspection finds the layer that does it
        assert suggestion is None
    else:
        assert suggestion.scale == f"keras.applications.{name}"
        assert suggestion.reason == f"its layers are those of keras.applications.{name}"


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (apps.ResNet101, "resnet"),
        (apps.MobileNetV3Large, "mobilenet_v3"),
        (apps.EfficientNetV2S, "efficientnet_v2"),
        (apps.DenseNet169, "densenet"),
    ],
)
def test_larger_members_of_a_family(build, name):
    backbone, _ = recognise(trace(build(weights=None, include_top=False, input_shape=SIZE)))
    assert backbone.module == name


@pytest.mark.parametrize(
    ("name", "scale"),
    [("efficientnet_v2", "minus_one_one"), ("mobilenet_v3", "minus_one_one"), ("convnext", "imagenet")],
)
def test_networks_built_without_their_own_scaling(name, scale):
    assert suggest_scale(network(name, include_preprocessing=False)).scale == scale


def fine_tuned(front, size=SIZE, name="mobilenet_v2", saved=None):
    image = keras.Input(size)
    x = layers.GlobalAveragePooling2D()(
        network(name, **({"alpha": 0.35} if "mobile" in name else {}))(front(image))
    )
    model = keras.Model(image, layers.Dense(2, activation="softmax")(layers.Dropout(0.2)(x)))
    if saved is None:
        return model
    model.save(saved)
    return keras.saving.load_model(saved)


def same(x):
    return x


def test_a_fine_tuned_and_saved_network(tmp_path):
    model = fine_tuned(layers.RandomFlip("horizontal"), saved=tmp_path / "model.keras")
    assert suggest_scale(model).scale == "keras.applications.mobilenet_v2"


def test_a_network_cut_in_the_middle():
    whole = network("resnet")
    cut = keras.Model(whole.input, layers.Flatten()(whole.get_layer("conv2_block3_out").output))
    assert suggest_scale(cut).scale == "keras.applications.resnet"


@pytest.mark.parametrize(
    ("front", "size", "scale"),
    [
        (layers.Rescaling(1 / 127.5, offset=-1), SIZE, "none"),
        (lambda x: x / 127.5 - 1, SIZE, "none"),
        (layers.Rescaling(2.0, offset=-1), SIZE, "unit"),
        (lambda x: layers.Resizing(75, 75)(x), (None, None, 3), "keras.applications.mobilenet_v2"),
        (lambda x: layers.Concatenate()([x, x, x]), (75, 75, 1), "keras.applications.mobilenet_v2"),
    ],
    ids=["Rescaling", "operations", "from unit", "Resizing", "grey"],
)
def test_what_lies_in_front_of_the_network_counts(front, size, scale):
    assert suggest_scale(fine_tuned(front, size)).scale == scale


def test_preprocess_input_inside_the_model():
    model = fine_tuned(apps.resnet.preprocess_input, name="resnet")
    suggestion = suggest_scale(model)
    assert suggestion.scale == "none" and "does its preprocess_input" in suggestion.reason


def test_a_network_that_was_trained_on_something_else_gets_no_suggestion():
    assert suggest_scale(fine_tuned(layers.Rescaling(1 / 255))) is None


def test_other_networks_are_not_recognised():
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Conv2D(4, 3, name="conv1"), layers.Flatten(), layers.Dense(2)]
    )
    assert suggest_scale(model) is None
    subclass = type("Own", (keras.Model,), {"call": lambda self, x: x})()
    subclass(np.zeros((1, 8, 8, 3)))
    assert suggest_scale(subclass) is None
