import pytest
import yaml

from augnet.config import Config, config_json, config_keys, flag_value, load_config
from augnet.errors import ConfigError
from augnet.selection import ALL, RowSelection

MINIMAL = {"model.path": "m.keras", "images.path": "images", "output": "out"}


def config(**flags):
    return load_config(flags=MINIMAL | {key.replace("__", "."): value for key, value in flags.items()})


def test_three_values_are_enough():
    made = config()
    assert made.jacobian.outputs == ALL and made.store.jacobians == ALL
    assert made.store.max_bytes == 100 * 1000**3 and made.store.shard_bytes == 256 * 1024**2


def test_a_config_survives_run_json():
    made = config(
        preprocess__scale={"mean": [0.5], "std": [0.2]}, jacobian__outputs=[0, 3], jacobian__memory="8GB"
    )
    assert Config.model_validate(config_json(made)) == made


def test_rows_are_written_as_they_are_read():
    made = config(jacobian__outputs=[3, 0], store__jacobians="none")
    assert (made.jacobian.outputs, made.store.jacobians) == (RowSelection.parse([3, 0]), None)
    written = config_json(made)
    assert (written["jacobian"]["outputs"], written["store"]["jacobians"]) == ([3, 0], "none")
    assert config_json(config(jacobian__outputs="top:5"))["jacobian"]["outputs"] == "top:5"


def test_memory_is_written_with_a_unit():
    assert config(jacobian__memory="8GiB").jacobian.memory == 8 * 1024**3
    assert config().jacobian.memory == "auto"


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({"model": {"path": "a"}, "images": {"path": "b"}, "output": "c"}))
    made = load_config(str(path), {"output": "d", "jacobian.outputs": "top:5"})
    assert (made.model.path, made.output, str(made.jacobian.outputs)) == ("a", "d", "top:5")


def test_a_file_may_have_dotted_keys(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("model.path: a\nimages: {path: b}\nimages.limit: 3\noutput: c\n")
    made = load_config(str(path))
    assert (made.model.path, made.images.path, made.images.limit, made.output) == ("a", "b", 3, "c")


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"jacobian.outputs": "best"}, ["jacobian.outputs", "'best'", "top:N"]),
        ({"jacobian.outputs": [1, 1]}, ["jacobian.outputs", "once"]),
        ({"jacobian.outputs": "none"}, ["jacobian.outputs", "'none'"]),
        ({"jacobian.outputs": None}, ["jacobian.outputs", "null", "top:N"]),
        ({"store.jacobians": "some"}, ["store.jacobians", "'some' does not fit; give none, or all,"]),
        ({"jacobian.batch_size": 0}, ["jacobian.batch_size", "0"]),
        ({"jacobian.memory": "much"}, ["jacobian.memory", "much"]),
        ({"statistics.border": 0.7}, ["statistics.border", "0.7", "0.5"]),
        (
            {"store.format": "npz", "store.dtype": "bfloat16"},
            ["store.dtype: 'bfloat16' does not fit; give float32 or float16, or store.format: parquet"],
        ),
        ({"store.format": "csv"}, ["store.format", "'csv'", "parquet", "npz"]),
        ({"images.pth": "x"}, ["images.pth", "no such key", "images.path"]),
        ({"jacobian.outputs": "predicted"}, []),
        (
            {"jacobian.outputs": "predicted", "store.jacobians": "top:2"},
            ["store.jacobians", "does not compute"],
        ),
        ({"preprocess.size": [0, 10]}, ["preprocess.size", "0"]),
        ({"preprocess.scale": {"mean": [0.5], "std": [0]}}, ["preprocess.scale"]),
    ],
)
def test_errors_name_key_value_and_rule(flags, words):
    if not words:
        load_config(flags=MINIMAL | flags)
        return
    with pytest.raises(ConfigError) as caught:
        load_config(flags=MINIMAL | flags)
    for word in words:
        assert word in str(caught.value)


def test_each_missing_key_is_named():
    with pytest.raises(ConfigError) as caught:
        load_config(flags={})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "model.path",
        "images.path",
        "output",
    ]


@pytest.mark.parametrize(
    "text", ["[1, 2", "- a", "", "a: [", "\x00", "!!python/object/apply:os.system ['ls']"]
)
def test_a_bad_file_is_an_error_and_runs_nothing(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="config"):
        load_config(str(path))


def test_flag_values_are_yaml():
    assert flag_value("jacobian.outputs", "[0, 3]") == [0, 3]
    assert flag_value("jacobian.outputs", "top:5") == "top:5"
    assert flag_value("preprocess.scale", "{mean: [0.5], std: [0.2]}") == {"mean": [0.5], "std": [0.2]}
    assert flag_value("jacobian.outputs", "[oops") == "[oops"


def test_a_flag_that_takes_text_is_text():
    assert flag_value("output", "2024-01-01") == "2024-01-01"
    assert flag_value("images.path", "007") == "007"
    assert flag_value("images.image", "null") is None


def test_every_key_has_a_description():
    assert all(field.description for field in config_keys().values())


@pytest.mark.parametrize("name", ["quickstart", "local", "flink", "dataflow"])
def test_shipped_configs_are_valid(name):
    load_config(f"configs/{name}.yaml")


def test_local_config_shows_the_defaults():
    assert load_config("configs/local.yaml").model_copy(update={"beam": {}}) == load_config(
        flags={"model.path": "model.keras", "images.path": "images", "output": "audit"}
    )
