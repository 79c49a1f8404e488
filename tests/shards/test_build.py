import errno
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
import numpy as np
import pytest
from made_images import image_bytes, populate
from PIL import Image, ImageOps
import shards
from shards import ShardError, locks, storage

build_module = importlib.import_module("shards.build")


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def members(folder):
    """What tarfile finds: ``{name: bytes}``."""
    found = {}
    for file in sorted(folder.glob("*.tar")):
        with tarfile.open(file) as tar:
            found |= {info.name: tar.extractfile(info).read() for info in tar}
    return found


def test_tarfile_finds_every_image_and_label(photos, tmp_path):
    index = shards.build(photos, tmp_path / "set", shard_size=5)
    want = {}
    for file in photos.rglob("*.jpg"):
        key = f"{file.parent.name}/{file.stem}"
        want |= {
            f"{key}.jpg": file.read_bytes(),
            f"{key}.cls": b"1" if file.parent.name == "dog" else b"0",
        }
    assert members(tmp_path / "set") == want
    assert [shard.nsamples for shard in index.shards] == [5, 5, 5, 2]
    assert (index.classes, index.seen, index.rejects) == (("cat", "dog"), 17, {})
    assert sorted(content(tmp_path / "set")) == [
        "index.json",
        "keys.txt",
        "samples.npy",
        *(f"shard-{n:06}.tar" for n in range(4)),
    ]
    with tarfile.open(tmp_path / "set" / "shard-000000.tar") as tar:
        assert {(info.mtime, info.uid, info.gid, info.mode, info.uname) for info in tar} == {
            (0, 0, 0, 0o644, "")
        }


def test_webdataset_reads_it(tmp_path):
    import webdataset

    names = [
        "a.b/c.d.jpg",
        "a/x.jpg",
        "a/x.png",
        "a/é" + "long" * 40 + ".JPG",
        "__meta__/y.jpg",
        "a/z\n.jpg",
        "c/.hidden.png",
    ]
    src = populate(tmp_path / "src", names)
    index = shards.build(src, tmp_path / "set")
    got = list(
        webdataset.WebDataset(str(tmp_path / "set" / "shard-000000.tar"), shardshuffle=False)
    )
    assert [sample["__key__"] for sample in got] == list(index.keys)
    images = Counter(next(v for k, v in sample.items() if k in ("jpg", "png")) for sample in got)
    assert images == Counter((src / name).read_bytes() for name in names)
    assert [int(sample["cls"]) for sample in got] == index.samples["label"].tolist()


def test_index_follows_the_wids_format(photos, tmp_path):
    shards.build(photos, tmp_path / "set", shard_size=10)
    document = json.loads((tmp_path / "set" / "index.json").read_text())
    assert (document["__kind__"], document["wids_version"]) == ("wids-shard-index-v1", 1)
    for shard in document["shardlist"]:
        file = tmp_path / "set" / shard["url"]
        with tarfile.open(file) as tar:
            names = tar.getnames()
        assert shard == {
            "url": file.name,
            "nsamples": len(names) // 2,
            "filesize": file.stat().st_size,
            "sha256": storage.sha256(file),
        }


def test_the_order_is_random_and_drawn_from_the_seed(photos, tmp_path):
    keys = {
        seed: list(shards.build(photos, tmp_path / str(seed), seed=seed).keys) for seed in (0, 1)
    }
    assert keys[0] != keys[1]
    assert sorted(keys[0]) == sorted(keys[1]) != keys[0]


def test_bytes_do_not_depend_on_workers_place_or_times(photos, tmp_path):
    shards.build(photos, tmp_path / "one", workers=1, shard_size=3)
    moved = photos.rename(tmp_path / "elsewhere")
    for file in moved.rglob("*.jpg"):
        os.utime(file, (1, 1))
    shards.build(moved, tmp_path / "many", workers=5, shard_size=3)
    assert content(tmp_path / "one") == content(tmp_path / "many")


def test_a_flat_folder_has_no_label_members(tmp_path):
    index = shards.build(populate(tmp_path / "src", ["b.jpg", "a.png"]), tmp_path / "set")
    assert set(members(tmp_path / "set")) == {"a.png", "b.jpg"}
    assert index.samples["label"].tolist() == [-1, -1]


def spoil(src):
    """One file for every reason; two good images stay."""
    populate(src, ["cat/ok.jpg", "dog/ok.png", "stray.jpg"])
    (src / "cat" / "empty.jpg").touch()
    (src / "cat" / "text.jpg").write_text("not an image")
    (src / "cat" / "half.png").write_bytes(image_bytes()[:300])
    (src / "dog" / "gone.jpg").symlink_to("nowhere")
    (src / "dog" / "notes.txt").write_text("notes")
    return src


