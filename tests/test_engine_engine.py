"""The engine against closed forms, a float64 loop of plain tapes, NumPy, and itself in other batches."""

import itertools
import subprocess
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from engine_helpers import engine_of

from augnet.engine import inspect_model
from augnet.engine.backends import backend
from augnet.engine.graph.graph import trace
from augnet.engine.graph.precision import in_precision
from augnet.errors import AuditError, ConfigError, ModelError

layers = keras.layers
rng = np.random.default_rng(3)


def images(count, *shape, dtype="float32"):
    return np.random.default_rng(5).normal(size=(count, *shape)).astype(dtype)


def linear(size=(5, 4, 2), outputs=6):
    model = keras.Sequential([keras.Input(size), layers.Flatten(), layers.Dense(outputs)])
    model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def small_cnn(end=None, bias=True):
    model = keras.Sequential(
        [
            keras.Input((12, 10, 3)),
            layers.Conv2D(8, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.5),
            layers.MaxPooling2D(2),
            layers.SeparableConv2D(6, 4, strides=2, padding="same", depth_multiplier=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(5, activation=end),
        ]
    )
    randomize(model)
    return model


def randomize(model):
    """Moving statistics and scales as after a training."""
    for layer in model._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            for variable, low in (
                (layer.moving_mean, -0.3),
                (layer.moving_variance, 0.5),
                (layer.gamma, 0.5),
            ):
                variable.assign(rng.uniform(low, low + 1, variable.shape))


def oracle(model, x):
    """The Jacobian (batch, output, height, width, channel) by plain tapes in float64, image by image."""
    graph = in_precision(trace(model), "float64")
    made = []
    for image in tf.convert_to_tensor(x, "float64"):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(image)
            outputs = tf.unstack(tf.reshape(graph(image[None]), [-1]))
        made.append([tape.gradient(output, image).numpy() for output in outputs])
    return np.stack(made)


def error(made, truth):
    axes = tuple(range(1, truth.ndim))
    return np.sqrt(np.square(made - truth).sum(axis=axes) / np.square(truth).sum(axis=axes))


def assert_equal_away_from_kinks(made, truth, tolerance=1e-4):
    """A rounding may put a pixel on the other side of a ReLU in an image; a fault is in all of them."""
    assert np.mean(error(made, truth) < tolerance) >= 0.75


def test_linear_model_has_its_weights_as_jacobian():
    model = linear()
    engine = engine_of(model, batch_size=None)
    assert engine.batch_size >= 64  # what it takes by itself is padded to
    batch = engine.measure(images(3, 5, 4, 2))
    weights = model.get_weights()[0].T.reshape(6, 5, 4, 2)
    assert np.abs(batch.rows - weights).max() < 1e-6
    assert np.abs(batch.gram - np.einsum("rhwc,shwc->rs", weights, weights, dtype=float)).max() < 1e-4


def test_softplus_and_quadratic_have_their_closed_forms():
    x = images(4, 3, 3, 1)
    given = keras.Input((3, 3, 1))
    soft = keras.Model(given, layers.Activation("softplus")(layers.Flatten()(given)))
    rows = engine_of(soft).measure(x).rows.reshape(4, 9, 9)
    slope = 1 / (1 + np.exp(-x.reshape(4, 9).astype(float)))
    assert np.abs(rows - np.eye(9) * slope[:, None]).max() < 1e-6
    flat = layers.Flatten()(given)
    square = keras.Model(given, layers.Multiply()([flat, flat]))
    rows = engine_of(square).measure(x).rows.reshape(4, 9, 9)
    assert np.abs(rows - 2 * np.eye(9) * x.reshape(4, 1, 9)).max() < 1e-6


@pytest.mark.parametrize("end", [None, "softmax"])
def test_small_cnn_equals_the_float64_oracle(end):
    model = small_cnn(end)
    x = images(6, 12, 10, 3)
    batch = engine_of(model, batch_size=None).measure(x)
    bare = small_cnn()
    bare.set_weights(model.get_weights())
    truth = oracle(bare, x)
    assert_equal_away_from_kinks(batch.rows, truth, 1e-5)
    if end:
        assert np.abs(batch.probabilities - model(x, training=False).numpy()).max() < 1e-5
    else:
        assert batch.probabilities is None
    wide = engine_of(model, precision="float64", store_dtype="float64").measure(x)
    assert error(wide.rows, truth).max() < 1e-10


def test_probability_rows_sum_to_zero():
    batch = engine_of(small_cnn("softmax"), space="model").measure(images(2, 12, 10, 3))
    assert np.abs(batch.rows.sum(axis=1)).max() < 1e-5 * np.abs(batch.rows).max()
    assert np.array_equal(batch.probabilities, batch.outputs)


def test_mobilenet_equals_the_float64_oracle():
    model = keras.applications.MobileNetV2(
        weights=None, classes=4, input_shape=(32, 32, 3), alpha=0.35, classifier_activation=None
    )
    randomize(model)
    x = images(1, 32, 32, 3)
    batch = engine_of(model, precision="float64", store_dtype="float64", batch_size=1).measure(x)
    assert error(batch.rows, oracle(model, x)).max() < 1e-8


def test_nested_models_and_inputs_without_channels():
    inner = keras.Sequential([layers.Conv2D(4, 3, activation="softplus"), layers.GlobalAveragePooling2D()])
    given = keras.Input((8, 9))
    model = keras.Model(given, layers.Dense(3)(inner(layers.Reshape((8, 9, 1))(given))))
    x = images(3, 8, 9, 1)
    engine = engine_of(model)
    assert engine.spec.input_shape == (8, 9, 1)
    assert error(engine.measure(x).rows, oracle(model, x[..., 0])[..., None]).max() < 1e-5


def test_one_sigmoid_output():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(1, activation="sigmoid")]
    )
    batch = engine_of(model).measure(images(3, 4, 4, 1))
    weights = model.get_weights()[0].reshape(4, 4, 1)
    assert np.abs(batch.rows[:, 0] - weights).max() < 1e-6
    assert batch.probabilities.shape == (3, 1)
    assert np.allclose(batch.boundary_l1, np.abs(weights).sum())


