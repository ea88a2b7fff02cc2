"""The same architecture with random weights, as a control (Adebayo et al. 2018, arXiv 1810.03292)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import keras

from augnet.errors import ModelError
from augnet.models.saved_model import SavedModelLayer


def with_random_weights(model: keras.Model, seed: int) -> keras.Model:
    """The model with every weight as its layer's own initializer draws it; the same seed, the same weights.

    What was not learned by gradients but belongs to the architecture stays: the statistics of a Normalization
    layer, whatever else a layer holds that cannot be trained. Those of BatchNormalization are as new.

    Raises:
        ModelError: the model cannot be built anew from its layers.
    """
    if any(isinstance(layer, SavedModelLayer) for layer in _layers(model)):
        raise ModelError(
            "model.control: a SavedModel holds no initializers to draw weights from; give the .keras file"
        )
    state = random.getstate()
    random.seed(seed)  # Keras draws the seeds of initializers from it
    try:
        control = keras.models.clone_model(model)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"model.control: the model cannot be built anew ({error}); a subclassed model needs get_config"
        ) from error
    finally:
        random.setstate(state)
    for layer, trained in zip(_layers(control), _layers(model), strict=True):
        layer.trainable = True  # a layer that was frozen for a fine-tuning was learned before
        fixed = layer.weights and not layer.trainable_weights
        if fixed and not isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights(trained.get_weights())
    return control


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Every layer, those inside of nested models instead of these."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        else:
            yield layer
