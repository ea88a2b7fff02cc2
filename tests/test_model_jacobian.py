"""AugNet by derivative rules: the same results as a float64 tape over the model itself, whatever it is."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from augnet import AugNet
from augnet.engine import row_program
from augnet.models import model_jacobian


def cnn():
    inner = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(0.5),
            layers.Flatten(),
        ]
    )
    steps = [layers.Conv2D(4, 3, padding="same", activation="relu"), inner, layers.Dense(5)]
    return keras.Sequential([keras.Input((8, 8, 2)), *steps, layers.Softmax()])


def separable():
    image = keras.Input((9, 8))
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2, padding="same")(layers.Reshape((9, 8, 1))(image))
    x = layers.MaxPooling2D(3, 2)(layers.BatchNormalization()(layers.ReLU()(x)))
    x = layers.DepthwiseConv2D(2, strides=2, activation="relu6")(x)
    return keras.Model(image, layers.Dense(5)(layers.Dense(3, activation="tanh")(layers.Flatten()(x))))


def with_axes():
    image = keras.Input((None, None, 2))
    x = layers.Concatenate()([layers.Conv2D(2, 3, padding="same", activation="gelu")(image), image])
    return keras.Model(image, layers.Softmax()(layers.Conv2D(3, 2)(x)))


def flat():
    hidden = [layers.Normalization(mean=0.5, variance=2.0), layers.Dense(12, activation="relu")]
    return keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(9), layers.LeakyReLU()])


SHAPES = {cnn: (8, 8, 2), separable: (9, 8), with_axes: (4, 5, 2), flat: (4,)}


def built(make, dtype="float32"):
    """The model, its weights as after a training, in float32 or float64."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    keras.config.set_floatx(dtype)
    try:
        model = make()
    finally:
        keras.config.set_dtype_policy(before)
        keras.config.set_floatx("float32")
    rng = np.random.default_rng(4)
    for variable in model.weights:
        low = 0.2 if len(variable.shape) == 1 else -0.5  # variances are positive
        variable.assign(rng.uniform(low, 0.7, variable.shape))
    return AugNet.from_model(model)


def points(make, count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *SHAPES[make])).astype("float32")


def by_tape(model, x):
    """(batch, outputs..., inputs...) in float64, a gradient for each value of each sample."""
    make = next(make for make, shape in SHAPES.items() if x.shape[1:] == shape)
    wide = built(make, "float64")
    wide.set_weights(model.get_weights())
    samples = []
    for sample in x:
        at = tf.constant(sample[None], tf.float64)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(at)
            outputs = wide(at, training=False)
            values = tf.unstack(tf.reshape(outputs, (-1,)))
        rows = [tape.gradient(value, at)[0] for value in values]
        samples.append(np.reshape(np.stack(rows), (*outputs.shape[1:], *sample.shape)))
    return np.stack(samples)


@pytest.fixture
def ways(caplog):
    """By which way every batch was computed so far, since it was last asked."""
    caplog.set_level(logging.DEBUG, "augnet.models.model_jacobian")

    def taken():
        words = [
            record.getMessage() for record in caplog.records if record.name == "augnet.models.model_jacobian"
        ]
        caplog.clear()
        return [word.split()[-1] for word in words if "Jacobian of" in word]

    return taken


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", SHAPES)
def test_rules_give_what_a_tape_gives(make, dtype, ways):
    model, x = built(make, dtype), points(make, 7)
    truth = by_tape(model, x)
    tolerance = 1e-5 if dtype == "float32" else 1e-7  # Keras may round a constant of a layer to float32
    for count in (3, 1, 7, 3, 1, 7, 5):
        made = model.return_jacobian(x[:count])
        assert made.dtype == dtype
        np.testing.assert_allclose(made, truth[:count], atol=tolerance)
    assert ways() == ["rules"] * 7
    rows = truth.reshape(7, -1, *SHAPES[make])
    for _ in range(2):
        np.testing.assert_allclose(
            model.jacobian(x, outputs=[2, 0], batch_size=3), rows[:, [2, 0]], atol=tolerance
        )
    np.testing.assert_allclose(
        model.jacobian(x, outputs=[1, 4], batch_size=3), rows[:, [1, 4]], atol=tolerance
    )
    np.testing.assert_allclose(model.jacobian(x, outputs=3, batch_size=7), rows[:, 3], atol=tolerance)
    assert set(ways()) == {"rules"}
    np.testing.assert_allclose(model.jacobian(x, batch_size=4), truth, atol=tolerance)


@pytest.mark.parametrize("make", SHAPES)
def test_every_change_of_the_weights_is_seen(make, ways):
    model, x = built(make), points(make, 3)
    model.return_jacobian(x)
    weight = model.weights[-2]
    value = weight.numpy().copy()
    value.flat[0] = np.nextafter(value.flat[0], 9)  # one bit
    weight.assign(value)
    model.return_jacobian(x)
    assert ways() == ["rules", "tape"]
    for factor in (0.5, 1.5):
        weight.assign(factor * value)
        truth = by_tape(model, x)
        for _ in range(2):
            np.testing.assert_allclose(model.return_jacobian(x), truth, atol=1e-5)
        assert ways() == ["tape", "rules"]


