import json
import multiprocessing
import os
import pickle
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import pytest
import shards
from shards import ShardError, storage


@pytest.fixture
def built(photos, tmp_path):
    shards.build(photos, tmp_path / "set", shard_size=5)
    return tmp_path / "set"


def test_every_sample_is_the_file_it_was_built_from(built, photos):
    data = shards.open(built)
    assert len(data) == len(data.keys) == 17
    assert data.classes == ("cat", "dog")
    assert data.labels.dtype == np.int32
    for number, sample in enumerate(data):
        assert sample.data == (photos / f"{sample.key}.jpg").read_bytes()
        assert data.classes[sample.label] == sample.key.partition("/")[0]
        assert (sample.label, sample.key) == (data.labels[number], data.keys[number])
    assert data[-1] == data[16] == data[np.int64(16)]
    assert "17 samples" in repr(data)


@pytest.mark.parametrize("i", [17, -18, 10**9])
def test_there_is_no_sample_beyond_the_last(built, i):
    with pytest.raises(IndexError, match=f"sample {i} of a set of 17"):
        shards.open(built)[i]


def _read(data, i):
    return data[i]


def test_it_can_be_pickled_forked_and_shared_between_threads(built, monkeypatch):
    monkeypatch.chdir(built.parent)
    data = shards.open("set")
    monkeypatch.chdir("/")
    samples = list(data)
    copy = pickle.loads(pickle.dumps(data))
    assert list(copy) == samples
    assert copy.digest == data.digest
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(data.__getitem__, [*range(17)] * 20)) == samples * 20
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.starmap(_read, [(data, i) for i in range(17)]) == samples


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_descriptors_do_not_pile_up(built):
    data = shards.open(built)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert len(list(data)) == 17
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_flipped_bit_names_shard_and_key(built):
    data = shards.open(built)
    offset = int(data.index.samples[7]["offset"])
    with (built / "shard-000001.tar").open("r+b") as file:
        file.seek(offset + 10)
        byte = file.read(1)[0]
        file.seek(offset + 10)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(ShardError, match=rf"'{data.keys[7]}'.*shard-000001\.tar is damaged.*crc32"):
        data[7]
    assert zlib.crc32(data[6].data) == data.index.samples[6]["crc32"]


def test_a_shard_that_shrinks_or_vanishes_is_named(built):
    data = shards.open(built)
    os.truncate(built / "shard-000000.tar", 600)
    with pytest.raises(ShardError, match=r"shard-000000\.tar is damaged: \d+ bytes"):
        data[4]
    (built / "shard-000000.tar").unlink()
    with pytest.raises(ShardError, match=r"cannot read .*shard-000000\.tar: No such file"):
        data[4]


def test_a_wrong_cache_size_is_told(built, monkeypatch):
    monkeypatch.setenv("CARE_CACHE_GB", "plenty")
    with pytest.raises(
        ShardError, match="wanted a number of gigabytes in CARE_CACHE_GB, got 'plenty'"
    ):
        shards.open(built)


def edit(change):
    """Damage that changes the document of the index, and its own digest with it."""

    def damage(folder):
        document = json.loads((folder / "index.json").read_text())
        change(document)
        content = {name: value for name, value in document.items() if name != "own"}
        storage.write_json(folder / "index.json", content | {"own": storage.digest(content)})

    return damage


def write(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut(name, size):
    return lambda folder: os.truncate(folder / name, size)


def rename_a_class(folder):
    text = (folder / "index.json").read_bytes()
    (folder / "index.json").write_bytes(text.replace(b"cat", b"dat"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "got nothing of that name; check the path"),
        (remove("index.json"), "got no index.json; if it is images, build a set of them"),
        (write("index.json", b"{"), "cannot be read as JSON"),
        (write("index.json", b"[]"), "not the index of a shard set"),
        (edit(lambda d: d.pop("schema")), "not the index of a shard set"),
        (
            edit(lambda d: d.update(schema=99)),
            "set with schema 2, it has 99; check the path, upgrade care-ssl, or build",
        ),
        (edit(lambda d: d.pop("classes")), "damaged: 'classes'"),
        (edit(lambda d: d["counts"].update(seen=3)), "seen is not kept"),
        (edit(lambda d: d["shardlist"].pop()), "sample counts differ"),
        (rename_a_class, "index.json is not the file"),
        (write("keys.txt", b"a\n"), "keys.txt is not the file that was written"),
        (cut("samples.npy", 200), "samples.npy is not the file that was written"),
        (remove("samples.npy"), "damaged.*No such file"),
        (remove("shard-000002.tar"), "damaged.*shard-000002"),
        (cut("shard-000001.tar", 9), r"shard-000001\.tar does not have its \d+ bytes"),
    ],
)
def test_what_is_no_whole_set_is_refused_at_once(built, damage, message):
    damage(built)
    with pytest.raises(ShardError, match=message) as error:
        shards.open(built)
    assert str(built) in str(error.value)
