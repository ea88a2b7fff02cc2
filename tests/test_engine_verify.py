"""The judges pass a right engine, fail one whose rows are wrong, and say what they could not check."""

import keras
import numpy as np
import pytest
from engine_helpers import engine_of
from PIL import Image

from augnet.config import ModelConfig
from augnet.engine import Engine
from augnet.engine.rules.elementwise import Clip
from augnet.engine.verification.checks import Check, joined, unanswered
from augnet.engine.verification.oracle import make_oracle
from augnet.engine.verify import ADJOINT, BATCH, RULES, SECANTS, verify
from augnet.models.loading import load_model
from pipeline.main import main
from pipeline.progress import show_steps

layers = keras.layers
SHAPE = (10, 10, 2)


def sequential(*steps, shape=SHAPE):
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input(shape), *steps])


def ending(*steps, **dense):
    return sequential(*steps, layers.Flatten(), layers.Dense(4, **dense))


def model():
    return ending(layers.Conv2D(6, 3, activation="relu"), layers.BatchNormalization(), layers.MaxPooling2D(2))


def unet():
    keras.utils.set_random_seed(4)
    image = keras.Input(SHAPE)
    fine = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    rough = layers.Conv2D(6, 3, padding="same", activation="relu")(layers.MaxPooling2D()(fine))
    both = layers.Concatenate()([layers.UpSampling2D(2, interpolation="bilinear")(rough), fine])
    return keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(both))


def resized_beside_itself():
    keras.utils.set_random_seed(4)
    image = keras.Input(SHAPE)
    small = layers.Resizing(5, 8, pad_to_aspect_ratio=True, fill_value=2.0)(image)
    both = layers.Concatenate()([layers.Flatten()(small), layers.Flatten()(image)])
    return keras.Model(image, layers.Dense(3)(both))


def nested():
    inner = sequential(layers.Flatten(), layers.Dense(4, activation="softmax"), shape=(8, 8, 3))
    return sequential(layers.Conv2D(3, 3), layers.LayerNormalization(), layers.Activation("gelu"), inner)


def adapted():
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(1).normal(3, 5, (8, *SHAPE)))
    return ending(normalization, layers.Conv2D(4, 3, activation="tanh"))


def mixed(policy="mixed_bfloat16"):
    keras.config.set_dtype_policy(policy)
    try:
        return model()
    finally:
        keras.config.set_dtype_policy("float32")


class Subclassed(keras.Model):
    """With a call of its own, so that it has no graph."""

    def __init__(self):
        super().__init__()
        self.conv, self.dense = layers.Conv2D(4, 3, padding="same"), layers.Dense(3)

    def call(self, x):
        return self.dense(keras.ops.reshape(keras.ops.relu(self.conv(x)), (-1, 400)))


def subclassed():
    keras.utils.set_random_seed(4)
    own = Subclassed()
    own(np.zeros((1, *SHAPE), np.float32))
    return own


def noise(count=3, seed=1):
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype("float32")


def named(checks):
    return {"own" if check.name.startswith("engine against") else check.name: check for check in checks}


def states(checks):
    return {
        name: "passed" if check.passed else check.reason or "open" for name, check in named(checks).items()
    }


RIGHT = {
    "convolution, BatchNorm, max-pool": model,
    "Resizing": lambda: ending(layers.Resizing(16, 13), layers.Conv2D(4, 3, activation="relu")),
    "bicubic and nearest": lambda: ending(
        layers.Resizing(7, 9, "bicubic"),
        layers.Resizing(8, 8, "nearest"),
        layers.Conv2D(3, 3),
    ),
    "LeakyReLU": lambda: ending(layers.Conv2D(4, 3), layers.LeakyReLU()),
    "leaky_relu 0.2": lambda: ending(layers.Conv2D(4, 3, activation="leaky_relu")),
    "softmax": lambda: ending(layers.Conv2D(4, 3, activation="relu"), activation="softmax"),
    "sigmoid": lambda: ending(layers.Conv2D(4, 3, activation="relu"), activation="sigmoid"),
    "softmax layer": lambda: sequential(
        layers.Flatten(), layers.Dense(4), layers.Softmax(), layers.Reshape((1, 4))
    ),
    "a nested end": nested,
    "an adapted Normalization": adapted,
    "mixed_bfloat16": mixed,
}


@pytest.mark.parametrize("make", RIGHT.values(), ids=RIGHT.keys())
def test_a_right_engine_passes_before_every_judge(make):
    made = make()
    checks = verify(engine_of(made, batch_size=4), made, noise(4))
    assert states(checks) == dict.fromkeys(("own", RULES, SECANTS, ADJOINT, BATCH), "passed"), checks
    assert not unanswered(checks)