def test_several_sigmoid_outputs_each_have_their_own_boundary():
    batch = engine_of(small_cnn("sigmoid")).measure(images(3, 12, 10, 3))
    assert np.allclose(batch.boundary_l1, np.abs(batch.rows).sum(axis=(2, 3, 4)), rtol=1e-5)


def test_a_subclassed_model_goes_by_the_tape():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, activation="tanh")

        def call(self, x):
            return self.dense(keras.ops.reshape(x, (x.shape[0], 16)))

    model = Own()
    x = images(2, 4, 4, 1)
    model(x)
    engine = engine_of(model)
    slope = 1 - np.square(model(x).numpy())
    truth = (slope[:, None] * model.dense.get_weights()[0]).transpose(0, 2, 1).reshape(2, 3, 4, 4, 1)
    assert error(engine.measure(x).rows, truth).max() < 1e-5
    assert engine.choice().program == "tape"


def test_an_image_has_the_same_jacobian_in_any_batch():
    engine = engine_of(small_cnn(), batch_size=4)
    x = images(7, 12, 10, 3)
    many = [engine.measure(x[:4]), engine.measure(x[4:])]
    rows = np.concatenate([batch.rows for batch in many])
    alone = np.concatenate([engine.measure(x[i : i + 1]).rows for i in range(7)])
    assert error(alone, rows).max() < 1e-6
    assert many[1].moments.count.tolist() == [3] * 5


def selections(scores, targets):
    order = np.argsort(-scores, axis=1)
    return {
        "all": np.tile(np.arange(5), (len(scores), 1)),
        "predicted": order[:, :1],
        "label": targets[:, None],
        "top:3": order[:, :3],
        (4, 1): np.tile([4, 1], (len(scores), 1)),
    }


def test_rows_are_those_asked_for():
    steps = [layers.Flatten(), layers.Dense(7, activation="tanh"), layers.Dense(5)]
    model = keras.Sequential([keras.Input((4, 3, 2)), *steps])
    x, targets = images(4, 4, 3, 2), np.array([0, 2, 4, 1])
    full = engine_of(model).measure(x)
    for outputs, truth in selections(full.outputs, targets).items():
        batch = engine_of(model, outputs=outputs).measure(x, None, targets)
        assert np.array_equal(batch.selected, truth) and np.array_equal(batch.stored, truth)
        assert np.allclose(batch.rows, np.stack([full.rows[i, truth[i]] for i in range(4)]), atol=1e-5)
        if outputs != "all":
            batch = engine_of(model, stored=outputs).measure(x, None, targets)
            assert np.array_equal(batch.stored, truth)
            assert np.allclose(batch.rows, np.stack([full.rows[i, truth[i]] for i in range(4)]), atol=1e-5)


