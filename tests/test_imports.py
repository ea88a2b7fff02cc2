"""What may import what: pipeline -> transforms -> augnet, and `import augnet` is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"augnet": {"transforms", "pipeline"}, "transforms": {"pipeline"}, "pipeline": set()}
OTHERS = {"augnet": {"apache_beam", "argparse"}, "transforms": {"argparse"}, "pipeline": set()}
MODULES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))


def imported(path):
    """Top-level packages of every import of a file, wherever it stands; relative ones are its own package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if (
                name in ("import_module", "__import__")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                yield str(node.args[0].value).split(".")[0]


def test_the_packages_are_there():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} >= {"augnet", "pipeline"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_direction_of_imports(path):
    package = path.relative_to(ROOT).parts[0]
    assert not set(imported(path)) & (FORBIDDEN[package] | OTHERS[package])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_library_does_not_print(path):
    if path.relative_to(ROOT).parts[0] == "augnet":
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]


def loaded_by(code, names):
    """Which of the packages a fresh interpreter has loaded after `code`."""
    script = f"{code}\nimport sys\nprint(*({set(names)!r} & {{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_import_augnet_is_light():
    heavy = ["apache_beam", "tensorflow", "keras", "pyarrow", "matplotlib", "transforms", "pipeline"]
    assert loaded_by("import augnet; assert 'AugNet' in dir(augnet), dir(augnet)", heavy) == set()


def test_unknown_names():
    import augnet

    assert augnet.__version__ and set(augnet.__all__) >= {"AugNet", "open_audit"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        augnet.nothing  # noqa: B018