def test_every_input_is_kept_or_rejected_by_name(tmp_path):
    index = shards.build(spoil(tmp_path / "src"), tmp_path / "set", max_rejects=1)
    assert index.rejects == {
        "corrupt image": ["cat/half.png"],
        "empty file": ["cat/empty.jpg"],
        "no class": ["stray.jpg"],
        "not an image": ["cat/text.jpg"],
        "other file": ["dog/notes.txt"],
        "unreadable": ["dog/gone.jpg"],
    }
    assert sorted(index.keys) == ["cat/ok", "dog/ok"]
    assert index.seen == 8
    assert json.loads((tmp_path / "set" / "index.json").read_text())["counts"] == {
        "seen": 8,
        "kept": 2,
        "rejected": dict.fromkeys(index.rejects, 1),
    }


def test_too_many_rejects_stop_the_build_and_a_larger_limit_reuses_its_work(tmp_path, monkeypatch):
    src, dest = spoil(tmp_path / "src"), tmp_path / "set"
    with pytest.raises(
        ShardError,
        match=r"5 of 7 images .* 1\.00% may be: .*1 corrupt image \(cat/half\.png\).*--max-rejects",
    ) as error:
        shards.build(src, dest)
    assert "notes.txt" not in str(error.value)
    assert not (dest / "index.json").exists()
    with pytest.raises(ShardError, match="unfinished one; run its build again"):
        shards.open(dest)
    monkeypatch.setattr(build_module, "write_shard", None)
    assert len(shards.build(src, dest, max_rejects=0.72).samples) == 2


def test_files_of_other_kinds_are_no_rejected_images(tmp_path):
    src = populate(tmp_path / "src", ["a.jpg"])
    for number in range(50):
        (src / f"{number}.txt").touch()
    index = shards.build(src, tmp_path / "set", max_rejects=0)
    assert (index.seen, len(index.rejects["other file"])) == (51, 50)


def test_nothing_but_rejects_is_no_set(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.jpg").touch()
    with pytest.raises(ShardError, match="1 of 1 images"):
        shards.build(tmp_path / "src", tmp_path / "set", max_rejects=1)


@pytest.mark.parametrize(("validate", "kept"), [("decode", 1), ("header", 2), ("none", 3)])
def test_validation_depths(tmp_path, validate, kept):
    src = populate(tmp_path / "src", ["ok.png"])
    (src / "half.png").write_bytes(image_bytes()[:300])
    (src / "text.png").write_text("text")
    assert (
        len(shards.build(src, tmp_path / "set", validate=validate, max_rejects=1).samples) == kept
    )


def annotated(photos):
    """COCO's annotations of the photographs, a box in each."""
    files = sorted(photos.rglob("*.jpg"))
    listed = [
        {"id": n, "file_name": str(file), "width": 20, "height": 16} for n, file in enumerate(files)
    ]
    things = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [n % 9, 2, 5, 6]}
        for n in range(len(files))
    ]
    path = photos.parent / "annotations.json"
    path.write_text(
        json.dumps(
            {"images": listed, "annotations": things, "categories": [{"id": 1, "name": "thing"}]}
        )
    )
    return path


