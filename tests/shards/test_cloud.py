"""The same sets in object stores: real servers on this machine (nox -s cloud)."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
import pytest
from made_images import populate
import shards
from shards import Cache, ShardError, objects, storage
from shards.errors import StoreError
from shards.plan import make_plan
from shards.write import write_shard

pytestmark = pytest.mark.cloud


def content(data):
    return [tuple(sample) for sample in data]


def images_and_labels(path):
    return sorted((sample.data, sample.label) for sample in shards.open(path))


def upload(folder, url):
    store, name = objects.file_system(url)
    store.put(f"{folder}/", f"{name}/", recursive=True)


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
    # finished: it returns at once
    assert shards.build(photos, f"{bucket}/set", shard_size=5).digest == index.digest
    assert len(list(shards.stream(data))) == 17


def test_images_in_a_bucket_are_a_source(bucket, photos, tmp_path):
    upload(photos, f"{bucket}/photos")
    remote = shards.build(f"{bucket}/photos", tmp_path / "remote")
    local = shards.build(photos, tmp_path / "local")
    assert content(shards.open(remote.path)) == content(shards.open(local.path))
    assert remote.digest == local.digest
    shards.build(photos, f"{bucket}/tars", shard_size=5)
    shards.build(f"{bucket}/tars", tmp_path / "again", max_rejects=0)
    assert images_and_labels(tmp_path / "again") == images_and_labels(local.path)
    rows = [
        f"{bucket}/photos/{path.relative_to(photos)},{path.parent.name}\n"
        for path in sorted(photos.rglob("*.jpg"))
    ]
    (tmp_path / "list.csv").write_text("".join(rows))
    shards.build(tmp_path / "list.csv", tmp_path / "listed")
    assert images_and_labels(tmp_path / "listed") == images_and_labels(local.path)


def annotated(folder):
    """COCO's annotations of two images, and a VOC list of one."""
    populate(folder / "images", ["a.jpg", "deep/b.jpg"])
    images = [
        {"id": number, "file_name": name, "width": 20, "height": 16}
        for number, name in enumerate(("a.jpg", "deep/b.jpg", "gone.jpg"))
    ]
    document = {"images": images, "categories": [], "annotations": []}
    (folder / "annotations.json").write_text(json.dumps(document))
    populate(folder / "VOC/JPEGImages", ["1.jpg", "2.jpg"])
    (folder / "VOC/Annotations").mkdir()
    xml = "<annotation><filename>1.jpg</filename></annotation>"
    (folder / "VOC/Annotations/1.xml").write_text(xml)
    (folder / "VOC/ImageSets/Main").mkdir(parents=True)
    (folder / "VOC/ImageSets/Main/train.txt").write_text("1\n")


@pytest.mark.parametrize(
    ("name", "count"), [("annotations.json", 2), ("VOC/ImageSets/Main/train.txt", 1)]
)
def test_coco_and_voc_in_a_bucket_are_the_local_ones(bucket, tmp_path, name, count):
    annotated(tmp_path / "data")
    upload(tmp_path / "data", f"{bucket}/data")
    remote = shards.build(f"{bucket}/data/{name}", tmp_path / "remote", max_rejects=0.5)
    local = shards.build(tmp_path / "data" / name, tmp_path / "local", max_rejects=0.5)
    assert remote.digest == local.digest
    assert len(remote.samples) == count


def test_a_killed_build_goes_on_and_nothing_is_visible_before_the_index(
    bucket, cache, photos, tmp_path
):
    plan = make_plan(photos, shard_size=5)
    for number in (0, 2):
        write_shard(plan, storage.locate(f"{bucket}/set"), number)
    with pytest.raises(ShardError, match="an unfinished one; run its build again"):
        shards.open(f"{bucket}/set", cache)
    shards.build(photos, f"{bucket}/set", shard_size=5)
    shards.build(photos, tmp_path / "whole", shard_size=5)
    assert content(shards.open(f"{bucket}/set", cache)) == content(shards.open(tmp_path / "whole"))
    with pytest.raises(ShardError, match="built from other input or options"):
        shards.build(photos, f"{bucket}/set", shard_size=6)


def test_the_cache_stays_within_its_limit_and_reads_right(bucket, photos, tmp_path):
    index = shards.build(photos, f"{bucket}/set", shard_size=5)
    limit = 2 * max(shard.filesize for shard in index.shards)
    cache = Cache(tmp_path / "small", limit=limit)
    data = shards.open(f"{bucket}/set", cache)
    samples = content(data)
    assert sum(file.stat().st_size for file in cache.folder.glob("*.tar")) <= limit
    assert [tuple(data[i]) for i in reversed(range(17))] == samples[::-1]
    with pytest.raises(ShardError, match=r"the cache may have 10; raise CARE_CACHE_GB"):
        shards.open(f"{bucket}/set", Cache(tmp_path / "none", limit=10))[0]


