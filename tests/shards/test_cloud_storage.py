"""Writing and leases in object stores: real servers on this machine (nox -s cloud)."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
import pytest
from made_stores import AZURITE_KEY
import shards
from shards import ShardError, leases, objects, storage

pytestmark = pytest.mark.cloud


def test_an_upload_that_fails_leaves_nothing_under_the_name(bucket):
    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), storage.writing(f"{bucket}/file") as file:
        fail(file)
    assert storage.listing(bucket) == {}


def test_one_process_at_a_time_writes_a_folder(bucket, photos, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 4.0)
    script = f"""
import sys
from shards import leases, locks
leases.LEASE_SECONDS = 4.0
with locks.exclusive({bucket + "/set"!r}, "building"):
    print("in", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", script]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"in\n"
    message = r"another process is building .*/set; wait until it ends, or stop it"
    with pytest.raises(ShardError, match=message):
        shards.build(photos, f"{bucket}/set", shard_size=5)
    holder.kill()
    holder.wait()
    assert [*storage.listing(f"{bucket}/set/.lease")] == ["00000001"]
    shards.build(photos, f"{bucket}/set", shard_size=5)
    assert storage.listing(f"{bucket}/set/.lease") == {}
    assert shards.verify(f"{bucket}/set") == []


def test_of_many_processes_one_wins_at_a_time(bucket, tmp_path):
    storage.write_bytes(f"{bucket}/.lease/00000007", b"of a dead one")
    script = f"""
import os, time
from shards import leases, locks
leases.LEASE_SECONDS = 4.0
with locks.exclusive({bucket!r}, "testing", patience=120):
    os.mkdir({str(tmp_path / "inside")!r})  # fails if it is there
    time.sleep(0.1)
    os.rmdir({str(tmp_path / "inside")!r})
"""
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(6)]
    assert [process.wait() for process in processes] == [0] * 6
    assert storage.listing(f"{bucket}/.lease") == {}


def test_of_many_threads_one_creates_an_object(bucket):
    url = f"{bucket}/file"

    def create(number):
        data = b"%d" % number
        try:
            objects.attempt(
                "create", url, lambda store, name: store.pipe_file(name, data, mode="create")
            )
        except FileExistsError:
            return None
        return data

    with ThreadPoolExecutor(16) as pool:
        (winner,) = [data for data in pool.map(create, range(16)) if data]
    store, name = objects.file_system(url)
    assert store.cat_file(name) == winner
    assert storage.sha256(url) == hashlib.sha256(winner).hexdigest()


def test_what_the_store_does_not_allow_is_not_tried_again(bucket, monkeypatch):
    storage.write_bytes(f"{bucket}/file", b"data")
    if bucket.startswith("s3"):
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.delenv(f"AWS_{name}")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    else:
        account = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
        another_key = AZURITE_KEY.replace("E", "F")
        account = account.replace(AZURITE_KEY, another_key)
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
    script = f"""
from shards import errors, objects, storage
objects.PAUSES = (600, 600)
try:
    storage.read_bytes({bucket + "/file"!r})
except errors.ShardError as error:
    print(type(error).__name__, error)
"""
    command = [sys.executable, "-c", script]
    output = subprocess.check_output(command, text=True, timeout=120)
    assert output.startswith("ShardError cannot read"), output


def test_an_unknown_kind_of_url_says_what_to_install():
    with pytest.raises(ShardError, match=r"cannot use nosuch://x/y: .*care-ssl\[s3\]"):
        shards.open("nosuch://x/y")
