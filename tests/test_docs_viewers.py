"""The commands of docs/how-to/viewers.md write what the page says, and its code reads it.

Embedding Atlas and FiftyOne are not installed here: their commands are compared with those that are printed.
"""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest
from audit_processes import audit_command
from conftest import small_cnn, write_images

from augnet.export.images import MOST_IMAGES
from augnet.export.projection import FEWEST
from augnet.export.run import COMMANDS, ENDINGS
from augnet.statistics.gallery import THUMBNAIL_PIXELS
from pipeline.main import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "how-to" / "viewers.md").read_text(encoding="utf-8")
COMMANDS_OF_PAGE = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
PANDAS = re.search(r"^## pandas\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)[1]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """The folder in which the commands of the page that are ours were run, and what they said."""
    folder = tmp_path_factory.mktemp("viewers")
    write_images(folder / "images", 48)
    small_cnn().save(folder / "model.keras")
    command = audit_command(folder / "model.keras", folder / "images", folder / "audit")
    assert main([*command, "--findings.enabled=false", "--log-level=error"]) == 0
    return folder


def test_the_commands_of_the_page_write_what_it_says(printed, monkeypatch, capsys):
    monkeypatch.chdir(printed)
    own = [shlex.split(line) for line in COMMANDS_OF_PAGE if line.startswith("augnet")]
    assert len(own) == 4 and all(main(arguments[1:]) == 0 for arguments in own)
    said = capsys.readouterr().out
    for name in re.findall(r"^\| `(audit[\w./-]*)`", PAGE, re.MULTILINE):
        assert (printed / name).exists(), name
    frame = pd.read_parquet("everything.parquet")
    named = set(re.findall(r"`([a-z_0-9]+)`", PAGE.split("## What is in it")[1].split("**A cluster")[0]))
    assert named <= set(frame.columns) and len(frame) == 48
    found = {}
    exec(compile(PANDAS, "viewers.md", "exec"), found)
    assert found["ways"]["images"].sum() == frame["cluster"].notna().sum()
    for to, command in COMMANDS.items():
        assert f"open it: {command.format(printed / f'audit{ENDINGS[to]}')}" in said
        assert "\n".join(command.format(f"audit{ENDINGS[to]}").split(" && ")) in PAGE


def test_the_page_names_the_extra_and_the_limits():
    setup = (ROOT / "setup.py").read_text()
    assert "'.[viewer]'" in COMMANDS_OF_PAGE[0] and '"viewer": [' in setup
    assert f"fewer than\n  {FEWEST} images" in PAGE and f"about {MOST_IMAGES:,} images" in PAGE
    assert f"at most {THUMBNAIL_PIXELS} pixels" in PAGE