@pytest.mark.parametrize("reduce", ["mean", "sum", "at:[2,3]"])
def test_a_unet_reduced_to_one_number_per_channel_passes(reduce):
    made = unet()
    checks = verify(engine_of(made, batch_size=4, reduce=reduce), made, noise(4), reduce=reduce)
    assert all(check.passed for check in checks) and len(checks) == 5, checks


def test_the_output_and_space_that_the_engine_was_given_are_judged():
    keras.utils.set_random_seed(4)
    image = keras.Input(SHAPE)
    flat = layers.Flatten()(image)
    heads = [layers.Dense(3, activation="softmax", name="first")(flat), layers.Dense(2, name="second")(flat)]
    made = keras.Model(image, heads)
    for settings in ({"output": "first", "space": "model"}, {"output": 0}, {"output": "second"}):
        checks = verify(engine_of(made, batch_size=4, **settings), made, noise(), **settings)
        assert set(states(checks).values()) == {"passed"}, checks


def test_a_model_that_cannot_be_made_again_is_judged_by_itself_and_it_is_said():
    made = subclassed()
    checks = verify(engine_of(made, batch_size=4), made, noise())
    assert checks[0].name == "engine against the model itself in float32"
    assert not unanswered(checks) and RULES not in named(checks)
    assert named(checks)["own"].passed and named(checks)[SECANTS].passed


def test_a_savedmodel_is_judged_by_itself(tmp_path):
    keras.utils.set_random_seed(0)
    model().export(str(tmp_path / "exported"), verbose=False)
    made = load_model(ModelConfig(path=str(tmp_path / "exported")))
    checks = verify(engine_of(made, batch_size=4), made, noise())
    assert "itself in float32" in checks[0].name
    assert not unanswered(checks)
    assert not [check for check in checks if check.failed]


def test_a_model_of_images_without_a_channel_axis_passes():
    made = sequential(
        layers.Reshape((10, 8, 1)), layers.Conv2D(3, 3), layers.Flatten(), layers.Dense(2), shape=(10, 8)
    )
    images = np.random.default_rng(1).normal(size=(3, 10, 8, 1)).astype("float32")
    checks = verify(engine_of(made, batch_size=4), made, images)
    assert set(states(checks).values()) == {"passed"}, checks


def test_a_wrong_engine_fails(monkeypatch):
    right, made = Engine.jacobian, model()
    monkeypatch.setattr(
        Engine, "jacobian", lambda self, x: right(self, x) * np.linspace(0.5, 1, 10)[:, None, None]
    )
    assert verify(engine_of(made, batch_size=4), made, noise())[0].failed


def test_rows_that_are_no_numbers_fail(monkeypatch):
    right, made = Engine.jacobian, model()
    monkeypatch.setattr(Engine, "jacobian", lambda self, x: right(self, x) * np.nan)
    assert verify(engine_of(made, batch_size=4), made, noise())[0].failed


def test_the_judges_look_at_the_keras_model_and_not_at_the_engine():
    made, other = model(), model()
    other.layers[-1].kernel.assign(other.layers[-1].kernel * np.linspace(1, 1.1, 4, dtype="float32"))
    checks = named(verify(engine_of(other, batch_size=4), made, noise()))
    assert all(checks[name].failed for name in ("own", RULES, SECANTS, ADJOINT))


def test_a_fault_too_small_for_float32_fails(monkeypatch):
    made, right = model(), Clip.value_and_slope

    def wrong(self, x):
        found, slope = right(self, x)
        return found, slope * (1 + 1e-7)

    monkeypatch.setattr(Clip, "value_and_slope", wrong)
    checks = verify(engine_of(made, batch_size=4), made, noise())
    assert [check.name for check in checks if check.failed] == [RULES]


@pytest.mark.parametrize("fault, failed", [(1e-6, True), (1e-8, False)])
def test_a_constant_in_float32_widens_the_bound_by_its_rounding_and_no_more(fault, failed):
    made = RIGHT["LeakyReLU"]()
    engine = engine_of(made, batch_size=4)
    rules = engine.float64_rows()
    engine.float64_rows = lambda: lambda image, outputs: rules(image, outputs) * (1 + fault)
    check = named(verify(engine, made, noise()))[RULES]
    assert check.failed == failed and check.tolerance == pytest.approx(1e-9 + 2 * 2.0**-24)
    assert check.error > 1e-9


