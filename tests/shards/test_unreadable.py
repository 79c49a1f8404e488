"""A file that a disk does not give is no damaged image: the build stops, and can be repeated."""

import os
from pathlib import Path
import pytest
from made_lists import coco, voc
import shards
from shards import ShardError, boxes, storage
from shards.plan import make_plan
from shards.write import write_shard

FAILING = Path("/proc/self/mem")  # a regular file whose first byte is an I/O error
needs_failing = pytest.mark.skipif(not FAILING.exists(), reason="no file of Linux that fails")


@needs_failing
@pytest.mark.parametrize("validate", ["decode", "header", "none"])
def test_an_error_of_the_disk_stops_the_build_and_the_same_command_goes_on(
    photos, tmp_path, validate
):
    expected = shards.build(photos, tmp_path / "expected", shard_size=5, validate=validate)
    plan = make_plan(photos, shard_size=5, validate=validate)
    name = plan.shards[-1][-1].name
    (photos / name).rename(tmp_path / "image")
    (photos / name).symlink_to(FAILING)
    for number in (0, 1):
        write_shard(plan, tmp_path / "set", number)
    with pytest.raises(ShardError, match=rf"cannot read .*{name}: Input/output error.*repeat"):
        write_shard(plan, tmp_path / "set", len(plan.shards) - 1)
    (photos / name).unlink()
    (tmp_path / "image").rename(photos / name)
    index = shards.build(photos, tmp_path / "set", shard_size=5, validate=validate)
    assert (index.digest, dict(index.rejects)) == (expected.digest, {})


@needs_failing
def test_a_build_of_a_failing_disk_leaves_no_set_whatever_may_be_rejected(photos, tmp_path):
    (photos / "cat/x.jpg").symlink_to(FAILING)
    with pytest.raises(ShardError, match=r"cat/x\.jpg: Input/output error"):
        shards.build(photos, tmp_path / "set", max_rejects=1)
    assert not (tmp_path / "set/index.json").exists()


def test_a_disk_that_is_gone_stops_the_build(photos, tmp_path):
    expected = shards.build(photos, tmp_path / "expected")
    plan = make_plan(photos)
    photos.rename(tmp_path / "elsewhere")
    photos.mkdir()  # the empty place of a mount
    with pytest.raises(ShardError, match="was there when the source was listed"):
        write_shard(plan, tmp_path / "set", 0)
    photos.rmdir()
    (tmp_path / "elsewhere").rename(photos)
    assert shards.build(photos, tmp_path / "set").digest == expected.digest


def test_a_link_to_nothing_and_a_pipe_are_rejects(photos, tmp_path):
    (photos / "cat/gone.jpg").symlink_to("nowhere")
    os.mkfifo(photos / "cat/pipe.jpg")
    index = shards.build(photos, tmp_path / "set", max_rejects=0.2)
    assert index.rejects == {"unreadable": ["cat/gone.jpg", "cat/pipe.jpg"]}


@needs_failing
def test_a_failing_image_of_a_list_is_not_one_that_is_missing(tmp_path):
    things = {"a": [("dog", (2, 3, 9, 8))], "b": []}
    lists = [coco(tmp_path / "coco", things), voc(tmp_path / "voc", things)]
    for path, folder in zip(lists, ("coco", "voc/JPEGImages"), strict=True):
        image = tmp_path / folder / "a.jpg"
        image.unlink()
        image.symlink_to(FAILING)
        with pytest.raises(ShardError, match="Input/output error"):
            boxes.load(path)


@needs_failing
def test_a_failing_annotation_is_not_one_that_is_broken(tmp_path):
    path = voc(tmp_path / "voc", {"a": [], "b": []})
    annotation = tmp_path / "voc/Annotations/a.xml"
    annotation.unlink()
    annotation.symlink_to(FAILING)
    with pytest.raises(ShardError, match=r"cannot read .*a\.xml: Input/output error"):
        boxes.load(path)


def test_a_file_that_cannot_be_looked_at_is_not_left_out(photos, tmp_path, monkeypatch):
    stat = os.stat

    def failing(path, **options):
        if str(path).endswith("/3.jpg"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", failing)
    with pytest.raises(ShardError, match=r"cat/3\.jpg: Permission denied; make it readable"):
        storage.listing(photos, deep=True)
    table = tmp_path / "t.csv"
    table.write_text("photos/cat/1.jpg,a\nphotos/cat/3.jpg,b\n")
    with pytest.raises(ShardError, match="Permission denied"):
        shards.build(table, tmp_path / "set")


def test_a_text_that_no_name_can_be_is_no_file():
    for name in ("x" * 300, "a\0b", "/dev/null/x", "/dev/null", "/"):
        assert storage.file_size(Path(name)) == -1
