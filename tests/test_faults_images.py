"""A folder of broken and odd files: every one is audited, or a failure with a stage and a reason."""

import re

from audit_processes import audit_command
from broken_images import write_broken_images

import augnet
from augnet.audits.integrity import check
from pipeline.main import main

STAGES = {"read", "decode", "preprocess"}


def test_every_broken_file_is_audited_or_a_failure_with_a_reason(tmp_path, cnn_path):
    count = write_broken_images(tmp_path / "images")
    assert count >= 300
    out = tmp_path / "out"
    command = audit_command(cnn_path, tmp_path / "images", out, "--log-level=error")
    assert main([*command, "--failures.max_fraction=1"]) == 0
    audit = augnet.open_audit(out)
    audited, failures = audit.statistics["image_id"].to_pylist(), audit.failures.to_pylist()
    assert audit.counts["planned"] == count == len(audited) + len(failures)
    assert len({*audited, *(failure["image_id"] for failure in failures)}) == count
    assert check(str(out)) == []

    # Whole files of ordinary kinds are audited, whatever their suffix; the hopeless ones are not.
    assert sum(name.startswith(("whole/", "wrong suffix/")) for name in audited) >= 50
    failed = {failure["image_id"]: failure for failure in failures}
    for name in ("odd/bomb.png", "odd/empty.png", "links/loop a.png", "links/outside.png", "links/pipe.png"):
        assert name in failed
    assert "names/line\nbreak.png" in audited and f"names/{'long ' * 49}.png" in audited
    for failure in failures:
        assert failure["stage"] in STAGES
        assert len(failure["error"].split()) >= 3, failure
        assert not re.search(r"0x[0-9a-f]{6}|Traceback|/tmp/", failure["error"]), failure
    page = (out / "report" / "index.html").read_text()
    assert "<b>.png" not in page and "<script>alert" not in page
