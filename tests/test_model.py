"""AugNet against closed forms, finite differences in float64, and every kind of model and input it takes."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from augnet import AugNet

# Keras' own, under NumPy 2, when it writes a model's variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def points(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def linear(**options):
    inputs = keras.Input((4,), **options)
    return AugNet(inputs=inputs, outputs=layers.Dense(3, dtype=options.get("dtype", "float32"))(inputs))


def small_cnn(name=None):
    inputs = keras.Input((8, 8, 2), name="image")
    x = layers.Conv2D(4, 3, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(layers.Flatten()(layers.MaxPooling2D()(x)))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name=name)


def differences(model, x, step=1e-6):
    """Central differences (batch, outputs..., inputs...) of a float64 model."""
    columns = []
    for index in np.ndindex(x.shape[1:]):
        moved = np.zeros_like(x)
        moved[(slice(None), *index)] = step
        columns.append((model(x + moved) - model(x - moved)) / (2 * step))
    stacked = np.stack(columns, axis=-1)
    return stacked.reshape(*stacked.shape[:-1], *x.shape[1:])


def test_linear_model_has_its_kernel():
    model = linear()
    x = points(5, 4)
    jacobian = model.return_jacobian(x)
    assert isinstance(jacobian, tf.Tensor) and jacobian.shape == (5, 3, 4) and jacobian.dtype == tf.float32
    np.testing.assert_allclose(
        jacobian, np.broadcast_to(model.layers[1].kernel.numpy().T, (5, 3, 4)), rtol=1e-6
    )


def test_softplus_has_the_logistic_function_as_its_slope():
    inputs = keras.Input((6,))
    x = points(3, 6)
    jacobian = AugNet(inputs=inputs, outputs=keras.ops.softplus(inputs)).return_jacobian(x)
    expected = np.stack([np.diag(row) for row in 1 / (1 + np.exp(-x))])
    np.testing.assert_allclose(jacobian, expected, rtol=1e-5)


def test_quadratic_form():
    matrix = points(4, 4)
    inputs = keras.Input((4,))
    product = keras.ops.matmul(inputs, matrix)
    x = points(3, 4, seed=1)
    jacobian = AugNet(inputs, keras.ops.sum(inputs * product, axis=1)).return_jacobian(x)
    np.testing.assert_allclose(jacobian, x @ (matrix + matrix.T), rtol=1e-5)  # no output axis: (batch, 4)


def test_finite_differences_in_float64():
    inputs = keras.Input((5, 5, 1), dtype="float64")
    x = layers.Conv2D(3, 3, activation="tanh", dtype="float64")(inputs)
    x = layers.Dense(4, activation="softmax", dtype="float64")(layers.Flatten(dtype="float64")(x))
    model = AugNet(inputs, x)
    at = points(2, 5, 5, 1, dtype="float64")
    jacobian = model.return_jacobian(at)
    assert jacobian.dtype == tf.float64 and jacobian.shape == (2, 4, 5, 5, 1)
    np.testing.assert_allclose(jacobian, differences(model, at), atol=1e-8)


@pytest.mark.parametrize("convert", [tf.constant, tf.Variable, keras.Variable, np.ndarray.tolist, np.float64])
def test_kinds_of_input(convert):
    model = linear()
    x = points(2, 4)
    np.testing.assert_array_equal(model.return_jacobian(convert(x)), model.return_jacobian(x))


def test_whole_numbers_and_booleans_become_the_models_float():
    inputs = keras.Input((2,))
    model = AugNet(inputs, inputs**2)
    np.testing.assert_array_equal(model.return_jacobian(np.array([[1, 3]], "uint8"))[0], [[2, 0], [0, 6]])
    np.testing.assert_array_equal(model.return_jacobian([[True, False]])[0], [[2, 0], [0, 0]])


def test_several_inputs_and_outputs_as_dictionaries():
    a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
    sum_, own = keras.ops.sum(a, axis=1, keepdims=True) * b, 5 * a
    model = AugNet(inputs={"b": b, "a": a}, outputs={"product": sum_, "own": own})
    x = {"a": points(4, 2), "b": points(4, 3)}
    jacobian = model.return_jacobian(x)
    assert {k: set(v) for k, v in jacobian.items()} == {"product": {"a", "b"}, "own": {"a", "b"}}
    np.testing.assert_allclose(jacobian["product"]["a"], np.repeat(x["b"][:, :, None], 2, axis=2), rtol=1e-6)
    np.testing.assert_allclose(jacobian["own"]["a"], np.broadcast_to(5 * np.eye(2), (4, 2, 2)))
    np.testing.assert_array_equal(jacobian["own"]["b"], np.zeros((4, 2, 3)))  # unconnected
    host = model.jacobian(x, batch_size=3)
    assert isinstance(host["product"]["b"], np.ndarray)
    np.testing.assert_array_equal(host["product"]["b"], jacobian["product"]["b"])
    with pytest.raises(ValueError, match="structure of the model's inputs"):
        model.return_jacobian({"a": x["a"]})
    with pytest.raises(ValueError, match="this model has 2"):
        model.jacobian(x, outputs=0)


def test_several_inputs_as_a_list():
    first, second = keras.Input((2,), name="first"), keras.Input((2,), name="second")
    model = AugNet([first, second], [first * second, second])
    x, y = points(3, 2), points(3, 2, seed=1)
    jacobian = model.return_jacobian([x, y])
    assert isinstance(jacobian, list) and [len(part) for part in jacobian] == [2, 2]
    np.testing.assert_allclose(jacobian[0][0], np.stack([np.diag(row) for row in y]))
    np.testing.assert_array_equal(model.return_jacobian({"second": y, "first": x})[0][0], jacobian[0][0])
    np.testing.assert_array_equal(model.return_jacobian((x.tolist(), y.tolist()))[0][0], jacobian[0][0])
    with pytest.raises(ValueError, match=r"same number of samples, got \[3, 2\]"):
        model.return_jacobian([x, y[:2]])


def test_inference_mode_always():
    trained = small_cnn()
    trained.compile(optimizer="sgd", loss="mse")
    trained.fit(points(16, 8, 8, 2), points(16, 3), verbose=0)
    model = AugNet.from_model(trained)
    x = points(3, 8, 8, 2, seed=2)
    before = [weight.numpy() for weight in model.weights]
    jacobian = model.return_jacobian(x)
    constant = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(constant)
        outputs = trained(constant, training=False)
    np.testing.assert_allclose(jacobian, tape.batch_jacobian(outputs, constant), atol=1e-6)
    np.testing.assert_array_equal(jacobian, model.return_jacobian(x))
    assert all(np.array_equal(a, w.numpy()) for a, w in zip(before, model.weights, strict=True))


def test_training_after_construction_is_seen():
    model = linear()
    x = points(8, 4)
    before = model.return_jacobian(x).numpy()
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    model.fit(x, points(8, 3), verbose=0)
    after = model.return_jacobian(x).numpy()
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(after[0], model.layers[1].kernel.numpy().T, rtol=1e-6)


def test_programs_are_compiled_once():
    traces = []
    inputs = keras.Input((4,))

    class Counting(layers.Layer):
        def call(self, x):
            traces.append(x.shape)
            return x * 2

    model = AugNet(inputs, Counting()(inputs))
    sizes = (3, 7, 2)

    def call_all():
        for size in sizes:
            model.return_jacobian(points(size, 4))
            model.jacobian(points(size, 4), outputs=[1, 3], batch_size=2)

    call_all()
    count = len(traces)
    call_all()
    assert len(traces) == count


@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_jacobian_in_batches_is_the_whole(count):
    model = AugNet.from_model(small_cnn())
    x = points(count, 8, 8, 2)
    whole = model.return_jacobian(x)
    host = model.jacobian(x, batch_size=4)
    assert isinstance(host, np.ndarray) and host.shape == (count, 3, 8, 8, 2) == tuple(whole.shape)
    np.testing.assert_allclose(host, whole, atol=1e-7)
    np.testing.assert_allclose(model.jacobian(x, outputs=[2, 0], batch_size=3), host[:, [2, 0]], atol=1e-7)
    np.testing.assert_allclose(model.jacobian(x, outputs=0, batch_size=3), host[:, 0], atol=1e-7)
    np.testing.assert_allclose(model.jacobian(x, outputs=np.int64(1)), host[:, 1], atol=1e-7)


def test_rows_of_an_output_with_axes_and_open_sizes():
    inputs = keras.Input((None, None, 1))
    model = AugNet(inputs, layers.Conv2D(2, 3, padding="same")(inputs))
    x = points(2, 4, 3, 1)
    whole = model.jacobian(x)
    assert whole.shape == (2, 4, 3, 2, 4, 3, 1)
    np.testing.assert_allclose(model.jacobian(x, outputs=[23, 0]), whole.reshape(2, 24, 4, 3, 1)[:, [23, 0]])
    with pytest.raises(ValueError, match="24 outputs are numbered from 0 to 23"):
        model.jacobian(x, outputs=24)


@pytest.mark.parametrize(
    ("outputs", "error", "words"),
    [
        (3, ValueError, "0 to 2"),
        ([-1], ValueError, "0 to 2"),
        ([], ValueError, "one or more"),
        ([[0]], ValueError, "one or more"),
        (1.5, TypeError, "whole number"),
        (True, TypeError, "whole number"),
        ("top:2", TypeError, "whole number"),
    ],
)
def test_bad_rows(outputs, error, words):
    with pytest.raises(error, match=words):
        linear().jacobian(points(2, 4), outputs=outputs)


@pytest.mark.parametrize("size", [0, -1, 2.0, None, True])
def test_bad_batch_size(size):
    with pytest.raises(ValueError, match="batch_size"):
        linear().jacobian(points(2, 4), batch_size=size)


def test_fixed_batch_size():
    inputs = keras.Input(batch_shape=(4, 3))
    model = AugNet(inputs, inputs**2)
    for count in (4, 6):
        x = points(count, 3)
        expected = np.stack([np.diag(2 * row) for row in x])
        np.testing.assert_allclose(model.return_jacobian(x), expected)
        np.testing.assert_allclose(model.jacobian(x), expected)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (np.zeros(4), ValueError, r"\(batch, 4\), got \(4,\); the batch axis is missing"),
        (np.zeros((2, 5)), ValueError, r"\(batch, 4\), got \(2, 5\)"),
        (np.zeros((2, 4, 1)), ValueError, r"got \(2, 4, 1\)"),
        (0.5, ValueError, r"got \(\)"),
        ([[1.0, 2.0], [1.0]], ValueError, "one shape"),
        ({"other": np.zeros((2, 4))}, ValueError, "structure"),
        (np.zeros((2, 4), complex), TypeError, "complex"),
        ([["a"] * 4], TypeError, "real numbers"),
        (None, TypeError, "real numbers"),
    ],
)
def test_bad_input(x, error, words):
    with pytest.raises(error, match=words):
        linear().return_jacobian(x)


def test_missing_channel_axis_says_how_to_reshape():
    inputs = keras.Input((8, 6, 1))
    with pytest.raises(ValueError, match=r"reshape it to \(5, 8, 6, 1\)"):
        AugNet(inputs, layers.Flatten()(inputs)).return_jacobian(points(5, 8, 6))


def test_models_without_a_derivative():
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    with pytest.raises(TypeError, match="input 'tokens' of this model is int32"):
        AugNet(tokens, layers.Embedding(5, 2)(tokens)).return_jacobian([[1, 2, 3]])
    inputs = keras.Input((3,))
    with pytest.raises(TypeError, match=r"output .* is int32"):
        AugNet(inputs, keras.ops.argmax(inputs, axis=1)).return_jacobian(points(1, 3))


def test_steps_without_a_derivative_give_zeros():
    inputs = keras.Input((3,))
    jacobian = AugNet(inputs, keras.ops.round(inputs) + keras.ops.zeros_like(inputs)).return_jacobian(
        points(2, 3)
    )
    np.testing.assert_array_equal(jacobian, np.zeros((2, 3, 3)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_not_finite_has_no_jacobian_and_harms_no_other(value):
    model = AugNet.from_model(small_cnn())
    x = points(3, 8, 8, 2)
    expected = model.return_jacobian(x).numpy()
    x[1, 0, 0, 0] = value
    for jacobian in (model.return_jacobian(x).numpy(), model.jacobian(x, batch_size=2)):
        assert np.isnan(jacobian[1]).all()
        np.testing.assert_allclose(jacobian[[0, 2]], expected[[0, 2]], atol=1e-7)


def test_a_model_that_mixes_samples_is_refused():
    inputs = keras.Input((3,))
    model = AugNet(inputs, layers.Dense(2)(inputs - keras.ops.mean(inputs, axis=0, keepdims=True)))
    for x in (points(4, 3), points(1, 3)):
        with pytest.raises(ValueError, match="mixes the samples"):
            model.return_jacobian(x)


def test_inside_a_function_says_so():
    model = linear()
    with pytest.raises(RuntimeError, match=r"tf\.GradientTape"):
        tf.function(model.return_jacobian, autograph=False)(tf.zeros((2, 4)))


@pytest.mark.parametrize("make", [AugNet.from_model, lambda m: AugNet(inputs=m.inputs, outputs=m.outputs)])
def test_made_from_a_trained_model_without_a_warning(make):
    trained = small_cnn(name="trained")
    x = points(4, 8, 8, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make(trained)
        for batch in (x, tf.constant(x)):
            np.testing.assert_array_equal(model(batch), trained(batch))
        np.testing.assert_allclose(model.predict(x, verbose=0), trained.predict(x, verbose=0), rtol=1e-6)
        model.return_jacobian(x)
    assert isinstance(model, keras.Model) and isinstance(model, AugNet)
    assert all(a is b for a, b in zip(model.weights, trained.weights, strict=True))


def test_from_sequential_and_nested():
    inner = small_cnn(name="inner")
    nested = keras.Sequential([keras.Input((8, 8, 2)), inner, layers.Dense(2)])
    x = points(2, 8, 8, 2)
    for trained in (nested, AugNet.from_model(nested)):
        model = AugNet.from_model(trained)
        assert model.name == nested.name and len(model.weights) == len(nested.weights)
        np.testing.assert_allclose(model(x), nested(x), rtol=1e-6)
        assert model.return_jacobian(x).shape == (2, 2, 8, 8, 2)
    with pytest.raises(ValueError, match="call it once"):
        AugNet.from_model(keras.Sequential([layers.Dense(2)]))
    lazy = keras.Sequential([layers.Dense(2)])
    lazy(points(2, 3))
    for model in (AugNet.from_model(lazy), AugNet(inputs=lazy.inputs, outputs=lazy.outputs)):
        assert model.return_jacobian(points(5, 3)).shape == (5, 2, 3)


@keras.saving.register_keras_serializable(package="augnet_tests")
class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense, self.norm = layers.Dense(2, activation="tanh"), layers.BatchNormalization()

    def call(self, x, training=None):
        return self.norm(self.dense(x), training=training)


def test_from_a_subclassed_model(tmp_path):
    trained = Subclassed(name="sub")
    with pytest.raises(ValueError, match="input shape of 'sub'"):
        AugNet.from_model(trained)
    x = points(6, 3)
    expected = trained(x)
    model = AugNet.from_model(trained)
    assert model.input_shape == (None, 3)
    np.testing.assert_allclose(model(x), expected, rtol=1e-6)
    jacobian = model.return_jacobian(x[:4])
    assert jacobian.shape == (4, 2, 3)
    model.save(tmp_path / "sub.keras")
    loaded = keras.saving.load_model(tmp_path / "sub.keras")
    np.testing.assert_allclose(loaded.return_jacobian(x[:4]), jacobian, rtol=1e-6)
    with pytest.raises(TypeError, match=r"not a keras\.Model"):
        AugNet.from_model(layers.Dense(2))


@pytest.mark.parametrize("used", [False, True])
def test_saved_pickled_cloned_and_exported(tmp_path, used):
    model = AugNet.from_model(small_cnn())
    model.compile(optimizer="adam", loss="mse")
    model.optimizer.build(model.trainable_variables)
    x = points(2, 8, 8, 2)
    expected = AugNet.from_model(model).return_jacobian(x)
    if used:
        model.return_jacobian(x)
    model.save(tmp_path / "model.keras")
    copies = [
        keras.saving.load_model(tmp_path / "model.keras"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        AugNet.from_config(model.get_config()),
        keras.models.clone_model(model),
    ]
    for number, other in enumerate(copies):
        assert type(other) is AugNet
        if number > 2:
            other.set_weights(model.get_weights())
        np.testing.assert_allclose(other.return_jacobian(x), expected, atol=1e-7)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(x), model(x), atol=1e-6)


def test_recurrent_resizing_and_low_precision_layers():
    sequence = keras.Input((5, 3))
    x = points(2, 5, 3)
    model = AugNet(sequence, layers.Dense(2)(layers.SimpleRNN(4)(sequence)))
    tensor = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensor)
        rows = tf.unstack(model(tensor), axis=1)
    np.testing.assert_allclose(
        model.return_jacobian(x), np.stack([tape.gradient(r, tensor) for r in rows], axis=1), atol=1e-6
    )
    image = keras.Input((4, 4, 1))
    half = layers.Dense(2, dtype="mixed_bfloat16")(
        layers.Flatten()(layers.UpSampling2D(2, interpolation="bilinear")(image))
    )
    jacobian = AugNet(image, half).return_jacobian(points(2, 4, 4, 1))
    assert jacobian.dtype == tf.float32 and np.isfinite(jacobian).all()


def test_many_outputs():
    inputs = keras.Input((4,))
    model = AugNet(inputs, layers.Dense(1000)(inputs))
    np.testing.assert_allclose(
        model.return_jacobian(points(2, 4))[1], model.layers[1].kernel.numpy().T, rtol=1e-6
    )
