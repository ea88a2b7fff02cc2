"""The package that workers install, built as Beam builds it, and the command's part in that."""

import logging
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import SetupOptions
from apache_beam.runners.portability.stager import Stager

from pipeline import packaging
from pipeline.packaging import checkout, send_package
from pipeline.runners import make_options

ROOT = Path(__file__).parents[1]
NOT_SOURCES = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "augnet-demo", "build", "dist")
RENDER = """
import sys
import augnet, transforms.audit, pipeline.main
from augnet.report import page
assert augnet.__file__.startswith({target!r}), augnet.__file__
print(len(page.__loader__.get_data(str(page.__file__).replace("page.py", "template.html"))))
"""


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """What `--setup_file=./setup.py` sends, built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT, folder / "checkout", ignore=NOT_SOURCES)
    (folder / "built").mkdir()
    return Path(Stager._build_setup_package(str(folder / "checkout" / "setup.py"), str(folder / "built")))


def test_every_module_template_and_config_is_in_it(sdist):
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"configs/dataflow.yaml", "configs/quickstart.yaml", "augnet/report/template.html", "README.md"}
    wanted |= {f"augnet/report/static/{name}" for name in ("report.css", "core.js", "report.js")}
    for package in ("augnet", "transforms", "pipeline"):
        wanted |= {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob("*.py")}
    assert wanted <= found
    assert not [name for name in found if name.startswith(("tests/", "benchmarks/", "docs/"))]


def test_it_installs_into_an_empty_folder_and_works_from_there(sdist, tmp_path):
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*install, "--quiet", "--target", str(target), str(sdist)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target), "TF_CPP_MIN_LOG_LEVEL": "3"}
    code = [sys.executable, "-c", RENDER.format(target=str(target))]
    shown = subprocess.run(code, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert int(shown.stdout) > 1000


def sent(*flags):
    """The setup.py that is set for a command with these flags, relative to the checkout."""
    options = make_options(list(flags), {})
    given = send_package(options)
    assert given == (options.view_as(SetupOptions).setup_file if given else None)
    return given and Path(given).relative_to(ROOT).as_posix()


def test_remote_workers_are_sent_the_checkout_and_the_user_is_told(caplog):
    caplog.set_level(logging.INFO, logger=packaging.__name__)
    assert sent("--runner=DataflowRunner", "--sdk_container_image=image") == "setup.py"
    assert sent("--runner=FlinkRunner", "--flink_master=host:8081") == "setup.py"
    assert "installed on every worker" in caplog.text


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--runner=FlinkRunner", "--environment_type=PROCESS"],
        ["--runner=FlinkRunner", "--environment_type=EXTERNAL"],
        ["--runner=FlinkRunner", "--flink_master=[local]"],
        ["--runner=DataflowRunner", "--extra_package=mine.tar.gz"],
    ],
)
def test_nothing_is_sent_to_workers_that_have_it(flags):
    assert sent(*flags) is None


def test_a_package_of_the_users_own_stays():
    options = make_options(["--runner=DataflowRunner", "--setup_file=mine/setup.py"], {})
    assert send_package(options) is None
    assert options.view_as(SetupOptions).setup_file == "mine/setup.py"


def test_an_installed_augnet_has_nothing_to_send_and_says_so(monkeypatch, caplog, tmp_path):
    assert checkout(tmp_path) is None and checkout() == ROOT
    monkeypatch.setattr(packaging, "checkout", lambda: None)
    assert sent("--runner=DataflowRunner") is None
    assert "the workers must have augnet installed" in caplog.text