def test_an_operation_without_forward_mode_is_named_and_judged_by_the_others():
    made = resized_beside_itself()
    checks = verify(engine_of(made, batch_size=4), made, noise())
    assert states(checks)[ADJOINT] == "TensorFlow has no forward mode for ResizeBilinearGrad"
    assert not unanswered(checks) and not any(check.failed for check in checks)


def test_rules_that_tensorflow_has_in_float32_only_leave_the_rows_to_be_judged():
    made = ending(layers.Resizing(7, 9, antialias=True), layers.Conv2D(3, 3, activation="tanh"))
    checks = verify(engine_of(made, batch_size=4), made, noise())
    rules = named(checks)[RULES]
    assert rules.passed or rules.reason.startswith("the engine cannot compute in float64 (TypeError: ")
    assert named(checks)["own"].passed and not unanswered(checks)


def test_an_oracle_that_resizes_gives_the_outputs_of_the_model():
    made = ending(
        layers.Resizing(16, 13, crop_to_aspect_ratio=True), layers.UpSampling2D(2, interpolation="lanczos3")
    )
    oracle = make_oracle(made, noise())
    assert oracle.dtype == "float64" and oracle.coarse.operations == ("resizing",)
    assert np.abs(oracle.outputs(noise()) - made(noise()).numpy()).max() < 1e-5
    assert not oracle.no_forward_mode


def test_judges_of_another_function_than_the_engines_judge_nothing():
    made = RIGHT["softmax"]()
    checks = verify(engine_of(made, batch_size=4), made, noise(), space="model")
    assert not any(check.judged for check in checks) and len(unanswered(checks)) == 3
    assert checks[0].reason == "the engine takes softmax off the model's end, the oracle None"


def at_a_kink(count=3):
    """Images of which the first pixels lie on the kink of a convolution without bias."""
    images = noise(count)
    images[:, :2, :2] = 0
    return images


def nudged(engine):
    """An engine that rounds the first pixels by as much as float32 might."""
    nudge, right = np.zeros((1, *SHAPE), np.float32), engine.jacobian
    nudge[:, :2, :2] = np.random.default_rng(2).normal(scale=1e-6, size=(1, 2, 2, 2))
    engine.jacobian = lambda x: right(x + nudge)
    return engine


def test_a_kink_at_every_image_is_no_fault_and_leaves_the_rules_to_be_judged():
    made = ending(layers.Conv2D(4, 3, padding="same"), layers.ReLU())
    checks = verify(nudged(engine_of(made, batch_size=4)), made, at_a_kink())
    own, rules = named(checks)["own"], named(checks)[RULES]
    assert own.kinks == 3 and not own.judged and not own.passed and not own.failed and own.can_gain
    assert rules.kinks == 0 and rules.passed
    assert "its rows" not in unanswered(checks)


def test_a_kink_at_every_image_of_a_model_without_rules_leaves_its_rows_unanswered():
    made = subclassed()
    checks = verify(nudged(engine_of(made, batch_size=4)), made, at_a_kink())
    assert not named(checks)["own"].judged and "its rows" in unanswered(checks)


def test_a_model_that_is_dead_on_the_images_passes():
    dead = model()
    dead.layers[0].bias.assign(np.full(6, -1e3))
    engine = engine_of(dead, batch_size=4)
    assert not engine.jacobian(noise(2)).any()
    assert all(check.passed for check in verify(engine, dead, noise(2)))


def test_two_tables_are_joined_to_the_worst_that_was_judged():
    left_out = Check("rows", "name", 3, 3, 0.0, 1e-4)
    judged, worse = Check("rows", "name", 2, 0, 1e-6, 1e-4), Check("rows", "name", 2, 1, 1e-3, 1e-4)
    assert joined([left_out], [judged]) == [Check("rows", "name", 5, 3, 1e-6, 1e-4)]
    assert joined([worse], [judged]) == [Check("rows", "name", 4, 1, 1e-3, 1e-4)]
    nobody = Check("rows", "name", 0, 0, 0.0, 0.0, "no forward mode")
    assert joined([nobody], [nobody]) == [nobody]
    assert joined([judged], [worse])[0].failed and not joined([left_out], [left_out])[0].passed


def test_no_image_is_refused():
    made = model()
    with pytest.raises(ValueError, match="there are none"):
        verify(engine_of(made, batch_size=4), made, noise(0))


def test_it_tells_how_far_it_is():
    made, told = model(), []
    verify(engine_of(made, batch_size=4), made, noise(2), progress=lambda *step: told.append(step))
    assert told[-3:] == [("judging", 0, 2), ("judging", 1, 2), ("judging", 2, 2)]


