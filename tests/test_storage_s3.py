"""An S3 server on loopback: files appear whole, faults of network and store are survived, others are told."""

import io

import fsspec
import pytest
from s3_server import BUCKET, FAULTS, s3_server

from augnet.errors import AuditError, ConfigError
from augnet.storage import names
from augnet.storage.addresses import READ_BYTES, StoreError, open_address, open_file, retried, retries
from augnet.storage.files import OutputFolder

RECORD = names.shard("records", 0, 2)


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as server:
        yield server


@pytest.fixture
def s3(server):
    """The server, in good health."""
    server.share, server.faults, server.below = 0.0, FAULTS, "/"
    server.spoiled.clear()
    retries.take()
    return server


@pytest.fixture
def folder(s3, request):
    return OutputFolder(f"s3://{BUCKET}/{request.node.name}")


def test_a_folder_in_a_bucket_is_one(folder):
    folder.write_json(RECORD, {"b": 1})
    folder.write_bytes("records/foreign.json", b"{}")
    folder.write_bytes("notes/mine.txt", b"x")
    assert folder.names("records") == [RECORD] and folder.names("statistics") == []
    assert sorted(folder.foreign_names()) == ["notes/mine.txt", "records/foreign.json"]
    assert folder.read_json(RECORD) == {"b": 1} and folder.modified(RECORD) > 1.6e9
    assert folder.intact(folder.entry(RECORD)) and folder.exists(RECORD) and not folder.exists(names.RUN)
    folder.remove_audit()
    assert not folder.exists(RECORD) and folder.exists("notes/mine.txt")


def test_what_another_process_writes_is_seen_at_once(folder):
    assert folder.names("records") == [] and not folder.exists(RECORD)
    other, path = open_address(folder.root, "output")
    other.pipe_file(f"{path}/{RECORD}", b"{}")
    assert folder.names("records") == [RECORD] and folder.exists(RECORD)


def test_an_object_appears_whole_or_not_at_all(folder):
    with pytest.raises(RuntimeError), folder.writing(RECORD) as path:
        path.write_bytes(b"half")
        assert not folder.exists(RECORD)
        raise RuntimeError("killed")
    assert not folder.exists(RECORD)


@pytest.mark.parametrize(
    ("below", "share", "faults"),
    [
        ("/", 0.05, ("503", "no answer", "cut answer")),  # one try is five requests or more
        ("?uploadId=", 0.3, ("cut answer",)),  # the last of them, which is then done, but not known to be
    ],
    ids=["any request", "the last"],
)
def test_a_large_shard_is_uploaded_in_parts_and_appears_with_the_last(
    s3, folder, monkeypatch, below, share, faults
):
    part = 5 * 2**20  # the least that S3 takes; s3fs has 50
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None: part)
    data = bytes(range(256)) * (part // 100)
    s3.below, s3.share, s3.faults = below, share, faults
    while not s3.spoiled:  # which requests are spoiled is drawn by lot
        with folder.writing(RECORD) as path:
            path.write_bytes(data)
    s3.share = 0
    assert folder.entry(RECORD).size == len(data) and folder.intact(folder.entry(RECORD))


def test_of_several_writers_the_first_one_wins(folder):
    for value in (1, 2):
        folder.write_json_once("engine-cpu.json", {"value": value})
    assert folder.read_json("engine-cpu.json") == {"value": 1}
    assert folder.engine_names() == ["engine-cpu.json"]


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass_are_survived_and_retries_counted(s3, folder, fault):
    folder.write_bytes("a", b"x" * 100_000)
    s3.share, s3.faults = 0.1, (fault,)
    while s3.spoiled.total() < 16:  # to cut an answer that has no body spoils nothing
        folder.write_bytes(RECORD, b"y" * 100_000)
        assert folder.read_bytes(RECORD) == b"y" * 100_000 and folder.names("records") == [RECORD]
        assert folder.exists("a") and not folder.exists("b") and list(folder.audit_names()) == [RECORD]
        with folder.open("a") as stream:
            assert stream.read() == b"x" * 100_000
    counted = retries.take()
    # aiohttp itself sends a request anew where a connection that was open is reset.
    assert counted == 0 if fault == "slow" else counted > 0 or fault == "no answer"


def test_an_answer_that_does_not_come_is_asked_for_again(s3, folder, monkeypatch):
    folder.write_bytes("a", b"x")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 0.1}})
    folder.fs.clear_instance_cache()
    impatient = OutputFolder(folder.root)
    s3.share, s3.faults = 0.1, ("slow",)
    while not s3.spoiled:
        assert [impatient.read_bytes("a") for _ in range(4)] == [b"x"] * 4
    assert s3.spoiled and retries.take()
    folder.fs.clear_instance_cache()


@pytest.mark.parametrize("fault", ["503", "slow down", "no answer"])
def test_a_store_that_is_down_is_one_message(s3, folder, fault, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    folder.fs.clear_instance_cache()
    folder = OutputFolder(folder.root)
    s3.share, s3.faults = 1.0, (fault,)
    for call in (
        lambda: folder.read_bytes(names.RUN),
        lambda: folder.exists(names.RUN),
        lambda: folder.names("records"),
        lambda: list(folder.audit_names()),
        lambda: folder.open(names.RUN),
    ):
        with pytest.raises(StoreError, match=r"\(tried 7 times\)"):
            call()
    with pytest.raises(AuditError, match=r"cannot write .* \(tried 7 times\)\); mend that") as told:
        folder.write_bytes(names.RUN, b"{}")
    assert "\n" not in str(told.value)
    folder.fs.clear_instance_cache()


def test_what_will_not_pass_is_not_tried_again(s3):
    missing = OutputFolder("s3://no-such-bucket/out")
    assert not missing.exists(names.RUN) and missing.names("records") == []
    with pytest.raises(AuditError, match=r"cannot write run.json in s3://no-such-bucket/out \(.*exist"):
        missing.write_bytes(names.RUN, b"{}")
    calls = []

    def refused():
        calls.append(1)
        raise PermissionError("Access Denied")

    with pytest.raises(PermissionError):
        retried(refused)
    assert len(calls) == 1 and retries.take() == 0


def test_a_large_file_is_read_by_ranges(s3, folder):
    data = bytes(range(256)) * (10 * 2**12)  # 10 MiB
    folder.write_bytes("a", data)
    before = s3.sent
    with open_file(folder.fs, folder.path("a")) as stream:
        assert stream.seek(-3, io.SEEK_END) == len(data) - 3 and stream.read(10) == data[-3:]
        assert stream.seek(7) == 7 and stream.read(5) == data[7:12]
        assert stream.read(3) == data[12:15] and stream.tell() == 15
    assert s3.sent - before <= READ_BYTES + 3
    with folder.open("a") as stream:
        assert stream.read() == data


def test_a_kind_of_address_that_nothing_opens_names_the_extra():
    with pytest.raises(ConfigError, match=r"output: 'nosuch://b/out' cannot be opened .*augnet\[s3\]"):
        OutputFolder("nosuch://me:hunter2@b/out")
