import errno
import os
import subprocess
import sys

import pytest

from shards import ShardError, storage


def fail_halfway(file):
    with storage.writing(file) as out:
        out.write(b"half")
        raise RuntimeError


def fail_halfway_in_directory(folder):
    with storage.writing_directory(folder) as stage:
        (stage / "x").write_text("half")
        raise RuntimeError


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    file = tmp_path / "a" / "b.bin"
    with pytest.raises(RuntimeError):
        fail_halfway(file)
    assert list(file.parent.iterdir()) == []
    storage.write_bytes(file, b"whole")
    with pytest.raises(RuntimeError):
        fail_halfway(file)
    assert file.read_bytes() == b"whole"
    assert [p.name for p in file.parent.iterdir()] == ["b.bin"]


def test_the_stage_of_a_killed_writer_is_replaced(tmp_path):
    script = "import os,sys; from shards import storage\nwith storage.writing(sys.argv[1]) as f: f.write(b'x'); f.flush(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "f")]).returncode == 9
    assert [p.name for p in tmp_path.iterdir()] == [".part-f"]
    storage.write_bytes(tmp_path / "f", b"y")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_full_disk_is_one_readable_error(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ShardError, match=r"f\.bin: No space left on device"):
        storage.write_bytes(tmp_path / "f.bin", b"data")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError):
        fail_halfway_in_directory(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []
    with storage.writing_directory(tmp_path / "d") as stage:
        (stage / "x").write_text("whole")
    assert (tmp_path / "d" / "x").read_text() == "whole"
    with pytest.raises(ShardError, match="exists already"), storage.writing_directory(tmp_path / "d"):
        pass


def test_json_is_canonical_and_its_errors_are_named(tmp_path):
    storage.write_json(tmp_path / "a", {"b": 1, "a": 2})
    storage.write_json(tmp_path / "b", {"a": 2, "b": 1})
    assert storage.sha256(tmp_path / "a") == storage.sha256(tmp_path / "b")
    assert storage.digest({"b": 1, "a": 2}) == storage.digest({"a": 2, "b": 1})
    (tmp_path / "c").write_text("{")
    with pytest.raises(ShardError, match="damaged"):
        storage.read_json(tmp_path / "c")
    with pytest.raises(ShardError, match="does not exist"):
        storage.read_json(tmp_path / "d")


def test_object_stores_are_refused_by_name():
    with pytest.raises(ShardError, match="s3://bucket/set"):
        storage.local("s3://bucket/set")


def test_importing_shards_loads_no_framework():
    script = "import sys, shards; print([m for m in ('torch', 'webdataset', 'prefect') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
