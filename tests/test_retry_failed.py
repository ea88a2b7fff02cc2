"""`--retry-failed`: what failed is done again, and then nothing tells that it had failed."""

import shutil
import signal

import pytest
from audit_processes import audit_command, digests
from conftest import small_cnn, write_images

import augnet
from augnet.audits.integrity import check
from pipeline.main import main

FLAGS = ("--store.shard_bytes=50000", "--log-level=error", "--failures.max_fraction=0.5")  # 8 images a unit
BROKEN = ("ant/0003.png", "bee/0022.png", "cow/0038.png")  # in the first, third and last of five units


@pytest.fixture(scope="module")
def audits(tmp_path_factory):
    """A folder with two audits: `whole`; and `failed`, at whose time some images were broken."""
    folder = tmp_path_factory.mktemp("audits")
    small_cnn().save(folder / "cnn.keras")
    write_images(folder / "images", 40)
    assert main(command(folder, folder / "whole")) == 0  # this one chooses the programs for all
    contents = {name: (folder / "images" / name).read_bytes() for name in BROKEN}
    for name, data in contents.items():
        (folder / "images" / name).write_bytes(data[:60])
    assert main(command(folder, folder / "failed")) == 0
    for name, data in contents.items():
        (folder / "images" / name).write_bytes(data)
    return folder


@pytest.fixture
def out(audits, tmp_path):
    """A copy of the audit in which images failed."""
    return shutil.copytree(audits / "failed", tmp_path / "out")


def command(audits, output, *flags):
    return audit_command(audits / "cnn.keras", audits / "images", output, *FLAGS, *flags)


def written(folder):
    """When each table of statistics was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "statistics").iterdir()}


def test_afterwards_nothing_tells_that_there_was_a_failure(audits, out):
    assert sorted(augnet.open_audit(out).failures["image_id"].to_pylist()) == list(BROKEN)
    before = written(out)
    assert main(command(audits, out, "--retry-failed")) == 0
    assert digests(out) == digests(audits / "whole")
    assert check(str(out)) == []
    again = [name for name, when in written(out).items() if when != before[name]]
    assert len(before) == 5 and len(again) == 3


def test_what_fails_again_stays_a_failure(audits, out):
    whole = (audits / "images" / BROKEN[0]).read_bytes()
    (audits / "images" / BROKEN[0]).write_bytes(b"no image")
    assert main(command(audits, out, "--retry-failed")) == 0
    (audits / "images" / BROKEN[0]).write_bytes(whole)
    audit = augnet.open_audit(out)
    assert audit.counts == {"planned": 40, "audited": 39, "failed": 1}
    assert audit.failures["image_id"].to_pylist() == [BROKEN[0]]
    assert check(str(out)) == []


def test_killed_half_way_it_goes_on_with_and_without_the_flag(audits, out, tmp_path, fork_server):
    retry, plain = command(audits, out, "--retry-failed"), command(audits, out)
    # Files are moved into place: first the plan, then six for each unit.
    for arguments, move in ((retry, 1), (retry, 3), (plain, 9)):
        assert fork_server.run(arguments, die_at=move) == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert fork_server.run(retry) == 0, (tmp_path / "log").read_text()
    assert digests(out) == digests(audits / "whole")


def test_where_nothing_failed_nothing_is_done(audits, capsys):
    before = digests(audits / "whole"), written(audits / "whole")
    assert main(command(audits, audits / "whole", "--retry-failed")) == 0
    assert "no image failed" in capsys.readouterr().out
    assert (digests(audits / "whole"), written(audits / "whole")) == before


def test_an_audit_must_be_there_and_be_the_same(audits, out, tmp_path, capsys):
    before = digests(out)
    assert main(command(audits, tmp_path / "none", "--retry-failed")) == 2
    assert "holds no audit" in capsys.readouterr().err and not (tmp_path / "none").exists()
    assert main(command(audits, out, "--retry-failed", "--fresh")) == 2
    assert "give one" in capsys.readouterr().err
    assert main(command(audits, out, "--retry-failed", "--jacobian.outputs=predicted")) == 2
    assert "holds another audit" in capsys.readouterr().err
    assert digests(out) == before