def test_an_unknown_label_gives_a_row_of_nan():
    batch = engine_of(small_cnn(), outputs="label").measure(images(2, 12, 10, 3), None, np.array([3, -1]))
    assert batch.selected.tolist() == [[3], [-1]]
    assert (
        np.isfinite(batch.rows[0]).all() and np.isnan(batch.rows[1]).all() and np.isnan(batch.gram[1]).all()
    )
    assert batch.moments.count.tolist() == [0, 0, 0, 1, 0]


def pooled(x, pool):
    """Block means over the last three axes' height and width, with NumPy."""
    *lead, height, width, channels = x.shape
    made = np.empty((*lead, -(-height // pool), -(-width // pool), channels))
    for i, j in itertools.product(range(made.shape[-3]), range(made.shape[-2])):
        block = x[..., i * pool : (i + 1) * pool, j * pool : (j + 1) * pool, :]
        made[..., i, j, :] = block.mean(axis=(-3, -2))
    return made


@pytest.mark.parametrize("pool", [1, 4])
@pytest.mark.parametrize("outputs", ["all", "top:2", (0, 3)])
def test_measures_equal_numpy(pool, outputs):
    x, labels = images(5, 12, 10, 3), np.array([0, 1, -1, 1, 0])
    engine = engine_of(small_cnn(), outputs=outputs, label_count=2, map_pool=pool, batch_size=8)
    batch = engine.measure(x, labels)
    rows, selected = batch.rows.astype(float), batch.selected
    flat = rows.reshape(5, -1, 360)
    assert np.allclose(batch.gram, flat @ flat.transpose(0, 2, 1), rtol=1e-6)
    predicted = batch.outputs.argmax(axis=1)
    groups = {output: [(i, r) for i, r in np.argwhere(selected == output)] for output in range(5)}
    for label in range(2):
        groups[5 + label] = [
            (i, r) for i, r in np.argwhere(selected == predicted[:, None]) if labels[i] == label
        ]
    for group, members in groups.items():
        assert batch.moments.count[group] == len(members)
        if not members:
            assert not batch.moments.mean[group].any()
            continue
        stack = np.stack([rows[i, r] for i, r in members])
        mean = pooled(stack, pool).mean(axis=0)
        wide = mean.repeat(pool, axis=0).repeat(pool, axis=1)[:12, :10]
        assert np.allclose(batch.moments.mean[group], mean, atol=1e-6)
        assert np.allclose(
            batch.moments.m2[group], pooled(np.square(stack - wide), pool).sum(axis=0), atol=1e-6
        )
        assert np.allclose(batch.moments.mean_abs[group], pooled(np.abs(stack), pool).mean(axis=0), atol=1e-6)
        assert np.isclose(batch.moments.max_abs[group].max(), np.abs(stack).max())
    for i in range(5):
        place = np.flatnonzero(selected[i] == predicted[i])
        if not len(place):
            assert np.isnan(batch.input_dot[i]) and np.isnan(batch.magnitude[i]).all()
            assert np.isnan(batch.boundary_l1[i]).all()
            continue
        own = rows[i, place[0]]
        assert np.allclose(batch.magnitude[i], np.sqrt(np.square(own).sum(axis=-1)), rtol=1e-5)
        assert np.isclose(batch.input_dot[i], (own * x[i]).sum(), rtol=1e-5)
        assert np.allclose(batch.boundary_l1[i], np.abs(own - rows[i]).sum(axis=(1, 2, 3)), rtol=1e-5)


def test_stored_rows_are_rounded_to_bfloat16():
    model, x = small_cnn(), images(3, 12, 10, 3)
    full, engine = engine_of(model).measure(x).rows, engine_of(model, store_dtype="bfloat16")
    rows = engine.measure(x).rows
    assert engine.layout.bytes_per_image == rows[0].nbytes == full[0].nbytes / 2
    assert np.array_equal(rows.astype(np.float32), full.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_stored_rows_are_reduced_and_none_are_copied_without_storing():
    model, x = small_cnn(), images(3, 12, 10, 3)
    full = engine_of(model).measure(x).rows
    size = np.sqrt(np.square(full).sum(axis=-1, keepdims=True))
    for channels, truth in (("keep", full), ("l2", size), ("sum", full.sum(axis=-1, keepdims=True))):
        engine = engine_of(model, store_channels=channels, store_pool=5, store_dtype="float16")
        rows = engine.measure(x).rows
        assert rows.dtype == np.float16 and rows.shape[1:] == engine.layout.stored_shape
        assert engine.layout.bytes_per_image == rows[0].nbytes
        assert np.allclose(rows, pooled(truth, 5), atol=1e-2, rtol=1e-2)
    bare = engine_of(model, stored="none")
    batch = bare.measure(x)
    assert batch.rows is None and batch.stored.shape == (3, 0)
    largest = max(
        np.prod(shape[1:]) for shape in (output.shape for output in bare._measuring.compile().outputs)
    )
    assert largest <= 5 * 12 * 10 * 3  # the maps are the largest things that leave the device


def test_pixel_scale_multiplies_the_rows():
    model, x = small_cnn(), images(2, 12, 10, 3)
    plain, scaled = engine_of(model).measure(x), engine_of(model, input_scale=[0.5, 1, 2]).measure(x)
    assert np.allclose(scaled.rows, plain.rows * [0.5, 1, 2], rtol=1e-5)


def test_out_of_memory_halves_the_batch_and_goes_on(monkeypatch):
    engine, x = engine_of(small_cnn(), batch_size=4, label_count=1), images(4, 12, 10, 3)
    truth = engine.measure(x, np.zeros(4, int))
    run, calls = backend.run, []

    def failing(*args):
        calls.append(1)
        if len(calls) == 1:
            raise tf.errors.ResourceExhaustedError(None, None, "injected")
        return run(*args)

    monkeypatch.setattr(backend, "run", failing)
    batch = engine.measure(x, np.zeros(4, int))
    assert engine.batch_size == 2 and len(calls) == 3
    assert np.allclose(batch.rows, truth.rows, atol=1e-6)
    for name in ("count", "mean", "m2", "mean_abs", "max_abs"):
        assert np.allclose(getattr(batch.moments, name), getattr(truth.moments, name), atol=1e-6)


def test_out_of_memory_with_one_image_says_what_to_do(monkeypatch):
    def failing(*args):
        raise tf.errors.ResourceExhaustedError(None, None, "injected")

    monkeypatch.setattr(backend, "run", failing)
    with pytest.raises(AuditError, match=r"does not fit.*fewer rows"):
        engine_of(linear(), batch_size=1).measure(images(1, 5, 4, 2))


def test_the_batch_is_halved_until_a_program_is_seen_to_fit_in_the_memory():
    # A process of its own: TensorFlow keeps what it has freed, so here other tests would have made the room.
    code = """
import keras, numpy as np
import sys
sys.path.insert(0, 'tests')
from engine_helpers import engine_of
steps = [keras.layers.Conv2D(32, 3, padding="same", activation="tanh") for _ in range(3)]
ends = [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(4)]
model = keras.Sequential([keras.Input((40, 40, 3)), *steps, *ends])
x = np.random.default_rng(0).uniform(size=(64, 40, 40, 3)).astype("float32")
small = engine_of(model, batch_size=64, memory_bytes=40 * 2**20)
rows = small.measure(x).rows
print(small.batch_size, small.choice().report["memory_bytes"])
print(np.abs(rows[:2] - engine_of(model, batch_size=2).measure(x[:2]).rows).max())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    batch, taken, apart = map(float, done.stdout.split())
    assert batch <= 32 and taken <= 40 * 2**20  # 64 images of one layer alone are 13 MB
    assert apart < 1e-6


def test_the_peak_of_a_function_is_what_it_held_and_let_go():
    peaks = []
    for _ in range(3):  # what an earlier test left to do in the background takes memory too
        before = backend.used_bytes()
        _, peak = backend.peak_of(lambda: backend.wait(keras.ops.sum(keras.ops.ones(2**24, "float64"))))
        peaks.append(peak - before)
    assert 120 * 2**20 <= min(peaks) <= 140 * 2**20
    assert backend.used_bytes() < before + 2**24
    assert backend.free_bytes() > 0


def test_a_choice_is_done_again_without_timing():
    model, x = small_cnn(), images(2, 12, 10, 3)
    first = engine_of(model, batch_size=2)
    choice = first.choice()
    second = engine_of(model, choice=choice)
    assert second.batch_size == 2 and second.choice() == choice
    assert np.array_equal(first.measure(x).rows, second.measure(x).rows)


def test_what_has_no_jacobian_is_refused():
    image = keras.Input((4, 4, 1))
    flat = layers.Flatten()(image)
    other = keras.Input((2,))
    constant = keras.Model(image, layers.Rescaling(0.0)(flat))
    coupled = keras.Model(image, flat - keras.ops.mean(flat, axis=0, keepdims=True))
    integer = keras.Input((4, 4, 1), dtype="uint8")
    several = keras.Model(image, [layers.Dense(2, name="a")(flat), layers.Dense(3, name="b")(flat)])
    for model, message in (
        (keras.Model([image, other], layers.Concatenate()([flat, other])), "2 inputs"),
        (keras.Model(integer, layers.Flatten()(keras.ops.cast(integer, "float32"))), "uint8"),
        (keras.Sequential([keras.Input((7,)), layers.Dense(2)]), "input shape"),
        (
            keras.Sequential([keras.Input((None, None, 3)), layers.GlobalAveragePooling2D()]),
            "`input_size`",
        ),
        (keras.Model(image, layers.Conv2D(2, 3)(image)), "`reduce`"),
        (constant, "no output depends"),
        (coupled, "other images"),
        (several, "`output`"),
    ):
        with pytest.raises(ModelError, match=message):
            engine_of(model)
    assert inspect_model(several, output="b").spec.output_count == 3
    with pytest.raises(ConfigError, match="outputs"):
        engine_of(linear(), outputs=(9,))


def test_a_model_says_whether_it_rescales():
    def starting_with(layer):
        return keras.Sequential([keras.Input((8, 8, 3)), layer, layers.Flatten(), layers.Dense(2)])

    assert inspect_model(starting_with(layers.Rescaling(1 / 255))).spec.model_rescales
    assert inspect_model(starting_with(layers.Rescaling(1 / 127.5, -1))).spec.model_rescales
    normalization = layers.Normalization(mean=[120.0, 110, 100], variance=[9.0, 9, 9])
    assert inspect_model(starting_with(normalization)).spec.model_rescales
    nested = starting_with(keras.Sequential([layers.Rescaling(1 / 255)]))
    assert "1/255" in inspect_model(nested).spec.rescale_reason
    assert not inspect_model(starting_with(layers.ReLU())).spec.model_rescales


@pytest.mark.parametrize("reduce", ["mean", "sum", "at:[2, 1]"])
def test_spatial_outputs_are_reduced(reduce):
    image = keras.Input((6, 5, 2))
    model = keras.Model(image, layers.Conv2D(3, 3, padding="same", activation="softplus")(image))
    x = images(2, 6, 5, 2)
    batch = engine_of(model, reduce=reduce).measure(x)
    short = {"mean": lambda y: keras.ops.mean(y, axis=(1, 2)), "sum": lambda y: keras.ops.sum(y, axis=(1, 2))}
    end = short.get(reduce, lambda y: y[:, 2, 1])
    assert error(batch.rows, oracle(keras.Model(image, end(model(image))), x)).max() < 1e-5
    for wrong, kind in (("median", ConfigError), ("at:[9,0]", ConfigError)):
        with pytest.raises(kind, match="`reduce`"):
            engine_of(model, reduce=wrong)


def test_a_mixed_precision_model_is_differentiated_in_float32():
    given = keras.Input((8, 8, 2))
    half = layers.Conv2D(4, 3, activation="softplus", dtype="mixed_float16")(given)
    model = keras.Model(given, layers.Dense(3, dtype="float32")(layers.Flatten(dtype="mixed_float16")(half)))
    x = images(2, 8, 8, 2)
    assert error(engine_of(model).measure(x).rows, oracle(model, x)).max() < 1e-5


@pytest.mark.parametrize("seed", [0, 7, 12, 53])
def test_a_step_without_a_gradient_is_refused(seed):
    keras.utils.set_random_seed(seed)  # but of 0 an output is the small sum of large terms
    image = keras.Input((4, 4, 1))
    stepped = layers.Flatten()(keras.ops.cast(keras.ops.cast(10 * image, "int32"), "float32"))
    with pytest.raises(ModelError, match="no gradient flows"):
        engine_of(keras.Model(image, layers.Dense(2)(stepped)))


def test_unconnected_outputs_are_listed():
    image = keras.Input((4, 4, 1))
    flat = layers.Flatten()(image)
    joined = layers.Concatenate()([layers.Dense(2)(flat), layers.Rescaling(0.0)(layers.Dense(1)(flat))])
    assert inspect_model(keras.Model(image, joined)).spec.unconnected == (2,)
