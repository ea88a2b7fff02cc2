"""What SECURITY.md promises of models, paths and secrets from strangers, tried through the commands."""

import os

import keras
import pytest
from audit_processes import audit_command
from conftest import SIZE

from augnet.redact import without_secrets
from pipeline.main import main

SECRETS = ("s3cret", "t0ken", "hunter2")


def spring(path):
    return lambda x: (__import__("os").mkdir(path), x)[1]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_model_that_carries_code_is_refused_and_the_code_does_not_run(tmp_path, images, capsys, suffix):
    sprung = str(tmp_path / "sprung")
    image = keras.Input((*SIZE, 3))
    made = keras.layers.Lambda(lambda x: x, output_shape=(*SIZE, 3))(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(made)))
    model.layers[1].function = spring(sprung)
    model.save(tmp_path / f"model.{suffix}")
    command = audit_command(tmp_path / f"model.{suffix}", images, tmp_path / "out", "--log-level=error")
    for action in ("audit", "plan"):
        assert main([action, *command[1:]]) == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and "carries code" in said[0] and "model.safe_mode" in said[0]
    assert not os.path.exists(sprung) and not (tmp_path / "out").exists()


def test_no_secret_of_a_uri_or_of_the_environment_is_written(tmp_path, images, cnn_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    monkeypatch.chdir(tmp_path)  # an address with a user is no absolute path: its files land below
    config = tmp_path / "config.yaml"
    config.write_text(
        f"model: {{path: {cnn_path}}}\nimages: {{path: {images}}}\n"
        f"output: file://user:s3cret@{tmp_path}/out?token=t0ken\nbeam: {{job_name: hunter2}}\n"
    )
    assert main(["audit", str(config), "--log-level=debug"]) in (0, 1, 2)
    out = tmp_path / "out"
    assert main([*audit_command(cnn_path, images, out, "--log-level=debug"), "--job_name=hunter2"]) == 0
    said = capsys.readouterr()
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    for secret in SECRETS:
        assert secret.encode() not in written
        assert secret not in said.err.replace(str(config), "")


@pytest.mark.parametrize("flag", ["--model", "--images"])
@pytest.mark.parametrize("address", ["s3://key:hunter2@bucket/x", "https://host/x?X-Amz-Signature=hunter2"])
def test_an_address_with_a_password_is_refused_and_not_repeated(tmp_path, capsys, flag, address):
    command = audit_command("s3://bucket/model.keras", "s3://bucket/images", tmp_path / "out")
    assert main([*command, flag, address]) == 2
    said = capsys.readouterr().err
    assert "without a password" in said and "hunter2" not in said and said.count("\n") == 1


@pytest.mark.parametrize(
    "text, shown",
    [
        ("s3://key:secret@bucket/audit?token=abc", "s3://bucket/audit"),
        ("cannot write 'https://me:pw@host/x?sig=1&y=2', sorry", "cannot write 'https://host/x', sorry"),
        ("two: gs://a@b/c and ftp://d:e@f/g", "two: gs://b/c and ftp://f/g"),
        ("/plain/path?x=1 me@home", "/plain/path?x=1 me@home"),
    ],
)
def test_secrets_are_taken_out_of_texts(text, shown):
    assert without_secrets(text) == shown


def test_hostile_yaml_is_no_code(tmp_path, capsys):
    for text in (
        f"!!python/object/apply:os.mkdir [{tmp_path}/sprung]",
        "[" * 5000,
        "a: &a [x]\nb: &b [*a, *a]\nmodel: *b",
        "1: 2",
        "model: 3",
        "\x00",
        "? [a]\n: b",
        "output: [",
    ):
        (tmp_path / "config.yaml").write_text(text)
        assert main(["audit", str(tmp_path / "config.yaml")]) == 2
        said = capsys.readouterr().err
        assert said.startswith("augnet: ") and "Traceback" not in said
    assert not (tmp_path / "sprung").exists()
