"""A build that was killed, one that is called again, and those that are refused."""

import csv
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
import pytest
from made_images import image_bytes, populate, spoil
from made_lists import boxes_of_photos
import shards
from shards import ShardError, locks, storage, writers


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def images_in(path):
    return sorted(sample.data for sample in shards.open(path))


# killed, and called again


@pytest.mark.parametrize(
    ("boxes", "after"), [*((False, n) for n in range(9)), *((True, n) for n in range(5, 10))]
)
def test_a_build_killed_at_any_write_goes_on_to_the_same_bytes(
    photos, tmp_path, monkeypatch, boxes, after
):
    src = boxes_of_photos(photos) if boxes else photos
    shards.build(src, tmp_path / "whole", shard_size=8)
    assert (tmp_path / "whole" / "annotations.json").exists() == boxes
    replace = storage.Path.replace
    write_shard = writers.write_shard
    replaced = []
    written = []

    def dying(self, target):
        if len(replaced) == after:
            raise SystemExit
        replaced.append(target)
        return replace(self, target)

    def recording(plan, dest, number, tick):
        written.append(number)
        write_shard(plan, dest, number, tick)

    with monkeypatch.context() as patch:
        patch.setattr(storage.Path, "replace", dying)
        with pytest.raises(SystemExit):
            shards.build(src, tmp_path / "set", shard_size=8, workers=1)
    with pytest.raises(ShardError):
        shards.open(tmp_path / "set")
    monkeypatch.setattr(writers, "write_shard", recording)
    shards.build(src, tmp_path / "set", shard_size=8)
    assert content(tmp_path / "set") == content(tmp_path / "whole")
    assert sorted(written) == list(range(min(after // 2, 3), 3))


def test_too_many_rejects_stop_the_build(tmp_path):
    src = spoil(tmp_path / "src")
    dest = tmp_path / "set"
    counts = r"4 of 7 images .* 1\.00% may be: .*1 corrupt image \(cat/half\.png\).*--max-rejects"
    with pytest.raises(ShardError, match=counts) as error:
        shards.build(src, dest)
    assert "notes.txt" not in str(error.value)
    assert not (dest / "index.json").exists()
    with pytest.raises(ShardError, match="unfinished one; run its build again"):
        shards.open(dest)


def test_a_larger_limit_of_rejects_reuses_the_work(tmp_path, monkeypatch):
    src = spoil(tmp_path / "src")
    dest = tmp_path / "set"
    with pytest.raises(ShardError, match="4 of 7 images"):
        shards.build(src, dest)
    monkeypatch.setattr(writers, "write_shard", None)
    assert len(shards.build(src, dest, max_rejects=0.6).samples) == 3


REPAIRS = {
    "removed": lambda file: file.unlink(),
    "repaired": lambda file: file.write_bytes(image_bytes(90)),
}


def bad_files(src, dest):
    """The files that a refused build has listed, as its reader finds them."""
    with (dest / "rejects.tsv").open(newline="") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    assert rows[0] == ["reason", "name"]
    return [src / name for reason, name in rows[1:] if reason != "other file"]


@pytest.mark.parametrize("repair", ["removed", "repaired"])
def test_after_a_repair_the_same_command_builds_what_a_new_one_would(tmp_path, repair):
    src = spoil(tmp_path / "src")
    dest = tmp_path / "set"
    with pytest.raises(ShardError, match=r"All of them are in .*rejects\.tsv\. Repair or remove"):
        shards.build(src, dest, shard_size=2)
    files = bad_files(src, dest)
    assert len(files) == 4
    for file in files:
        REPAIRS[repair](file)
    shards.build(src, dest, shard_size=2)
    shards.build(src, tmp_path / "new", shard_size=2)
    assert content(dest) == content(tmp_path / "new")
    assert "rejects.tsv" not in content(dest)


def test_what_is_still_bad_is_listed_again_and_what_was_interrupted_is_not_forgotten(tmp_path):
    src = spoil(tmp_path / "src")
    dest = tmp_path / "set"
    with pytest.raises(ShardError):
        shards.build(src, dest)
    repaired, *_ = bad_files(src, dest)
    repaired.unlink()
    with pytest.raises(ShardError, match="3 of 6 images"):
        shards.build(src, dest)
    assert len(bad_files(src, dest)) == 3
    (dest / "rejects.tsv").unlink()  # as of a build that was interrupted
    with pytest.raises(ShardError, match="holds a part of a set built from other input"):
        shards.build(src, dest, seed=1)


def test_the_list_of_rejects_has_every_name_whatever_is_in_it(tmp_path):
    names = ["tab\there.jpg", "line\nend.jpg", 'quote".jpg', "byte\udcff.jpg", "é.jpg"]
    (tmp_path / "src").mkdir()
    for name in names:
        (tmp_path / "src" / name).write_bytes(b"\xff\xd8\xff no image")
    with pytest.raises(ShardError):
        shards.build(tmp_path / "src", tmp_path / "set")
    data = (tmp_path / "set" / "rejects.tsv").read_bytes().decode(errors="surrogateescape")
    rows = csv.reader(io.StringIO(data, newline=""), delimiter="\t")
    assert sorted(name for _, name in list(rows)[1:]) == sorted(names)


def test_a_list_that_a_kill_left_beside_the_index_goes(photos, tmp_path):
    shards.build(photos, tmp_path / "set")
    before = content(tmp_path / "set")
    (tmp_path / "set" / "rejects.tsv").write_text("reason\tname\n")
    shards.build(photos, tmp_path / "set")
    assert content(tmp_path / "set") == before


def test_an_unfinished_build_writes_a_shard_again_that_was_removed(tmp_path):
    src = spoil(tmp_path / "src")
    dest = tmp_path / "set"
    with pytest.raises(ShardError):
        shards.build(src, dest, shard_size=3)
    (dest / "shard-000001.tar").unlink()
    shards.build(src, dest, shard_size=3, max_rejects=1)
    assert shards.verify(dest) == []


def test_a_finished_set_returns_at_once(photos, tmp_path, monkeypatch):
    index = shards.build(photos, tmp_path / "set")
    record = tmp_path / "set" / ".shard-000000.json"
    record.write_text("left by a kill after the index was committed")
    monkeypatch.setattr(writers, "write_shard", None)
    again = shards.build(photos, tmp_path / "set", workers=3, max_rejects=0.5)
    assert again.digest == index.digest
    assert not list((tmp_path / "set").glob(".*"))


def test_ctrl_c_stops_at_the_next_image(tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    data = image_bytes(size=(1200, 1200), file_format="JPEG", quality=95)
    for number in range(400):
        (src / f"{number}.jpg").write_bytes(data)
    # a shell's background ignores SIGINT
    script = """
import signal, sys, shards
signal.signal(signal.SIGINT, signal.default_int_handler)
shards.build(sys.argv[1], sys.argv[2], shard_size=200, workers=2)
"""
    command = [sys.executable, "-c", script, src, tmp_path / "set"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not list(tmp_path.glob("set/.part-*")):
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert b"KeyboardInterrupt" in errors
    assert list(tmp_path.glob("set/*")) == []  # the shards under way were given up, not finished


def test_a_full_disk_names_the_file_and_leaves_no_set(photos, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ShardError, match=r"set/shard-00000\d\.tar: No space left on device"):
            shards.build(photos, tmp_path / "set", shard_size=5)
    assert list((tmp_path / "set").iterdir()) == []
    assert len(shards.build(photos, tmp_path / "set", shard_size=5).samples) == 17


# refused


def test_a_finished_set_that_was_damaged_is_not_returned(photos, tmp_path):
    shards.build(photos, tmp_path / "set")
    os.truncate(tmp_path / "set" / "shard-000000.tar", 1000)
    damage = r"shard-000000\.tar does not have its \d+ bytes.*remove it and build it again"
    with pytest.raises(ShardError, match=damage):
        shards.build(photos, tmp_path / "set")


def test_another_plan_never_mixes_with_what_is_there(photos, tmp_path):
    shards.build(photos, tmp_path / "set")
    message = r"built from other input or options.*; remove it or choose another DEST"
    for options in ({"seed": 1}, {"shard_size": 7}, {"validate": "header"}):
        with pytest.raises(ShardError, match=message):
            shards.build(photos, tmp_path / "set", **options)
    populate(photos, ["cat/new.jpg"])
    with pytest.raises(ShardError, match="built from other input"):
        shards.build(photos, tmp_path / "set")


def test_bad_destinations_and_arguments(photos, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(photos)
    for dest, message in (
        (photos, "lies in the source"),
        (photos / "set", "lies in the source"),
        (tmp_path / "link" / "set", "lies in the source"),
        (tmp_path, "holds other things"),
        (tmp_path / "file", "file: File exists"),
    ):
        with pytest.raises(ShardError, match=message):
            shards.build(photos, dest)
    for options in ({"max_rejects": 2}, {"workers": 0}, {"shard_size": 0}, {"validate": "maybe"}):
        (value,) = options.values()
        with pytest.raises(ShardError, match=str(value)):
            shards.build(photos, tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_two_builds_into_one_folder_do_not_meet(photos, tmp_path):
    with (
        locks.exclusive(tmp_path / "set", "building"),
        pytest.raises(ShardError, match=r"another process is building .*set; wait"),
    ):
        shards.build(photos, tmp_path / "set")
    assert len(shards.build(photos, tmp_path / "set").samples) == 17


# annotated sources


def test_boxes_are_part_of_the_plan_and_of_the_set(photos, tmp_path):
    path = boxes_of_photos(photos)
    index = shards.build(path, tmp_path / "set")
    assert shards.build(path, tmp_path / "set").digest == index.digest
    document = json.loads((tmp_path / "set" / "index.json").read_text())
    digest = storage.sha256(tmp_path / "set" / "annotations.json")
    assert document["sha256"]["annotations.json"] == digest
    path.write_text(json.dumps({"info": "new"} | json.loads(path.read_text()), indent=1))
    with pytest.raises(ShardError, match="built from other input or options"):
        shards.build(path, tmp_path / "set")
    path.write_text(path.read_text().replace('"info": "new",', ""))  # spaces do not count
    assert shards.build(path, tmp_path / "set").digest == index.digest
    path.write_text(path.read_text().replace("thing", "other"))
    with pytest.raises(ShardError, match="built from other input or options"):
        shards.build(path, tmp_path / "set")
    message = "are in pixels of its images, which max_side would make smaller"
    with pytest.raises(ShardError, match=message):
        shards.build(path, tmp_path / "small", max_side=16)
    assert not (tmp_path / "small").exists()


def test_an_annotated_set_is_a_source_of_its_images(photos, tmp_path):
    shards.build(boxes_of_photos(photos), tmp_path / "set", shard_size=5)
    shards.build(tmp_path / "set", tmp_path / "again", max_rejects=0)
    assert images_in(tmp_path / "set") == images_in(tmp_path / "again")
    assert not (tmp_path / "again" / "annotations.json").exists()