def test_many_readers_fetch_a_shard_once(bucket, cache, photos, tmp_path, monkeypatch):
    shards.build(photos, f"{bucket}/set", shard_size=17)
    fetch = storage.fetch
    fetched_urls = []
    lock = threading.Lock()

    def counting(path, to):
        with lock:
            fetched_urls.append(path)
        fetch(path, to)

    monkeypatch.setattr("shards.storage.fetch", counting)
    sets = [shards.open(f"{bucket}/set", cache) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert len({sample.data for sample in pool.map(lambda data: data[3], sets)}) == 1
    assert len(fetched_urls) == 1
    script = f"""
import shards
cache = shards.Cache({str(tmp_path / "other")!r})
print(len(shards.open({bucket + "/set"!r}, cache)[3].data))
"""
    command = [sys.executable, "-c", script]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    assert {int(child.communicate()[0]) for child in children} == {len(sets[0][3].data)}
    assert len(list((tmp_path / "other").glob("*.tar"))) == 1
    assert not list((tmp_path / "other").glob(".fetch-*"))


def test_damage_is_named(bucket, cache, photos):
    shards.build(photos, f"{bucket}/set", shard_size=5)
    name = "shard-000001.tar"
    tar = bytearray(storage.read_bytes(f"{bucket}/set/{name}"))
    tar[700] ^= 1
    storage.write_bytes(f"{bucket}/set/{name}", bytes(tar))
    data = shards.open(f"{bucket}/set", cache)
    with pytest.raises(ShardError, match=rf"{name} is damaged: sha256"):
        data[6]
    assert data[0].data
    assert shards.verify(f"{bucket}/set")[0].startswith(name)
    storage.remove(f"{bucket}/set/{name}")
    with pytest.raises(ShardError, match=rf"damaged: {name} does not have its"):
        shards.open(f"{bucket}/set", cache)
    with pytest.raises(ShardError, match=r"nothing, got nothing of that name"):
        shards.open(f"{bucket}/nothing", cache)


class FlakyStore:
    """A file system whose next ``failures`` downloads fail."""

    def __init__(self, store):
        self.store = store

    failures = 0

    def __getattr__(self, name):
        return getattr(self.store, name)

    def get_file(self, *args):
        if FlakyStore.failures:
            FlakyStore.failures -= 1
            raise ConnectionError("the network is down")
        return self.store.get_file(*args)


def test_a_store_that_fails_is_tried_again_then_named(bucket, cache, photos, monkeypatch):
    shards.build(photos, f"{bucket}/set", shard_size=5)
    file_system = objects.file_system

    def flaky(path):
        store, name = file_system(path)
        return FlakyStore(store), name

    monkeypatch.setattr(objects, "file_system", flaky)
    monkeypatch.setattr(FlakyStore, "failures", 2)
    data = shards.open(f"{bucket}/set", cache)
    assert data[0].data
    FlakyStore.failures = 3
    message = r"cannot read .*shard-000003\.tar: ConnectionError: the network is down; check"
    with pytest.raises(StoreError, match=message):
        data[16]
    assert data[16].data


def test_training_from_a_bucket_gives_the_local_losses(s3, unpacked, tmp_path):
    from care import BYOL, streams_for
    from care.train import Machine, pretrain

    photographs = next(unpacked("clothing10-cc0.tar").rglob("val"))
    shards.build(photographs, tmp_path / "set", shard_size=50)
    shards.build(photographs, f"{s3}/clothing", shard_size=50)
    cache = Cache(tmp_path / "cache")
    losses = []
    for name, place, workers in (
        ("local", tmp_path / "set", 0),
        ("cold", f"{s3}/clothing", 2),
        ("warm", f"{s3}/clothing", 0),
    ):
        c, t = streams_for("resnet18-small-half", size=32, blocks=1, objective=BYOL(hidden=32))
        run = tmp_path / name
        data = shards.open(place, cache)
        machine = Machine(workers=workers)
        pretrain(data, run, c, t, size=32, batch_size=16, steps=4, machine=machine)
        lines = (run / "losses.jsonl").read_text().splitlines()
        losses.append([json.loads(line) for line in lines])
    assert losses[0] == losses[1] == losses[2]
    assert len(list(cache.folder.glob("*.tar"))) == 4