@pytest.mark.parametrize(
    ("boxes", "after"), [*((False, n) for n in range(9)), *((True, n) for n in range(5, 10))]
)
def test_a_build_killed_at_any_write_goes_on_to_the_same_bytes(
    photos, tmp_path, monkeypatch, boxes, after
):
    photos = annotated(photos) if boxes else photos
    shards.build(photos, tmp_path / "whole", shard_size=8)
    assert (tmp_path / "whole" / "annotations.json").exists() == boxes
    count, replace = 0, storage.Path.replace

    def dying(self, target):
        nonlocal count
        count += 1
        if count > after:
            raise SystemExit
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(storage.Path, "replace", dying)
        with pytest.raises(SystemExit):
            shards.build(photos, tmp_path / "set", shard_size=8, workers=1)
    with pytest.raises(ShardError):
        shards.open(tmp_path / "set")
    written = []
    with monkeypatch.context() as patch:
        original = build_module.write_shard
        patch.setattr(
            build_module,
            "write_shard",
            lambda plan, dest, n, tick: (written.append(n), original(plan, dest, n, tick)),
        )
        shards.build(photos, tmp_path / "set", shard_size=8)
    assert content(tmp_path / "set") == content(tmp_path / "whole")
    assert sorted(written) == list(range(min(after // 2, 3), 3))


def test_an_unfinished_build_writes_a_shard_again_that_was_removed(tmp_path):
    src, dest = spoil(tmp_path / "src"), tmp_path / "set"
    with pytest.raises(ShardError):
        shards.build(src, dest, shard_size=3)
    (dest / "shard-000001.tar").unlink()
    shards.build(src, dest, shard_size=3, max_rejects=1)
    assert shards.verify(dest) == []


def test_a_finished_set_returns_at_once(photos, tmp_path, monkeypatch):
    want = shards.build(photos, tmp_path / "set")
    (tmp_path / "set" / ".shard-000000.json").write_text(
        "left by a kill after the index was committed"
    )
    monkeypatch.setattr(build_module, "write_shard", None)
    assert shards.build(photos, tmp_path / "set", workers=3, max_rejects=0.5).digest == want.digest
    assert not list((tmp_path / "set").glob(".*"))


def test_a_finished_set_that_was_damaged_is_not_returned(photos, tmp_path):
    shards.build(photos, tmp_path / "set")
    os.truncate(tmp_path / "set" / "shard-000000.tar", 1000)
    with pytest.raises(
        ShardError,
        match=r"shard-000000\.tar does not have its \d+ bytes.*remove it and build it again",
    ):
        shards.build(photos, tmp_path / "set")


def test_another_plan_never_mixes_with_what_is_there(photos, tmp_path):
    shards.build(photos, tmp_path / "set")
    for options in ({"seed": 1}, {"shard_size": 7}, {"validate": "header"}):
        with pytest.raises(
            ShardError, match="built from other input or options; remove it or choose another DEST"
        ):
            shards.build(photos, tmp_path / "set", **options)
    populate(photos, ["cat/new.jpg"])
    with pytest.raises(ShardError, match="built from other input"):
        shards.build(photos, tmp_path / "set")


def test_boxes_are_part_of_the_plan_and_of_the_set(photos, tmp_path):
    path = annotated(photos)
    index = shards.build(path, tmp_path / "set")
    assert shards.build(path, tmp_path / "set").digest == index.digest
    document = json.loads((tmp_path / "set" / "index.json").read_text())
    assert document["sha256"]["annotations.json"] == storage.sha256(
        tmp_path / "set" / "annotations.json"
    )
    path.write_text(json.dumps({"info": "new"} | json.loads(path.read_text()), indent=1))
    with pytest.raises(ShardError, match="built from other input or options"):
        shards.build(path, tmp_path / "set")
    path.write_text(path.read_text().replace('"info": "new",', ""))  # spaces do not count
    assert shards.build(path, tmp_path / "set").digest == index.digest
    path.write_text(path.read_text().replace("thing", "other"))
    with pytest.raises(ShardError, match="built from other input or options"):
        shards.build(path, tmp_path / "set")
    with pytest.raises(
        ShardError, match="are in pixels of its images, which max_side would make smaller"
    ):
        shards.build(path, tmp_path / "small", max_side=16)
    assert not (tmp_path / "small").exists()


def test_an_annotated_set_is_a_source_of_its_images(photos, tmp_path):
    shards.build(annotated(photos), tmp_path / "set", shard_size=5)
    shards.build(tmp_path / "set", tmp_path / "again", max_rejects=0)
    assert sorted(s.data for s in shards.open(tmp_path / "set")) == sorted(
        s.data for s in shards.open(tmp_path / "again")
    )
    assert not (tmp_path / "again" / "annotations.json").exists()


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
        with pytest.raises(ShardError, match=str(*options.values())):
            shards.build(photos, tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_a_full_disk_names_the_file_and_leaves_no_set(photos, tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ShardError, match=r"set/shard-00000\d\.tar: No space left on device"):
            shards.build(photos, tmp_path / "set", shard_size=5)
    assert list((tmp_path / "set").iterdir()) == []
    assert len(shards.build(photos, tmp_path / "set", shard_size=5).samples) == 17


def test_a_file_that_vanishes_after_the_listing_is_rejected(photos, tmp_path):
    plan = build_module.make_plan(photos, shard_size=100, seed=0, validate="decode")
    (photos / "cat" / "3.jpg").unlink()
    build_module.write_shard(plan, tmp_path / "set", 0)
    assert build_module.commit(plan, tmp_path / "set", max_rejects=0.1).rejects == {
        "unreadable": ["cat/3.jpg"]
    }


def test_ctrl_c_stops_at_the_next_image(tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    data = image_bytes(size=(1200, 1200), format="JPEG", quality=95)
    for number in range(400):
        (src / f"{number}.jpg").write_bytes(data)
    script = "import sys, shards; shards.build(sys.argv[1], sys.argv[2], shard_size=200, workers=2)"
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); " + script
    )  # a shell's background ignores it
    child = subprocess.Popen(
        [sys.executable, "-c", script, src, tmp_path / "set"], stderr=subprocess.PIPE
    )
    while not list(tmp_path.glob("set/.part-*")):
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in child.communicate(timeout=20)[1]
    assert list(tmp_path.glob("set/*")) == []  # the shards under way were given up, not finished


def test_equal_sets_have_equal_identities_and_names_follow_content(photos, tmp_path):
    first = shards.build(photos, tmp_path / "a")
    again = shards.build(photos, tmp_path / "b")
    assert first.digest == again.digest
    size = (photos / "cat" / "0.jpg").stat().st_size
    (photos / "cat" / "0.jpg").write_bytes(bytes(size))
    other = shards.build(photos, tmp_path / "c", validate="none")
    names = [json.loads((tmp_path / d / "index.json").read_text())["name"] for d in "abc"]
    assert names[0] == names[1] != names[2]
    assert other.digest != first.digest


def test_rows_are_twenty_one_bytes(photos, tmp_path):
    shards.build(photos, tmp_path / "set")
    rows = np.load(tmp_path / "set" / "samples.npy")
    assert rows.dtype.itemsize == 21
    assert rows.dtype.names == ("offset", "length", "crc32", "label", "orientation")


def test_larger_images_are_made_smaller_and_others_keep_their_bytes(tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    smooth = Image.open(io.BytesIO(image_bytes(0, (6, 4)))).resize(
        (300, 200), Image.Resampling.BICUBIC
    )
    smooth.save(src / "large.png")
    smooth.save(src / "turned.jpg", exif=exif)
    (src / "small.png").write_bytes(image_bytes(2, (100, 80)))
    shards.build(src, tmp_path / "set", max_side=120, quality=95)
    data = shards.open(tmp_path / "set")
    by_key = {sample.key: (number, sample.data) for number, sample in enumerate(data)}
    assert by_key["small"][1] == (src / "small.png").read_bytes()
    for name, size in (("large.png", (120, 80)), ("turned.jpg", (80, 120))):
        number, file = by_key[name.partition(".")[0]]
        got = Image.open(io.BytesIO(file))
        assert (got.format, got.size, data.index.samples[number]["orientation"]) == (
            "JPEG",
            size,
            1,
        )
        want = (
            ImageOps.exif_transpose(Image.open(src / name))
            .convert("RGB")
            .resize(size, Image.Resampling.LANCZOS)
        )
        assert np.abs(np.asarray(got, float) - np.asarray(want, float)).mean() < 3
    with tarfile.open(tmp_path / "set" / "shard-000000.tar") as tar:
        assert sorted(tar.getnames()) == ["large.jpg", "small.png", "turned.jpg"]
    with pytest.raises(ShardError, match="built from other input or options"):
        shards.build(src, tmp_path / "set", max_side=100)
    with pytest.raises(
        ShardError,
        match=r"wanted shard_size and max_side from 1, quality from 1 to 100, .* got 1000, 0, 90 and",
    ):
        shards.build(src, tmp_path / "other", max_side=0)


def test_the_orientation_is_recorded_unless_nothing_is_looked_at(tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        (src / f"{turn}.jpg").write_bytes(image_bytes(turn, format="JPEG", exif=exif))
    for validate in ("decode", "header", "none"):
        index = shards.build(src, tmp_path / validate, validate=validate)
        recorded = dict(zip(index.keys, index.samples["orientation"].tolist(), strict=True))
        assert recorded == {str(turn): turn if validate != "none" else 0 for turn in range(1, 9)}


def test_two_builds_into_one_folder_do_not_meet(photos, tmp_path):
    with (
        locks.exclusive(tmp_path / "set", "building"),
        pytest.raises(ShardError, match=r"another process is building .*set; wait"),
    ):
        shards.build(photos, tmp_path / "set")
    assert len(shards.build(photos, tmp_path / "set").samples) == 17


def test_as_a_webdataset_pipeline_it_has_every_sample_once(photos, tmp_path):
    shards.build(photos, tmp_path / "set", shard_size=5)
    data = shards.open(tmp_path / "set")
    got = {sample["__key__"]: (sample["jpg"], int(sample["cls"])) for sample in shards.stream(data)}
    assert got == {sample.key: (sample.data, sample.label) for sample in data}
    wids = pytest.importorskip("wids")
    read = wids.ShardListDataset(
        str(tmp_path / "set" / "index.json"), cache_dir=str(tmp_path / "cache")
    )
    assert [read[n]["__key__"] for n in range(len(read))] == list(data.keys)
    assert all(read[n][".jpg"].tobytes() == data.image(n).tobytes() for n in range(len(read)))
