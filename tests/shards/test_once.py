"""Steps in a row list a source once, and read what is written of a set once."""

import pytest
from made_images import populate
import shards
from shards import once, records, storage
from shards.once import forget_listings, list_deep, listing_once


@pytest.fixture
def listed(monkeypatch):
    """Folders that were listed at any depth, in order."""
    folders = []
    listing = storage.listing

    def counting(folder, *, deep=False):
        if deep:
            folders.append(str(folder))
        return listing(folder, deep=deep)

    monkeypatch.setattr(storage, "listing", counting)
    return folders


@pytest.mark.parametrize("share", [None, 0.2])
def test_a_build_lists_its_source_once(photos, tmp_path, listed, share):
    shards.build_sets(photos, tmp_path / "sets", val_share=share)
    assert listed.count(str(photos)) == 1


def test_the_parts_of_a_source_are_known_from_one_listing(tmp_path, listed):
    names = [f"{part}/{name}/{n}.png" for part in ("train", "val") for name in "ab" for n in "12"]
    src = populate(tmp_path / "src", names)
    indexes = shards.build_sets(src, tmp_path / "sets")
    below = [folder for folder in listed if folder.startswith(str(src))]
    assert below == [str(src)]
    alone = shards.build(src / "train", tmp_path / "alone")
    assert indexes["train"].digest == alone.digest


def test_outside_of_a_block_and_after_forgetting_a_source_is_listed_anew(photos, listed):
    list_deep(photos)
    list_deep(photos)
    with listing_once():
        sizes = list_deep(photos)
        with listing_once():
            assert list_deep(str(photos)) is sizes
            assert dict(list_deep(photos / "cat")) == storage.listing(photos / "cat")
        populate(photos, ["new.jpg"])
        assert "new.jpg" not in list_deep(photos)
        forget_listings()
        assert "new.jpg" in list_deep(photos)
    assert listed.count(str(photos)) == 4


def test_values_are_kept_by_all_arguments_and_errors_are_not():
    calls = []

    @once.listed_once
    def add(*values, start=0):
        calls.append(values)
        if not values:
            raise ValueError("nothing to add")
        return sum(values, start)

    with listing_once():
        results = [add(1, 2), add(1, 2), add(1, 2, start=1), add(2, 1)]
        for _ in range(2):
            with pytest.raises(ValueError, match="nothing"):
                add()
    assert results == [3, 3, 4, 3]
    assert calls == [(1, 2), (1, 2), (2, 1), (), ()]


def dying(*_):
    raise SystemExit


@pytest.mark.parametrize("finished", [False, True])
def test_a_build_that_goes_on_reads_each_record_once(photos, tmp_path, monkeypatch, finished):
    dest = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_json", dying)
        with pytest.raises(SystemExit):
            shards.build(photos, dest, shard_size=4)
    if not finished:
        (dest / "shard-000001.tar").unlink()
    read = []
    read_record = records._read_record
    monkeypatch.setattr(records, "_read_record", lambda f: read.append(f.name) or read_record(f))
    index = shards.build(photos, dest, shard_size=4)
    assert read.count(".shard-000000.json") == 1
    assert max(map(read.count, read)) <= 1 + (not finished)
    assert index.digest == shards.build(photos, tmp_path / "again", shard_size=4).digest


def test_a_repaired_source_gets_none_of_the_records_that_were_read_before(tmp_path):
    src = populate(tmp_path / "src", [f"{name}/{n}.png" for name in "ab" for n in range(8)])
    (src / "a/0.png").write_bytes(b"broken")
    with pytest.raises(shards.ShardError, match="1 of 16 images was rejected"):
        shards.build(src, tmp_path / "set", shard_size=4)
    populate(src, ["a/0.png", "a/9.png"])
    repaired = shards.build(src, tmp_path / "set", shard_size=4)
    assert repaired.digest == shards.build(src, tmp_path / "fresh", shard_size=4).digest