def test_in_bfloat16_the_judges_allow_its_rounding_and_no_fault(monkeypatch):
    made, images = model(), noise(4)
    engine = engine_of(made, precision="bfloat16", batch_size=4)
    checks = verify(engine, made, images)
    assert len(checks) == 5 and all(check.passed for check in checks), checks
    assert 1e-4 < checks[0].error < checks[0].tolerance < 1
    right = Engine.jacobian
    monkeypatch.setattr(
        Engine, "jacobian", lambda self, x: right(self, x) * np.linspace(-1, 1, 10)[:, None, None]
    )
    assert verify(engine, made, images)[0].failed


def test_in_float64_rows_are_held_to_float64():
    made = model()
    checks = verify(engine_of(made, precision="float64", batch_size=4), made, noise())
    assert all(check.passed for check in checks) and checks[0].tolerance == 1e-9


def command(model_path, images, tmp_path, sample):
    paths = ["--model", str(model_path), "--images", str(images), "--output", str(tmp_path / "out")]
    return ["verify", *paths, f"--sample={sample}"]


def test_augnet_verify_shows_a_table_and_says_no_with_status_1(
    images, cnn_path, tmp_path, capsys, monkeypatch
):
    assert main(command(cnn_path, images, tmp_path, 3)) == 0
    shown = capsys.readouterr().out
    assert shown.count("passed") == 5 and "over 3" in shown
    assert not (tmp_path / "out").exists()
    right = Engine.jacobian
    monkeypatch.setattr(Engine, "jacobian", lambda self, x: 1.01 * right(self, x))
    assert main(command(cnn_path, images, tmp_path, 3)) == 1
    captured = capsys.readouterr()
    assert "FAILED" in captured.out and "engine against the model in float64" in captured.err


def test_rows_of_the_labels_output_are_verified_too(images, cnn_path, tmp_path, capsys):
    flags = ["--jacobian.outputs=label", "--store.jacobians=label", "--images.classes=[ant, bee, cow]"]
    assert main([*command(cnn_path, images, tmp_path, 2), *flags]) == 0
    assert capsys.readouterr().out.count("passed") == 5


def test_augnet_verify_without_an_image_is_refused(images, cnn_path, tmp_path, capsys):
    assert main(command(cnn_path, images, tmp_path, 0)) == 2
    assert "--sample: 0" in capsys.readouterr().err


@pytest.fixture
def kinked_path(tmp_path):
    """A model that a black image meets at the kink of every unit."""
    steps = [layers.Conv2D(4, 3), layers.ReLU(), layers.Flatten(), layers.Dense(3)]
    sequential(*steps, shape=(12, 10, 3)).save(tmp_path / "kinked.keras")
    return tmp_path / "kinked.keras"


def write(folder, pictures):
    folder.mkdir()
    for index, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{index}.png")
    return folder


def test_more_images_are_drawn_until_every_judge_has_one(kinked_path, tmp_path, monkeypatch, capsys):
    """Black ones are judged by nobody but the rules."""
    black, right = np.zeros((12, 10, 3), np.uint8), Engine.jacobian
    monkeypatch.setattr(Engine, "jacobian", lambda self, x: right(self, x + np.float32(1e-7)))
    grey = np.random.default_rng(0).integers(0, 256, black.shape, np.uint8)
    folder = write(tmp_path / "some", [black, black, black, grey])
    assert main(command(kinked_path, folder, tmp_path, 1)) == 0
    shown = capsys.readouterr().out
    assert shown.count("passed") == 5 and "over 1" in shown


def test_where_no_judge_of_a_question_could_judge_the_status_is_1(kinked_path, tmp_path, monkeypatch, capsys):
    black, right = np.zeros((12, 10, 3), np.uint8), Engine.jacobian
    monkeypatch.setattr(Engine, "jacobian", lambda self, x: right(self, x + np.float32(1e-7)))
    folder = write(tmp_path / "none", [black, black])
    assert main(command(kinked_path, folder, tmp_path, 1)) == 1
    captured = capsys.readouterr()
    assert "not checked: the slope of the outputs" in captured.err
    assert (
        "not checked: a kink, or rounding, at every one of 2" in captured.out and "FAILED" not in captured.out
    )


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(capsys, caplog, monkeypatch):
    with caplog.at_level("INFO", "pipeline"), show_steps() as tell:
        tell("judging", 0, 3)
        tell("judging", 1, 3)
    assert caplog.messages == ["judging: 0 of 3 images"]
    monkeypatch.setenv("FORCE_COLOR", "1")
    with show_steps() as tell:
        tell("judging", 3, 3)
    assert "judging" in capsys.readouterr().err
