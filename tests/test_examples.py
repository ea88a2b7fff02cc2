"""The tutorials run."""

import ast
import importlib.util
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import augnet

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_create_augnet(tmp_path, capsys):
    example("create_augnet").main(["--quick", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "saved and loaded a AugNet; its Jacobian is the same: True" in printed
    difference = float(printed.split("Jacobian to finite differences: ")[1].split()[0])
    assert difference < 1e-3
    assert (tmp_path / "regression.keras").is_file()


def test_derivatives_of_the_target_function():
    module = example("create_augnet")
    x, step = np.array([0.3, -0.4, 0.5, 0.1]), 1e-6
    ahead, behind = module.target(x + step * np.eye(4)), module.target(x - step * np.eye(4))
    np.testing.assert_allclose(module.target_jacobian(x), ((ahead - behind) / (2 * step)).T, atol=1e-8)


def test_trained_model_to_augnet(tmp_path, capsys):
    example("trained_model_to_augnet").main(["--quick", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "same weights: True, and the same predictions: True" in printed
    assert float(printed.split("pixels differ from it by ")[1].split()[0]) < 1e-4
    assert "finite differences:" in printed and "evaluations" in printed
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["input.png", *(f"jacobian_{number:02d}.png" for number in range(13))]
    with Image.open(tmp_path / "input.png") as picture:
        assert picture.size == (32, 32)


def test_audit_in_notebook(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(EXAMPLES / "audit_in_notebook.py"))
    assert found["audit"].counts == {"planned": 1797, "audited": 1797, "failed": 0}
    assert found["audit"].summary["accuracy"] > 0.9
    assert (
        found["sample"].counts["audited"] == 200 and found["sample"].run["config"]["images"]["limit"] == 200
    )
    printed = capsys.readouterr()
    assert printed.out.count("margin_l2") == 6 and (tmp_path / "nearest.png").is_file()
    assert len(found["axes"]) == 3 and (tmp_path / "rival.png").is_file()
    wrong = found["audit"].statistics.to_pylist()
    expected = [row["image_id"] for row in wrong if not row["correct"] and row["probability"] > 0.9]
    assert found["sure_and_wrong"]["image_id"].to_pylist() == expected
    assert "augnet: 1797 images audited, 0 failed; report: " in printed.err


def test_the_page_on_notebooks_shows_what_the_example_runs():
    page = (EXAMPLES.parent / "docs" / "how-to" / "notebook.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    script = (EXAMPLES / "audit_in_notebook.py").read_text()
    assert len(blocks) == 5 and all(block in script for block in blocks)


def test_most_brittle_images(tmp_path, images, cnn_path, capsys):
    audit = augnet.audit(cnn_path, images, tmp_path / "audit", progress=False)
    example("most_brittle_images").main([str(tmp_path / "audit"), "--output", str(tmp_path / "brittle.png")])
    printed = capsys.readouterr().out.splitlines()
    named = [ast.literal_eval(line)["image_id"] for line in printed if line.startswith("{")]
    rows = {row["image_id"]: row for row in audit.statistics.to_pylist()}
    assert named == sorted(rows, key=lambda name: rows[name]["margin_l2"])[:10]
    right = sum(rows[name]["correct"] for name in named)
    assert printed[-2] == f"{right} of these 10 are predicted right"
    with Image.open(tmp_path / "brittle.png") as picture:
        assert picture.size == (800, 2200)


def test_embed_in_pipeline(tmp_path, images, cnn_path):
    output = tmp_path / "nearest.jsonl"
    arguments = ["--model", cnn_path, "--images", f"{images}/*/*.png", "--output", output, "--nearest", 5]
    example("embed_in_pipeline").main([*map(str, arguments), "--runner=FnApiRunner"])
    rows = [json.loads(text) for text in output.read_text().splitlines()]
    margins = [row["margin_l2"] for row in rows]
    assert len(rows) == 5 and margins == sorted(margins) and margins[0] > 0
    assert all(Path(row["image"]).is_file() and 0 <= row["border_fraction"] <= 1 for row in rows)
