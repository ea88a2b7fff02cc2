"""What may import what: one way between packages and inside augnet; and `import augnet` is light."""

import ast
import re
import subprocess
import sys
from inspect import ismodule
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"augnet": {"transforms", "pipeline"}, "transforms": {"pipeline"}, "pipeline": set()}
OTHERS = {"augnet": {"apache_beam", "argparse"}, "transforms": {"argparse"}, "pipeline": set()}

ORDER = (
    {"jobs"},
    {"report", "comparison", "export"},
    {"findings"},
    {"audits"},
    {"statistics", "engine", "sources", "storage", "models", "plots"},
    {"config", "selection", "errors", "redact"},
)
"""The rooms of augnet: each may import those on later lines."""

ROOMS = set().union(*ORDER)

NEIGHBOURS = {
    "comparison": {"report"},
    "statistics": {"engine", "storage"},
    "sources": {"storage"},
    "models": {"engine", "storage"},
    "config": {"selection", "errors", "redact"},
    "selection": {"errors"},
}
"""Whom a room may import of its own line."""

NEVER = {"engine": {"config"}}
"""Whom a room may not import although it stands on a later line."""

MOST_LINES = 400


def name_of(path):
    return path.relative_to(ROOT).as_posix()


MODULES = sorted(path for package in FORBIDDEN for path in (ROOT / package).rglob("*.py"))
every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def imported(path):
    """Dotted names of every import of a file, wherever it stands; of `from a import b` both a and a.b."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if (
                name in ("import_module", "__import__")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                yield str(node.args[0].value)


def room(parts):
    """The folder or module below augnet/ of a path's or dotted name's parts; None elsewhere."""
    return parts[1].removesuffix(".py") if parts[0] == "augnet" and len(parts) > 1 else None


def importable(name):
    """The rooms that a room may import: itself, those on later lines, and its neighbours."""
    line = next(number for number, rooms in enumerate(ORDER) if name in rooms)
    later = set().union(*ORDER[line + 1 :])
    return ({name} | later | NEIGHBOURS.get(name, set())) - NEVER.get(name, set())


def test_the_packages_are_there():
    assert {path.relative_to(ROOT).parts[0] for path in MODULES} == set(FORBIDDEN)


@every_module
def test_direction_of_imports(path):
    package = path.relative_to(ROOT).parts[0]
    packages = {name.split(".")[0] for name in imported(path)}
    assert not packages & (FORBIDDEN[package] | OTHERS[package])


@pytest.mark.parametrize(
    "path", [path for path in MODULES if room(path.relative_to(ROOT).parts)], ids=name_of
)
def test_direction_of_imports_inside_the_library(path):
    own = room(path.relative_to(ROOT).parts)
    if own != "__init__":  # it hands on what others offer, when first asked
        assert own in ROOMS, f"{own}: give it a line in ORDER"
        found = {room(name.split(".")) for name in imported(path)} & ROOMS
        assert found <= importable(own), f"{own} may not import {sorted(found - importable(own))}"


def test_the_top_of_the_library_holds_rooms_and_four_modules():
    modules = {path.stem for path in (ROOT / "augnet").glob("*.py")} - {"__init__"}
    assert len(modules) <= 4, sorted(modules)
    assert modules <= ORDER[-1]


@every_module
def test_a_file_can_be_read_in_one_sitting(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines; at most {MOST_LINES}: split it"


@every_module
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


def test_what_a_finished_audit_is_asked_needs_no_tensorflow():
    asked = ("audits.status", "audits.integrity", "audits.finalize", "report.page", "comparison.run")
    code = "import pipeline.main, " + ", ".join(f"augnet.{module}" for module in asked)
    assert loaded_by(code, ["apache_beam", "tensorflow", "keras", "sklearn", "matplotlib"]) == set()


def test_opening_an_audit_and_drawing_load_neither_model_nor_figures():
    heavy = ["apache_beam", "tensorflow", "keras", "matplotlib", "duckdb"]
    assert loaded_by("from augnet import open_audit, plot_jacobian, plot_map", heavy) == set()


def test_unknown_names():
    import augnet

    assert augnet.__version__ and set(augnet.__all__) >= {"AugNet", "open_audit"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        augnet.nothing  # noqa: B018


SPEAK_TENSORFLOW = (
    "augnet/engine/backends/",
    "augnet/engine/verif",  # the judges of the engine share nothing with it
    "augnet/models/",  # files that TensorFlow wrote
    "augnet/sources/",
)


def test_tensorflow_is_spoken_behind_the_backend_only():
    speaking = [
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == "augnet" and "tensorflow" in imported(path)
    ]
    assert speaking and not [name for name in speaking if not name.startswith(SPEAK_TENSORFLOW)]


def test_the_documented_backend_is_the_one_there_is():
    from augnet.engine.backends import backend

    text = (ROOT / "docs/ENGINE.md").read_text().split("## What a backend offers")[1]
    documented = set(re.findall(r"`(\w+)`", text.split("A second backend")[0])) - {"backend"}
    offered = {name for name, part in vars(backend).items() if not (name[0] == "_" or ismodule(part))}
    assert documented == offered - {"Program", "Signature"}
