"""The same sets in object stores: real servers on this machine (nox -s cloud)."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import pytest
from made_images import populate
import shards
from shards import Cache, ShardError, leases, objects, storage
from shards.errors import StoreError

pytestmark = pytest.mark.cloud
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's, published


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def s3():
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        "127.0.0.1", port := free_port(), verbose=False
    )
    server.start()
    names = {
        "ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "ACCESS_KEY_ID": "k",
        "SECRET_ACCESS_KEY": "s",
        "DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in names.items():
            patch.setenv(f"AWS_{name}", value)
        objects.file_system("s3://bucket")[0].makedirs("bucket", exist_ok=True)
        yield "s3://bucket"
    server.stop()


@pytest.fixture(scope="module")
def azure(tmp_path_factory):
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Azurite needs npm, which is not installed")
    pytest.importorskip("adlfs")
    folder, port = Path(os.environ.get("AZURITE", tmp_path_factory.mktemp("azurite"))), free_port()
    binary = folder / "node_modules" / ".bin" / "azurite-blob"
    if (
        not binary.exists()
        and subprocess.run(
            [npm, "install", "--silent", "azurite"], cwd=folder, check=False
        ).returncode
    ):
        pytest.skip("npm could not install Azurite")
    command = [
        binary,
        "--inMemoryPersistence",
        "--skipApiVersionCheck",
        "--silent",
        "--disableTelemetry",
        "--blobPort",
        str(port),
    ]
    server = subprocess.Popen(command, cwd=folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            address = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
            account = (
                f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={KEY};"
            )
            patch.setenv("AZURE_STORAGE_CONNECTION_STRING", account + address)
            deadline = time.monotonic() + 30
            while True:
                try:
                    objects.file_system("az://bucket")[0].mkdir("bucket")
                    break
                except Exception:
                    assert time.monotonic() < deadline, "Azurite did not start"
                    time.sleep(0.3)
            yield "az://bucket"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=["s3", "azure"])
def bucket(request, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "PAUSES", (0.01, 0.01))
    return f"{request.getfixturevalue(request.param)}/{tmp_path.name}"


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


def content(data):
    return [tuple(sample) for sample in data]


def test_a_set_in_a_bucket_is_the_local_one(bucket, cache, photos, tmp_path):
    shards.build(photos, tmp_path / "set", shard_size=5)
    index = shards.build(photos, f"{bucket}/set", shard_size=5)
    local = {path.name: path.read_bytes() for path in (tmp_path / "set").iterdir()}
    assert storage.listing(f"{bucket}/set") == {name: len(data) for name, data in local.items()}
    assert {name: storage.read_bytes(f"{bucket}/set/{name}") for name in local} == local
    data = shards.open(f"{bucket}/set", cache)
    assert content(data) == content(shards.open(tmp_path / "set"))
    assert len(list(cache.folder.glob("*.tar"))) == 4
    assert shards.verify(f"{bucket}/set") == []
    assert (
        shards.build(photos, f"{bucket}/set", shard_size=5).digest == index.digest
    )  # finished: returns at once
    assert len(list(shards.stream(data))) == 17


def test_images_in_a_bucket_are_a_source(bucket, photos, tmp_path):
    fs, name = objects.file_system(f"{bucket}/photos")
    fs.put(f"{photos}/", f"{name}/", recursive=True)
    one = shards.build(f"{bucket}/photos", tmp_path / "one")
    two = shards.build(photos, tmp_path / "two")
    assert content(shards.open(one.path)) == content(shards.open(two.path))
    assert one.digest == two.digest
    shards.build(photos, f"{bucket}/tars", shard_size=5)
    again = shards.build(f"{bucket}/tars", tmp_path / "again", max_rejects=0)
    assert sorted(s.data for s in shards.open(again.path)) == sorted(
        s.data for s in shards.open(two.path)
    )
    rows = "".join(
        f"{bucket}/photos/{path.relative_to(photos)},{path.parent.name}\n"
        for path in sorted(photos.rglob("*.jpg"))
    )
    (tmp_path / "list.csv").write_text(rows)
    listed = shards.build(tmp_path / "list.csv", tmp_path / "listed")
    assert sorted((s.data, s.label) for s in shards.open(listed.path)) == sorted(
        (s.data, s.label) for s in shards.open(two.path)
    )


def test_coco_and_voc_in_a_bucket_are_the_local_ones(bucket, tmp_path):
    local = tmp_path / "data"
    populate(local / "images", ["a.jpg", "deep/b.jpg"])
    images = [
        {"id": n, "file_name": name, "width": 20, "height": 16}
        for n, name in enumerate(("a.jpg", "deep/b.jpg", "gone.jpg"))
    ]
    (local / "annotations.json").write_text(
        json.dumps({"images": images, "categories": [], "annotations": []})
    )
    populate(local / "VOC/JPEGImages", ["1.jpg", "2.jpg"])
    for folder in ("Annotations", "ImageSets/Main"):
        (local / "VOC" / folder).mkdir(parents=True)
    (local / "VOC/Annotations/1.xml").write_text(
        "<annotation><filename>1.jpg</filename></annotation>"
    )
    (local / "VOC/ImageSets/Main/train.txt").write_text("1\n")
    fs, name = objects.file_system(f"{bucket}/data")
    fs.put(f"{local}/", f"{name}/", recursive=True)
    for list_name in ("annotations.json", "VOC/ImageSets/Main/train.txt"):
        one = shards.build(
            f"{bucket}/data/{list_name}",
            tmp_path / f"remote-{Path(list_name).stem}",
            max_rejects=0.5,
        )
        two = shards.build(
            local / list_name, tmp_path / f"local-{Path(list_name).stem}", max_rejects=0.5
        )
        assert one.digest == two.digest
        assert len(one.samples) == (2 if list_name == "annotations.json" else 1)


def test_a_killed_build_goes_on_and_nothing_is_visible_before_the_index(
    bucket, cache, photos, tmp_path, monkeypatch
):
    plan = shards.build.__globals__["make_plan"](photos, shard_size=5)
    root = storage.locate(f"{bucket}/set")
    for number in (0, 2):
        shards.build.__globals__["write_shard"](plan, root, number)
    with pytest.raises(ShardError, match="an unfinished one; run its build again"):
        shards.open(f"{bucket}/set", cache)
    shards.build(photos, f"{bucket}/set", shard_size=5)
    shards.build(photos, tmp_path / "whole", shard_size=5)
    assert content(shards.open(f"{bucket}/set", cache)) == content(shards.open(tmp_path / "whole"))
    with pytest.raises(ShardError, match="built from other input or options"):
        shards.build(photos, f"{bucket}/set", shard_size=6)


def test_the_cache_stays_within_its_limit_and_reads_right(bucket, photos, tmp_path):
    shards.build(photos, f"{bucket}/set", shard_size=5)
    largest = max(
        shard.filesize for shard in shards.open(f"{bucket}/set", Cache(tmp_path / "x")).index.shards
    )
    cache = Cache(tmp_path / "small", limit=2 * largest)
    data = shards.open(f"{bucket}/set", cache)
    whole = content(data)
    assert sum(file.stat().st_size for file in cache.folder.glob("*.tar")) <= 2 * largest
    assert [tuple(data[i]) for i in reversed(range(17))] == whole[::-1]
    with pytest.raises(ShardError, match=r"the cache may have 10; raise CARE_CACHE_GB"):
        shards.open(f"{bucket}/set", Cache(tmp_path / "none", limit=10))[0]


def test_many_readers_fetch_a_shard_once(bucket, cache, photos, tmp_path, monkeypatch):
    shards.build(photos, f"{bucket}/set", shard_size=17)
    fetched, fetch, lock = [], storage.fetch, threading.Lock()

    def counted(path, to):
        with lock:
            fetched.append(path)
        fetch(path, to)

    monkeypatch.setattr("shards.storage.fetch", counted)
    sets = [shards.open(f"{bucket}/set", cache) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len({bytes(sample.data) for sample in pool.map(lambda data: data[3], sets)}) == 1
    assert len(fetched) == 1
    script = f"import shards; print(len(shards.open({bucket + '/set'!r}, shards.Cache({str(tmp_path / 'other')!r}))[3].data))"
    children = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(3)
    ]
    assert {int(child.communicate()[0]) for child in children} == {len(sets[0][3].data)}
    assert len(list((tmp_path / "other").glob("*.tar"))) == 1
    assert not list((tmp_path / "other").glob(".fetch-*"))


def test_damage_is_named(bucket, cache, photos, tmp_path):
    shards.build(photos, f"{bucket}/set", shard_size=5)
    name = "shard-000001.tar"
    data = bytearray(storage.read_bytes(f"{bucket}/set/{name}"))
    data[700] ^= 1
    storage.write_bytes(f"{bucket}/set/{name}", bytes(data))
    reader = shards.open(f"{bucket}/set", cache)
    with pytest.raises(ShardError, match=rf"{name} is damaged: sha256"):
        reader[6]
    assert reader[0].data
    (problem, *_) = shards.verify(f"{bucket}/set")
    assert problem.startswith(name)
    storage.remove(f"{bucket}/set/{name}")
    with pytest.raises(ShardError, match=rf"damaged: {name} does not have its"):
        shards.open(f"{bucket}/set", cache)
    with pytest.raises(ShardError, match=r"no index\.json"):
        shards.open(f"{bucket}/nothing", cache)


def test_a_store_that_fails_is_tried_again_then_named(bucket, cache, photos, monkeypatch):
    shards.build(photos, f"{bucket}/set", shard_size=5)
    find, failures = objects.file_system, [2]

    class Flaky:
        def __init__(self, fs):
            self.fs = fs

        def __getattr__(self, name):
            return getattr(self.fs, name)

        def get_file(self, *args):
            if failures[0]:
                failures[0] -= 1
                raise ConnectionError("the network is down")
            return self.fs.get_file(*args)

    def flaky(path):
        fs, name = find(path)
        return Flaky(fs), name

    monkeypatch.setattr(objects, "file_system", flaky)
    data = shards.open(f"{bucket}/set", cache)
    assert data[0].data
    failures[0] = 3
    with pytest.raises(
        StoreError,
        match=r"cannot read .*shard-000003\.tar: ConnectionError: the network is down; check",
    ):
        data[16]
    assert data[16].data


def test_an_upload_that_fails_leaves_nothing_under_the_name(bucket, tmp_path, monkeypatch):
    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), storage.writing(f"{bucket}/file") as file:
        fail(file)
    assert storage.listing(bucket) == {}


def test_one_process_at_a_time_writes_a_folder(bucket, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LEASE_SECONDS", 4.0)
    script = f"""
