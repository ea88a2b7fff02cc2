"""SIGKILL at any moment, any number of times: the finished audit is the uninterrupted one, byte for byte."""

import os
import random
import signal
import time

import pyarrow.parquet as pq
from audit_processes import ForkServer, audit_command, digests
from conftest import write_images

import augnet
from augnet.checking import check

KILLS = int(os.environ.get("AUGNET_KILLS", "30"))
IMAGES = int(os.environ.get("AUGNET_KILL_IMAGES", "200"))


def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, cnn_path):
    images = tmp_path / "images"
    write_images(images, IMAGES)
    (images / "ant" / "0000.png").write_bytes(b"not an image")
    # A shard of eight images: many units, and five files and a record in each to be killed between.
    flags = ("--store.shard_bytes=50000", "--log-level=warning")
    random_moments = random.Random(KILLS)
    with ForkServer(tmp_path / "log") as server:
        began = time.monotonic()
        assert server.run(audit_command(cnn_path, images, tmp_path / "whole", *flags)) == 0
        seconds = time.monotonic() - began
        expected = digests(tmp_path / "whole")

        command = audit_command(cnn_path, images, tmp_path / "out", *flags)
        killed, at = 0, []
        while killed < KILLS:
            if killed % 2:
                moment = random_moments.uniform(0.2, 0.7) * seconds
                status = server.run_for(moment, command)
                at.append(f"{moment:.2f} s")
            else:
                # Every kind of file is met: plan, run.json, shard, statistics, failures, sidecar, record.
                moment = random_moments.choice((1, -1)) * random_moments.randint(1, 3 + IMAGES // KILLS)
                status = server.run(command, die_at=moment)
                at.append(f"move {moment}")
            assert status in (0, -signal.SIGKILL), (tmp_path / "log").read_text()
            killed += status == -signal.SIGKILL
            if status == 0 and killed < KILLS:  # done too early: take away the end, and go on killing
                for name in ("manifest.json", "summary.json"):
                    (tmp_path / "out" / name).unlink()
        assert server.run(command) == 0
    print(f"{killed} kills over {IMAGES} images, an uninterrupted run takes {seconds:.1f} s; {', '.join(at)}")
    assert digests(tmp_path / "out") == expected
    assert check(str(tmp_path / "out")) == []

    audit = augnet.open_audit(tmp_path / "out")
    planned = pq.read_table(tmp_path / "out" / "plan.parquet")["image_id"].to_pylist()
    audited, failed = (table["image_id"].to_pylist() for table in (audit.statistics, audit.failures))
    assert len(planned) == IMAGES and failed == ["ant/0000.png"]
    assert sorted(audited + failed) == sorted(set(planned)) == sorted(planned)
