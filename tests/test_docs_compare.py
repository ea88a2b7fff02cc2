"""The commands of docs/how-to/compare.md and of its workflow file do what the page says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import small_cnn, write_images

from augnet.comparison.gate import DEFAULT_RULES, MIN_BEYOND, MIN_IMAGES, parse_rule, read_rules
from pipeline.main import main

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "how-to" / "compare.md").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((DOCS / "ci" / "github-actions.yml").read_text(encoding="utf-8"))
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    write_images(folder / "photos", 24)
    (folder / "images").symlink_to("photos")
    small_cnn().save(folder / "old.keras")
    for name in ("new", "model"):
        shutil.copy(folder / "old.keras", folder / f"{name}.keras")
    for name in ("epoch1", "epoch2", "epoch3", "released"):
        (folder / name).symlink_to("old")
    return folder


def test_the_commands_of_the_page_work_in_order(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    statuses = []
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "augnet"
        statuses.append(main([*arguments, "--log-level=error"]))
        if arguments[0] == "compare" and "--output" in arguments:
            written = {path.name for path in Path("comparison").iterdir()}
            assert set(re.findall(r"`comparison/([\w.]+)`", PAGE)) <= written
    assert statuses == [0] * 8  # old and new are the same model
    assert Path("comparison/gradient_variance.parquet").exists()
    assert "nothing is claimed" in capsys.readouterr().out  # of a model that was not trained


def test_the_steps_of_the_workflow_work(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    _, *audit_old = shlex.split(COMMANDS[0])
    assert main([*audit_old, "--log-level=error"]) == 0
    steps = [step["run"] for step in WORKFLOW["jobs"]["compare"]["steps"] if "run" in step]
    assert steps[0] == "pip install augnet"
    program = tmp_path / "augnet"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipeline "$@"\n')
    program.chmod(0o755)
    summary = tmp_path / "summary.md"
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(DOCS.parent),
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    for step in steps[1:]:
        done = subprocess.run(
            step, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 3), done.stderr  # 3: 24 images are few
    assert "augnet compare" in summary.read_text() and "accuracy drops 5pp" in summary.read_text()


def test_the_rules_of_the_page_are_rules(tmp_path):
    table = PAGE.split("| rule | fails where |")[1].split("\n\n")[0]
    rules = [rule for row in table.splitlines()[2:] for rule in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(rules) == 6 and all(parse_rule(rule) for rule in rules)
    (tmp_path / "gate.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    assert len(read_rules(str(tmp_path / "gate.yaml"))) == 3


def test_the_page_names_the_defaults_and_the_least_numbers():
    assert all(f"`{rule}`" in PAGE for rule in DEFAULT_RULES)
    assert f"fewer than {MIN_IMAGES} images" in PAGE and f"fewer than {MIN_BEYOND} beyond" in PAGE
