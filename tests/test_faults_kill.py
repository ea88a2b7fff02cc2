"""SIGKILL at any moment, any number of times: the finished audit is the uninterrupted one, byte for byte."""

import os
import random
import signal
import time
from functools import partial

import pyarrow.parquet as pq
from audit_processes import audit_command, digests
from conftest import write_images

import augnet
from augnet.audits.integrity import check

KILLS = int(os.environ.get("AUGNET_KILLS", "12"))
IMAGES = int(os.environ.get("AUGNET_KILL_IMAGES", "120"))


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, cnn_path, fork_server):
    images = tmp_path / "images"
    write_images(images, IMAGES)
    (images / "ant" / "0000.png").write_bytes(b"not an image")
    # A shard of eight images: many units, and five files and a record in each to be killed between.
    flags = ("--store.shard_bytes=50000", "--log-level=warning")
    chance = random.Random(KILLS)
    began = time.monotonic()
    assert fork_server.run(audit_command(cnn_path, images, tmp_path / "whole", *flags)) == 0
    seconds = time.monotonic() - began
    expected = digests(tmp_path / "whole")

    command = audit_command(cnn_path, images, tmp_path / "out", *flags)
    records, killed, at = tmp_path / "out" / "records", 0, []
    units = len(list((tmp_path / "whole" / "records").iterdir()))
    while killed < KILLS:
        done = len(list(records.glob("*.json")))
        if killed % 2:
            goal = done + chance.randint(0, 2 * units // KILLS)
            delay = chance.choice((0, chance.uniform(0, 0.1), chance.uniform(0, 0.7 * seconds / KILLS)))
            reached = partial(_reached, records, goal)
            status = fork_server.run_until(reached, delay, command)
            at.append(f"unit {goal} + {delay:.2f} s")
        else:
            # Every kind of file is met: plan, run.json, shard, statistics, sidecar, record, summary.
            moment = chance.choice((1, -1)) * chance.randint(1, 3 + 6 * units // KILLS)
            status = fork_server.run(command, die_at=moment)
            at.append(f"move {moment}")
        assert status in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
        killed += status == -signal.SIGKILL
        if status == 0 and killed < KILLS:  # done too early: take half away, and go on killing
            for path in sorted(records.iterdir())[::2]:
                path.unlink()
    assert fork_server.run(command) == 0
    print(f"{killed} kills over {IMAGES} images, an uninterrupted run takes {seconds:.1f} s; {', '.join(at)}")
    assert digests(tmp_path / "out") == expected
    assert check(str(tmp_path / "out")) == []

    audit = augnet.open_audit(tmp_path / "out")
    planned = pq.read_table(tmp_path / "out" / "plan.parquet")["image_id"].to_pylist()
    audited, failed = (table["image_id"].to_pylist() for table in (audit.statistics, audit.failures))
    assert len(planned) == IMAGES and failed == ["ant/0000.png"]
    assert sorted(audited + failed) == sorted(set(planned)) == sorted(planned)


def _reached(records, goal):
    return len(list(records.glob("*.json"))) >= goal
