"""Every command of docs/how-to/s3.md, in its order, in a bucket of that name on loopback."""

import re
import shlex
from pathlib import Path

import fsspec
import pytest
from conftest import small_cnn, write_images
from s3_server import s3_server

from pipeline.main import main

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "s3.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.replace("\\\n", "").splitlines()
    if line.startswith("augnet ")
]
CODE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


def test_the_commands_and_the_code_of_the_page_work(tmp_path, monkeypatch):
    small_cnn().save(tmp_path / "model.keras")
    write_images(tmp_path / "photos", 6)
    with s3_server(monkeypatch, bucket="my-bucket"):
        store = fsspec.filesystem("s3")
        store.put(str(tmp_path / "model.keras"), "my-bucket/model.keras")
        store.put(str(tmp_path / "photos"), "my-bucket/photos", recursive=True)
        assert len(COMMANDS) == 5
        for command in COMMANDS:
            assert main([*shlex.split(command)[1:], "--log-level=warning"]) == 0, command
        found: dict[str, object] = {}
        exec(CODE, found)
        assert found["audit"].counts == {"planned": 6, "audited": 6, "failed": 0}


@pytest.mark.parametrize("extra", ["s3", "gcs"])
def test_the_extras_exist(extra):
    setup = (Path(__file__).parents[1] / "setup.py").read_text(encoding="utf-8")
    assert f"'.[{extra}]'" in PAGE and f'"{extra}": [' in setup
