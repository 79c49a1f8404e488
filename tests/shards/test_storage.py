import errno
import hashlib
import os
import subprocess
import sys
import threading
from contextlib import suppress
import pytest
from shards import ShardError, objects, staging, storage
from shards.errors import StoreError


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
    script = """
import os, sys
from shards import storage
with storage.writing(sys.argv[1]) as file:
    file.write(b"x")
    file.flush()
    os._exit(9)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "f")]
    assert subprocess.run(command, check=False).returncode == 9
    assert [p.name for p in tmp_path.iterdir()] == [".part-f"]
    storage.write_bytes(tmp_path / "f", b"y")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_files_that_several_processes_write_at_once_are_whole_at_any_moment(tmp_path):
    script = """
import sys
from shards import storage
for count in range(200):
    storage.write_bytes(sys.argv[1], sys.argv[2].encode() * 5000 * (1 + count % 3))
"""
    file = tmp_path / "f"
    command = [sys.executable, "-c", script, str(file)]
    writers = [subprocess.Popen([*command, letter]) for letter in "abc"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = file.read_bytes() if file.exists() else b""
        seen.add(len(content))
        assert len(set(content)) <= 1
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    assert seen <= {0, 5000, 10_000, 15_000}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_writer_waits_for_the_one_before(tmp_path):
    def write_second():
        storage.write_bytes(tmp_path / "f", b"second")

    second = threading.Thread(target=write_second)
    with storage.writing(tmp_path / "f") as file:
        second.start()
        second.join(0.2)
        assert second.is_alive()
        file.write(b"first")
    second.join()
    assert (tmp_path / "f").read_bytes() == b"second"


def test_a_writer_goes_on_where_the_one_before_failed(tmp_path):
    second = threading.Thread(target=storage.write_bytes, args=(tmp_path / "f", b"second"))
    with suppress(RuntimeError), storage.writing(tmp_path / "f") as file:
        second.start()
        second.join(0.1)
        file.write(b"first")
        raise RuntimeError
    second.join()
    assert (tmp_path / "f").read_bytes() == b"second"


def test_a_stage_that_is_held_for_too_long_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "PATIENCE", 0.05)

    def write_within_another(writes_on):
        with storage.writing(tmp_path / "f") as first, storage.writing(tmp_path / "f") as second:
            second.write(b"sec")
            second.flush()
            first.write(b"first")
            if not writes_on:
                raise RuntimeError
            second.write(b"ond")

    # the second one is whole, whatever becomes of the first, which has waited inside
    with pytest.raises(ShardError, match="another writer of it took over"):
        write_within_another(writes_on=True)
    assert (tmp_path / "f").read_bytes() == b"second"
    with pytest.raises(RuntimeError):
        write_within_another(writes_on=False)
    assert (tmp_path / "f").read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_who_was_too_slow_leaves_the_stage_of_the_next_one_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "PATIENCE", 0.05)
    slow, quick = storage.writing(tmp_path / "f"), storage.writing(tmp_path / "f")
    slow.__enter__().write(b"slow")
    quick.__enter__().write(b"qu")
    with pytest.raises(ShardError, match="another writer of it took over"):
        slow.__exit__(None, None, None)
    assert not (tmp_path / "f").exists()  # neither the slow one nor half of the quick one
    quick.__exit__(None, None, None)
    assert (tmp_path / "f").read_bytes() == b"qu"


def test_a_stage_that_may_not_be_opened_is_replaced(tmp_path, monkeypatch):
    stage = tmp_path / ".part-f"
    stage.write_bytes(b"another user's")
    opened = os.open

    def refuse_once(path, *arguments):
        if path == stage and stage.exists():
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refuse_once)
    storage.write_bytes(tmp_path / "f", b"ours")
    assert (tmp_path / "f").read_bytes() == b"ours"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_the_stage_of_a_folder_gives_way_to_that_of_a_file(tmp_path):
    (tmp_path / ".part-f" / "inside").mkdir(parents=True)
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
    with (
        pytest.raises(ShardError, match=r"cannot write .*d: Directory not empty"),
        storage.writing_directory(tmp_path / "d"),
    ):
        pass
    assert (tmp_path / "d" / "x").read_text() == "whole"


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
    with (
        pytest.raises(ShardError, match="s3://bucket/set"),
        storage.writing_directory("s3://bucket/set"),
    ):
        pass


def test_a_digest_is_that_of_the_bytes_wherever_they_are(tmp_path):
    data = bytes(range(256)) * 9000
    for place in (tmp_path / "file", "memory://digests/file"):
        storage.write_bytes(place, data)
        assert storage.sha256(place) == hashlib.sha256(data).hexdigest()


SECRET = "hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"s3://AKIA:{SECRET}@bucket/set",
        f"s3://AKIA:{SECRET}/with+slash/@bucket/set",
        f"s3://AKIA:12{SECRET}?x@bucket",
        f"ftp://:{SECRET}@host/a",
        f"https://host:443/a?sv=2024&sig={SECRET}",
        f"https://host/a?X-Amz-Signature={SECRET}",
        f"https://host/a?x-amz-security-token={SECRET}",
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}",
        f"https://host/a?a=b&token={SECRET}",
        f"az://box/a?AccountKey={SECRET}",
        f"az://box;AccountKey={SECRET}",
        f"zip://a.zip::s3://AKIA:{SECRET}@bucket/a.zip",
        f"https://host/a?AWSAccessKeyId=AKIA&Signature={SECRET}&Expires=1",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(url):
    for use in (storage.locate, objects.file_system, storage.read_bytes, storage.is_remote):
        with pytest.raises(ShardError, match="AZURE_STORAGE_CONNECTION_STRING") as error:
            use(url)
        assert SECRET not in str(error.value)
        assert error.value.__cause__ is None
    with pytest.raises(ShardError):
        storage.is_remote(f"a command with {url} in it")


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/set",
        "az://container@account.dfs.core.windows.net/set",
        "abfs://container@account.dfs.core.windows.net:443/a@b",
        "a:b@c",
        "http://localhost:9000/path@v2",
        "http://localhost:9000",
        "file:///folder/a:b@c",
        "memory://a/key=5/token=6",
        "/photos/user:me@home",
        "zip://a.zip::abfs://container@account.dfs.core.windows.net/a.zip",
        "https://host/a?design=3&versionId=5",
        "see https://host: me@host",
        "C:\\photos",
        "x?token=5",
    ],
)
def test_what_is_no_secret_is_not_refused(text):
    assert storage.is_remote(text) == ("://" in text)


def test_what_may_work_later_is_told_from_what_is_not_allowed(monkeypatch):
    class NoCredentialsError(Exception):
        pass

    monkeypatch.setattr(objects, "PAUSES", (0, 0))
    for error, kind, times in (
        (ConnectionError("down"), StoreError, 3),
        (RuntimeError("busy"), StoreError, 3),
        (PermissionError("no"), ShardError, 1),
        (NoCredentialsError("none"), ShardError, 1),
        (FileNotFoundError("gone"), FileNotFoundError, 1),
        (FileExistsError("is"), FileExistsError, 1),
    ):
        calls = []

        def fail(fs, name, error=error, calls=calls):
            calls.append(error)
            raise error

        with pytest.raises(kind) as raised:
            objects.attempt("read", "memory://it", fail)
        assert type(raised.value) is kind
        assert len(calls) == times


def test_importing_shards_loads_no_framework():
    script = """
import sys, shards
print([name for name in ("torch", "webdataset", "prefect", "typer") if name in sys.modules])
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"
