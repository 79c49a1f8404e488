"""What a build makes of its images; how it goes on and what it refuses is in test_build_again."""

import io
import json
import os
import tarfile
from collections import Counter
import numpy as np
import pytest
from made_images import image_bytes, populate, spoil
from PIL import Image, ImageOps
import shards
from shards import ShardError, boxes, storage

EXIF_ORIENTATION = 0x0112


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def members(folder):
    """What tarfile reads: ``{name: bytes}``."""
    files = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            files |= {info.name: tar.extractfile(info).read() for info in tar}
    return files


def oriented(orientation):
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return exif


# the format


def test_tarfile_finds_every_image_and_label(photos, tmp_path):
    index = shards.build(photos, tmp_path / "set", shard_size=5)
    wanted = {}
    for label, name in enumerate(("cat", "dog")):
        for file in (photos / name).iterdir():
            wanted[f"{name}/{file.stem}.jpg"] = file.read_bytes()
            wanted[f"{name}/{file.stem}.cls"] = b"%d" % label
    assert members(tmp_path / "set") == wanted
    assert [shard.nsamples for shard in index.shards] == [5, 5, 5, 2]
    assert (index.classes, index.seen, index.rejects) == (("cat", "dog"), 17, {})
    tars = [f"shard-{number:06}.tar" for number in range(4)]
    assert sorted(content(tmp_path / "set")) == ["index.json", "keys.txt", "samples.npy", *tars]
    with tarfile.open(tmp_path / "set" / "shard-000000.tar") as tar:
        headers = {(info.mtime, info.uid, info.gid, info.mode, info.uname) for info in tar}
    assert headers == {(0, 0, 0, 0o644, "")}


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
    tar = str(tmp_path / "set" / "shard-000000.tar")
    samples = list(webdataset.WebDataset(tar, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == list(index.keys)
    assert [int(sample["cls"]) for sample in samples] == index.samples["label"].tolist()
    images = Counter(sample.get("jpg") or sample["png"] for sample in samples)
    assert images == Counter((src / name).read_bytes() for name in names)


def test_as_a_webdataset_pipeline_it_has_every_sample_once(photos, tmp_path):
    shards.build(photos, tmp_path / "set", shard_size=5)
    data = shards.open(tmp_path / "set")
    samples = {
        sample["__key__"]: (sample["jpg"], int(sample["cls"])) for sample in shards.stream(data)
    }
    assert samples == {sample.key: (sample.data, sample.label) for sample in data}


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


def test_wids_reads_it(photos, tmp_path):
    wids = pytest.importorskip("wids")
    shards.build(photos, tmp_path / "set", shard_size=5)
    data = shards.open(tmp_path / "set")
    index = str(tmp_path / "set" / "index.json")
    dataset = wids.ShardListDataset(index, cache_dir=str(tmp_path / "cache"))
    assert [dataset[n]["__key__"] for n in range(len(dataset))] == list(data.keys)
    for number in range(len(dataset)):
        assert dataset[number][".jpg"].tobytes() == data.image(number).tobytes()


def test_rows_are_twenty_one_bytes(photos, tmp_path):
    shards.build(photos, tmp_path / "set")
    rows = np.load(tmp_path / "set" / "samples.npy")
    assert rows.dtype.itemsize == 21
    assert rows.dtype.names == ("offset", "length", "crc32", "label", "orientation")


# what decides the bytes


def test_the_order_is_random_and_drawn_from_the_seed(photos, tmp_path):
    first, second = (
        list(shards.build(photos, tmp_path / str(seed), seed=seed).keys) for seed in (0, 1)
    )
    assert first != second
    assert sorted(first) == sorted(second) != first


def test_bytes_do_not_depend_on_workers_place_or_times(photos, tmp_path):
    shards.build(photos, tmp_path / "few", workers=1, shard_size=3)
    moved = photos.rename(tmp_path / "elsewhere")
    for file in moved.rglob("*.jpg"):
        os.utime(file, (1, 1))
    shards.build(moved, tmp_path / "many", workers=5, shard_size=3)
    assert content(tmp_path / "few") == content(tmp_path / "many")


def test_the_bytes_of_a_set_never_change(tmp_path):
    """Whoever changes them on purpose raises ``shards.index.SCHEMA``."""
    src = tmp_path / "src"
    for number in range(12):
        file = src / f"class {number % 3}" / f"{number}.a.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * (100 * number + 1))
    (src / "notes.txt").write_text("notes")
    index = shards.build(src, tmp_path / "set", shard_size=5, seed=7, validate="none")
    assert index.digest == "6cda393b4be7db052ecc8916c2d8fe4d7603e41370b19ae36befe95255ad6da9"
    (src / "notes.txt").unlink()
    images = [
        {"id": number, "file_name": f"class {number % 3}/{number}.a.jpg", "width": 9, "height": 8}
        for number in range(13)
    ]
    box = {"id": 1, "image_id": 4, "category_id": 2, "bbox": [1, 2, 3.5, 4], "iscrowd": 0}
    document = {
        "images": images,
        "annotations": [box],
        "categories": [{"id": 2, "name": "thing"}],
    }
    (src / "annotations.json").write_text(json.dumps(document))
    options = {"shard_size": 5, "validate": "none", "max_rejects": 0.5}
    index = shards.build(src, tmp_path / "boxes", **options)
    assert index.digest == "1d3e63e692ba28329a2a1aaf2055166503df46a3bab45064121c371f3d205531"
    assert (
        boxes.load(tmp_path / "boxes").digest
        == "294469261b87143db4c04cbe1294f75c18db19bcea8e043e25121863eeb68473"
    )


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


def test_a_flat_folder_has_no_label_members(tmp_path):
    index = shards.build(populate(tmp_path / "src", ["b.jpg", "a.png"]), tmp_path / "set")
    assert set(members(tmp_path / "set")) == {"a.png", "b.jpg"}
    assert index.samples["label"].tolist() == [-1, -1]


# kept or rejected


def test_every_input_is_kept_or_rejected_by_name(tmp_path):
    index = shards.build(spoil(tmp_path / "src"), tmp_path / "set", max_rejects=1)
    assert index.rejects == {
        "corrupt image": ["cat/half.png"],
        "empty file": ["cat/empty.jpg"],
        "not an image": ["cat/text.jpg"],
        "other file": ["dog/notes.txt"],
        "unreadable": ["dog/gone.jpg"],
    }
    assert dict(zip(index.keys, index.samples["label"], strict=True)) == {
        "cat/ok": 0,
        "dog/ok": 1,
        "stray": -1,
    }
    assert index.seen == 8
    counts = json.loads((tmp_path / "set" / "index.json").read_text())["counts"]
    assert counts == {"seen": 8, "kept": 3, "rejected": dict.fromkeys(index.rejects, 1)}


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


@pytest.mark.parametrize(("validate", "count"), [("decode", 1), ("header", 2), ("none", 3)])
def test_validation_depths(tmp_path, validate, count):
    src = populate(tmp_path / "src", ["ok.png"])
    (src / "half.png").write_bytes(image_bytes()[:300])
    (src / "text.png").write_text("text")
    index = shards.build(src, tmp_path / "set", validate=validate, max_rejects=1)
    assert len(index.samples) == count


# sizes and orientations


def test_larger_images_are_made_smaller_and_others_keep_their_bytes(tmp_path):
    src = tmp_path / "src"
    src.mkdir()
    noise = Image.open(io.BytesIO(image_bytes(0, (6, 4))))
    smooth = noise.resize((300, 200), Image.Resampling.BICUBIC)
    smooth.save(src / "large.png")
    smooth.save(src / "turned.jpg", exif=oriented(6))
    (src / "small.png").write_bytes(image_bytes(2, (100, 80)))
    shards.build(src, tmp_path / "set", max_side=120, quality=95)
    data = shards.open(tmp_path / "set")
    numbers = {key: number for number, key in enumerate(data.keys)}
    assert data[numbers["small"]].data == (src / "small.png").read_bytes()
    for name, size in (("large.png", (120, 80)), ("turned.jpg", (80, 120))):
        number = numbers[name.partition(".")[0]]
        image = Image.open(io.BytesIO(data[number].data))
        assert (image.format, image.size) == ("JPEG", size)
        assert data.index.samples[number]["orientation"] == 1
        upright = ImageOps.exif_transpose(Image.open(src / name)).convert("RGB")
        wanted = upright.resize(size, Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(image, float) - np.asarray(wanted, float)).mean() < 3
    with tarfile.open(tmp_path / "set" / "shard-000000.tar") as tar:
        assert sorted(tar.getnames()) == ["large.jpg", "small.png", "turned.jpg"]
    with pytest.raises(ShardError, match="built from other input or options"):
        shards.build(src, tmp_path / "set", max_side=100)
    bounds = "wanted shard_size and max_side from 1, quality from 1 to 100"
    with pytest.raises(ShardError, match=f"{bounds}, .* got 1000, 0, 90 and"):
        shards.build(src, tmp_path / "other", max_side=0)


@pytest.mark.parametrize("validate", ["decode", "header", "none"])
def test_the_orientation_is_recorded_unless_nothing_is_looked_at(tmp_path, validate):
    src = tmp_path / "src"
    src.mkdir()
    for turn in range(1, 9):
        data = image_bytes(turn, file_format="JPEG", exif=oriented(turn))
        (src / f"{turn}.jpg").write_bytes(data)
    index = shards.build(src, tmp_path / "set", validate=validate)
    recorded = dict(zip(index.keys, index.samples["orientation"].tolist(), strict=True))
    assert recorded == {str(turn): 0 if validate == "none" else turn for turn in range(1, 9)}