import sys
from shards import leases, locks
leases.LEASE_SECONDS = 4.0
with locks.exclusive({bucket + "/set"!r}, "building"):
    print("in", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"in\n"
    with pytest.raises(
        ShardError, match=r"another process is building .*/set; wait until it ends, or stop it"
    ):
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
    fs, name = objects.file_system(f"{bucket}/file")

    def create(number):
        try:
            objects.attempt(
                "create",
                f"{bucket}/file",
                lambda fs, name: fs.pipe_file(name, b"%d" % number, mode="create"),
            )
        except FileExistsError:
            return None
        return b"%d" % number

    with ThreadPoolExecutor(16) as pool:
        (winner,) = [data for data in pool.map(create, range(16)) if data]
    assert fs.cat_file(name) == winner
    assert storage.sha256(f"{bucket}/file") == hashlib.sha256(winner).hexdigest()


def test_what_the_store_does_not_allow_is_not_tried_again(bucket, monkeypatch):
    storage.write_bytes(f"{bucket}/file", b"data")
    if bucket.startswith("s3"):
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.delenv(f"AWS_{name}")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    else:
        account = os.environ["AZURE_STORAGE_CONNECTION_STRING"].replace(KEY, KEY.replace("E", "F"))
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
    script = f"""
from shards import errors, objects, storage
objects.PAUSES = (600, 600)
try:
    storage.read_bytes({bucket + "/file"!r})
except errors.ShardError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    assert done.stdout.startswith("ShardError cannot read"), done.stdout


def test_training_from_a_bucket_gives_the_local_losses(s3, unpacked, tmp_path):
    from care import BYOL, streams_for
    from care.train import Machine, pretrain

    photographs = next(unpacked("clothing10-cc0.tar").rglob("val"))
    shards.build(photographs, tmp_path / "set", shard_size=50)
    shards.build(photographs, f"{s3}/clothing", shard_size=50)
    losses = []
    cache = Cache(tmp_path / "cache")
    for name, data in (
        ("local", tmp_path / "set"),
        ("cold", f"{s3}/clothing"),
        ("warm", f"{s3}/clothing"),
    ):
        c, t = streams_for("resnet18-small-half", size=32, blocks=1, objective=BYOL(hidden=32))
        run = tmp_path / name
        pretrain(
            shards.open(data, cache),
            run,
            c,
            t,
            size=32,
            batch_size=16,
            steps=4,
            machine=Machine(workers=2 * (name == "cold")),
        )
        losses.append(
            [json.loads(line) for line in (run / "losses.jsonl").read_text().splitlines()]
        )
    assert losses[0] == losses[1] == losses[2]
    assert len(list(cache.folder.glob("*.tar"))) == 4


def test_an_unknown_kind_of_url_says_what_to_install(tmp_path):
    with pytest.raises(ShardError, match=r"cannot use nosuch://x/y: .*care-ssl\[s3\]"):
        shards.open("nosuch://x/y")