def test_training_between_calls_is_seen(ways):
    model, x = built(cnn), points(cnn, 6)
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss="mse")
    before = model.jacobian(x, batch_size=2)
    model.fit(x, np.ones((6, 5), "float32"), verbose=0)
    after = model.jacobian(x, batch_size=2)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, by_tape(model, x), atol=1e-5)
    assert ways() == ["rules"] * 3 + ["tape"] * 3


@pytest.mark.parametrize("make", SHAPES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_harms_no_other(make, value, ways):
    model, x = built(make), points(make, 3)
    expected = model.return_jacobian(x).numpy()
    x[1].flat[-1] = value
    made = model.return_jacobian(x).numpy()
    assert ways() == ["rules", "rules"] and np.isnan(made[1]).all()
    np.testing.assert_array_equal(made[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize(
    "make",
    [
        layers.ReLU,
        layers.LeakyReLU,
        lambda: layers.ReLU(max_value=6),
        lambda: layers.ReLU(max_value=1),
        lambda: layers.ReLU(negative_slope=0.1),
        lambda: layers.MaxPooling2D(2),
        lambda: layers.MaxPooling2D(3, 1),
    ],
)
def test_kinks_are_taken_as_tensorflow_takes_them(make, ways):
    image = keras.Input((4, 4, 1))
    model = AugNet(image, layers.Flatten()(make()(image)))
    values = [-3, -1, 0, 0.5, 1, 2, 3, 6, 7, 6, 1, 0, 0, 0, -0.0, 6]
    x = np.reshape(np.array(values, "float32"), (1, 4, 4, 1))
    made = model.return_jacobian(x)
    assert ways() == ["rules"]
    at = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(at)
        outputs = model(at, training=False)
    expected = tape.batch_jacobian(outputs, at)
    np.testing.assert_array_equal(made, np.reshape(expected, made.shape))


def test_more_samples_than_fit_are_done_in_parts(monkeypatch, ways):
    monkeypatch.setattr(row_program, "BATCH_ELEMENTS", 4 * 256)  # the widest tensor of cnn has 256
    model, x = built(cnn), points(cnn, 9)
    np.testing.assert_allclose(model.return_jacobian(x), by_tape(model, x), atol=1e-5)
    assert ways() == ["rules"] * 3


def test_programs_are_few(monkeypatch):
    monkeypatch.setattr(model_jacobian, "MOST_PROGRAMS", 2)
    model, x = built(flat), points(flat, 9)
    truth = by_tape(model, x)
    for count in (1, 3, 9, 1):
        np.testing.assert_allclose(model.return_jacobian(x[:count]), truth[:count], atol=1e-5)
        assert len(model._jacobian._programs) <= 2


def test_prepare_compiles_ahead_and_the_calls_use_it(ways):
    model, x = built(cnn), points(cnn, 9)
    model.prepare(batch_size=4, outputs=[1, 3])
    (program,) = model._jacobian._programs.values()
    assert program.batch_size == 4
    expected = by_tape(model, x)[:, [1, 3]]
    np.testing.assert_allclose(model.jacobian(x, outputs=[1, 3], batch_size=4), expected, atol=1e-5)
    assert list(model._jacobian._programs.values()) == [program]


def test_prepare_says_what_to_do_where_sizes_are_open():
    with pytest.raises(ValueError, match=r"prepare: .*open.*call jacobian on one batch"):
        built(with_axes).prepare()


def test_after_long_use_programs_are_timed_once(monkeypatch, ways):
    monkeypatch.setattr(model_jacobian, "TUNED_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(model_jacobian.CompiledRows, "tune", lambda self: tuned.append(self))
    tuned, model, x = [], built(cnn), points(cnn, 4)
    model.return_jacobian(x)
    next(iter(model._jacobian._programs.values())).spent_seconds = 1e3
    np.testing.assert_allclose(model.return_jacobian(x), by_tape(model, x), atol=1e-5)
    assert len(tuned) == 1


def test_rules_that_disagree_are_not_used(monkeypatch, ways, caplog):
    from augnet.engine.rules.dense import Dense

    linearize = Dense.linearize

    def wrong(self, kernels, x):
        output, vjp, jvp = linearize(self, kernels, x)
        return output, lambda g: tuple(1.01 * part for part in vjp(g)), jvp

    monkeypatch.setattr(Dense, "linearize", wrong)
    model, x = built(flat), points(flat, 2)
    for _ in range(2):
        np.testing.assert_allclose(model.return_jacobian(x), by_tape(model, x), atol=1e-5)
    assert ways() == ["tape", "tape"]


def lstm():
    steps = keras.Input((5, 3))
    return AugNet(steps, layers.SimpleRNN(4)(steps))


def mixed():
    inputs = keras.Input((4,))
    return AugNet(inputs, layers.Dense(3)(layers.Dense(3, dtype="mixed_bfloat16")(inputs)))


def two_outputs():
    inputs = keras.Input((4,))
    return AugNet(inputs, [layers.Dense(3)(inputs), layers.Dense(2)(inputs)])


@pytest.mark.parametrize("make", [lstm, mixed, two_outputs])
def test_other_models_go_by_the_tape(make, ways):
    model = make()
    x = np.random.default_rng(0).normal(size=(2, *model.inputs[0].shape[1:]))
    for _ in range(2):
        model.return_jacobian(x)
    assert ways() == ["tape", "tape"]
