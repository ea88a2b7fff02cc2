import json
import os
import stat

import pytest

from augnet.errors import AuditError
from augnet.storage import names
from augnet.storage.files import FileEntry, OutputFolder, UnitRecord, json_bytes, unsealed


@pytest.fixture
def folder(tmp_path):
    return OutputFolder(str(tmp_path / "out"))


def test_a_file_appears_whole_or_not_at_all(folder):
    with pytest.raises(RuntimeError), folder.writing("records/a.json") as path:
        path.write_text("half")
        assert folder.names("records") == []
        raise RuntimeError("killed")
    assert not folder.exists("records/a.json")
    assert os.listdir(folder.path("records")) == []


def test_a_failed_rewrite_leaves_the_old_file(folder):
    folder.write_bytes("a", b"old")
    with pytest.raises(RuntimeError), folder.writing("a") as path:
        path.write_bytes(b"new")
        raise RuntimeError("killed")
    assert folder.read_bytes("a") == b"old"


def test_files_are_private_while_written_and_then_follow_the_umask(folder):
    with folder.writing("a") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(os.stat(folder.path("a")).st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("change", [b"data!", b"dat", b"atad"])
def test_an_altered_file_is_not_intact(folder, change):
    folder.write_bytes("a", b"data")
    entry = folder.entry("a")
    assert folder.intact(entry)
    folder.write_bytes("a", change)
    assert not folder.intact(entry)


def test_a_missing_file_is_not_intact(folder):
    assert not folder.intact(FileEntry("gone", 0, ""))


def test_remote_folders_work_alike():
    folder = OutputFolder("memory://audit")
    name = names.shard("records", 0, 1)
    folder.write_json(name, {"b": 1})
    folder.write_json("records/foreign.json", {"b": 2})
    assert folder.names("records") == [name]
    assert list(folder.foreign_names()) == ["records/foreign.json"]
    assert folder.read_json(name) == {"b": 1}
    assert folder.intact(folder.entry(name))
    folder.remove_audit()
    assert not folder.exists(name) and folder.exists("records/foreign.json")


def test_record_round_trip():
    record = UnitRecord(3, "f" * 64, 10, 9, 1, (FileEntry("statistics/x", 5, "a" * 64),))
    assert UnitRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"files": [1]}', b'{"files": [], "unit_id": 1}'])
def test_a_torn_record_is_no_record(data):
    with pytest.raises(ValueError):
        UnitRecord.from_json(data)


def test_json_is_stable_and_refuses_nan():
    assert json_bytes({"b": 1, "a": 2}) == json_bytes(dict(sorted({"b": 1, "a": 2}.items())))
    assert json.loads(json_bytes({"é": None})) == {"é": None}
    with pytest.raises(ValueError):
        json_bytes({"a": float("nan")})


def test_only_what_an_audit_wrote_is_removed(folder):
    mine = ["mine.txt", "notes/mine.md", "statistics/mine.csv"]
    for name in (names.RUN, names.shard("records", 0, 1), "engine-cpu.json", names.REPORT, *mine):
        folder.write_bytes(name, b"x")
    assert sorted(folder.foreign_names()) == mine
    folder.remove_audit()
    assert sorted(folder.foreign_names()) == mine and not list(folder.audit_names())
    assert sorted(os.listdir(folder.path(""))) == ["mine.txt", "notes", "statistics"]


def test_names_that_lead_out_are_refused(folder):
    for name in ("../secret", "jacobians/../../secret", "a/.."):
        with pytest.raises(AuditError, match="outside"):
            folder.read_bytes(name)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"sha256": "x"}', b"\xff", b"[" * 100_000])
def test_what_is_not_sealed_is_damaged(folder, data):
    folder.write_bytes(names.MANIFEST, data)
    with pytest.raises(AuditError, match=names.MANIFEST):
        folder.read_sealed(names.MANIFEST)


def test_any_changed_byte_breaks_the_seal(folder):
    folder.write_sealed(names.MANIFEST, {"a": 1.5, "b": ["x", None, "é"]})
    assert folder.read_sealed(names.MANIFEST) == {"a": 1.5, "b": ["x", None, "é"]}
    data = folder.read_bytes(names.MANIFEST)
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(ValueError):
                unsealed(bytes(changed))


def test_shard_names_are_fixed():
    assert names.shard("statistics", 3, 32) == "statistics/part-00003-of-00032.parquet"
    assert names.shard("jacobians", 0, 1, "npz") == "jacobians/part-00000-of-00001.npz"


def test_of_several_writers_the_first_one_wins(folder):
    for value in (1, 2):
        folder.write_json_once("engine-cpu.json", {"value": value})
    assert folder.read_json("engine-cpu.json") == {"value": 1}
    assert os.listdir(folder.path("")) == ["engine-cpu.json"]
