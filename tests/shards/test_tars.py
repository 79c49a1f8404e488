"""Tars as people bring them: masks, labels, class folders, tars in tars, and what lies beside."""

import gzip
import hashlib
import io
import json
import random
import subprocess
import tarfile
import pytest
from made_images import image_bytes, populate
import shards
from shards import Reject, ShardError
from shards.index import webdataset_key
from shards.sources import find

IMAGES = [image_bytes(n, file_format="JPEG") for n in range(8)]
MAP = image_bytes(99, mode="L")


def packed(members):
    """The bytes of a tar of (name, bytes)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed(members))
    return path


def classes_of(source):
    """The class of each sample, by its name."""
    names = [*source.classes, None]
    return {sample.name: names[sample.label] for sample in source.samples}


def photos(*names):
    return [(name, IMAGES[number % 8]) for number, name in enumerate(names)]


# which members are samples


@pytest.mark.parametrize("field", ["seg.png", "mask.PNG", "depth.png", "edge.jpg", "extra.png"])
def test_maps_beside_an_image_are_no_samples(tmp_path, field):
    members = []
    for number in range(4):
        members += [(f"s{number}.jpg", IMAGES[number]), (f"s{number}.{field}", MAP)]
        members += [(f"s{number}.cls", f"{number % 2}".encode())]
    path = tar(tmp_path / "0.tar", members)
    index = shards.build(path, tmp_path / "set", max_rejects=0)
    assert index.rejects == {Reject.OTHER_FILE: [f"0/s{number}.{field}" for number in range(4)]}
    assert (len(index.samples), index.seen, index.classes) == (4, 8, ("0", "1"))
    assert "4 image files belong to another one" in find(path).notes[0]
    assert {sample.data for sample in shards.open(tmp_path / "set")} == {*IMAGES[:4]}


def test_a_png_beside_each_jpg_is_its_map_but_not_one_beside_a_few(tmp_path):
    pairs = photos("1.jpg", "1.png", "2.jpg", "2.png", "3.jpg")
    assert [*classes_of(find(tar(tmp_path / "a.tar", pairs)))] == ["a/1.jpg", "a/2.jpg", "a/3.jpg"]
    few = photos("1.jpg", "1.png", "2.jpg", "3.jpg")
    assert len(find(tar(tmp_path / "b.tar", few)).samples) == 4


def test_views_and_names_with_dots_are_samples_each(tmp_path):
    views = photos("x.left.jpg", "x.right.jpg", "x.depth.png", "img_0.jpg", "img_0.5.jpg")
    source = find(tar(tmp_path / "v.tar", [*views, ("x.cls", b"7")]))
    assert classes_of(source) == {
        "v/img_0.5.jpg": None,
        "v/img_0.jpg": None,
        "v/x.left.jpg": "7",
        "v/x.right.jpg": "7",
    }
    assert source.rejects == [(Reject.OTHER_FILE, "v/x.depth.png")]


def test_a_name_like_that_of_a_map_is_one_only_beside_images(tmp_path):
    alone = tar(tmp_path / "a.tar", photos("1.seg.png", "2.seg.png"))
    assert len(find(alone).samples) == 2
    named = tar(tmp_path / "n.tar", photos("p1.normal.jpg", "p2.normal.jpg", "p3.pneumonia.jpg"))
    assert len(find(named).samples) == 3
    # of 2 the image is missing
    views = tar(
        tmp_path / "v.tar", photos("1.left.jpg", "1.right.jpg", "1.depth.png", "2.depth.png")
    )
    assert [*classes_of(find(views))] == ["v/1.left.jpg", "v/1.right.jpg"]


def test_what_a_mac_leaves_in_a_tar_is_junk(tmp_path):
    members = []
    for number in range(3):
        members += [
            (f"./set/._{number}.jpg", b"\0\5\26\7"),
            (f"./set/{number}.jpg", IMAGES[number]),
        ]
        members += [(f"./set/{number}.cls", b"1")]
    index = shards.build(tar(tmp_path / "0.tar", members), tmp_path / "set", max_rejects=0)
    assert {reason: len(names) for reason, names in index.rejects.items()} == {Reject.JUNK: 3}
    assert len(index.samples) == 3


def test_a_file_with_holes_is_named_and_no_wrong_pixels_are_read(tmp_path):
    file = tmp_path / "hole.ppm"
    with file.open("wb") as written:
        written.write(b"P6 256 256 255\n" + b"\1" * 8192)
        written.seek(2**16, 1)
        written.write(b"\2" * (256 * 256 * 3 - 2**16 - 8192))
    (tmp_path / "full.jpg").write_bytes(IMAGES[0])
    path = tmp_path / "s.tar"
    for form in ("gnu", "pax"):
        command = ["tar", "-S", f"--format={form}", "-cf", path, "-C", tmp_path, file.name]
        subprocess.run([*command, "full.jpg"], check=True)
        with tarfile.open(path) as packed_file:
            if not packed_file.getmember("hole.ppm").issparse():
                pytest.skip("this file system has no holes")
        source = find(path)
        assert source.rejects == [(Reject.SPARSE, "s/hole.ppm")]
        assert [sample.name for sample in source.samples] == ["s/full.jpg"]


# labels


def test_labels_of_dotted_keys_and_of_any_case_are_found(tmp_path):
    members = [
        ("a.b/c.d.jpg", IMAGES[0]),
        ("a.b/c.d.cls", b"1"),
        ("x.JPG", IMAGES[1]),
        ("x.CLS", b"2"),
        ("y.jpg", IMAGES[2]),
        ("y.label.cls", b"3"),
        ("z.jpg", IMAGES[3]),
        ("z.cls", b"-1"),
        ("gone.cls", b"4"),
        ("a.b/c.gone.cls", b"5"),
    ]
    source = find(tar(tmp_path / "t.tar", members))
    assert classes_of(source) == {
        "t/a.b/c.d.jpg": "1",
        "t/x.JPG": "2",
        "t/y.jpg": "3",
        "t/z.jpg": None,
    }
    assert source.rejects == [
        (Reject.OTHER_FILE, "t/a.b/c.gone.cls"),
        (Reject.OTHER_FILE, "t/gone.cls"),
    ]


def test_shard_writers_own_dotted_keys_keep_their_labels(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "%d.tar"), verbose=0) as writer:
        for number in range(4):
            writer.write({"__key__": f"img_0.{number}", "jpg": IMAGES[number], "cls": number % 2})
    assert [*classes_of(find(tmp_path / "0.tar")).values()] == ["0", "1", "0", "1"]


@pytest.mark.parametrize(
    ("side", "texts", "classes"),
    [
        ("json", ['{"label": 10, "w": 3}', '{"label": 9, "w": 3}'] * 2, ["9", "10"]),
        ("json", ['{"class_name": "dog"}', '{"class_name": "cat"}'] * 2, ["cat", "dog"]),
        ("json", ['{"label": null}', '{"label": 3}', "[1]", "{"], ["3"]),
        ("json", [f'{{"label": "caption {n}", "url": "x"}}' for n in range(4)], []),
        ("json", ['{"label": true}', '{"label": 0.5}'] * 2, []),
        ("txt", ["dog\n", "golden retriever"] * 2, ["dog", "golden retriever"]),
        ("txt", [f"a picture of number {n}" for n in range(4)], []),
        ("txt", ["a caption"] * 4, []),
        ("txt", ["dog", "dog", "cat", "a text that is much too long for a class" * 2], []),
        ("label.cls", ["1", "0"] * 2, ["0", "1"]),
    ],
)
def test_a_json_or_txt_is_a_label_where_its_values_are_classes(tmp_path, side, texts, classes):
    members = photos("0.jpg", "1.jpg", "2.jpg", "3.jpg")
    members += [(f"{number}.{side}", text.encode()) for number, text in enumerate(texts)]
    source = find(tar(tmp_path / "t.tar", members))
    assert source.classes == classes
    assert source.rejects == []
    assert bool(source.notes) == (bool(classes) and side != "label.cls")


def test_folders_in_a_tar_are_classes_unless_it_is_a_webdataset(tmp_path):
    names = ("pets/cat/1.jpg", "pets/dog/2.jpg", "./pets/cat/3.jpg")
    source = find(tar(tmp_path / "t.tar", photos(*names)))
    assert [*classes_of(source).values()] == ["cat", "cat", "dog"]
    assert any("--no-classes" in note for note in source.notes)
    members = [*photos(*names), ("pets/cat/1.json", b"{}")]
    assert find(tar(tmp_path / "u.tar", members)).classes == []
    assert find(tmp_path / "t.tar", classes=False).classes == []


# tars in tars, behind tars, of folders


def test_imagenets_tar_of_tars_has_its_classes(tmp_path):
    inner = [
        (f"n0000000{n}.tar", packed(photos(f"n0000000{n}_1.JPEG", f"n0000000{n}_2.JPEG")))
        for n in range(3)
    ]
    path = tar(tmp_path / "train.tar", inner)
    index = shards.build(path, tmp_path / "set", max_rejects=0)
    assert index.classes == ("n00000000", "n00000001", "n00000002")
    assert sorted(index.keys)[0] == "train/n00000000/n00000000_1"
    samples = shards.open(tmp_path / "set")
    assert {sample.data for sample in samples} == {IMAGES[0], IMAGES[1]}
    # the same, unpacked once
    for name, data in inner:
        (tmp_path / "d").mkdir(exist_ok=True)
        (tmp_path / "d" / name).write_bytes(data)
    assert find(tmp_path / "d").classes == [*index.classes]


def test_numbered_shards_are_no_classes(tmp_path):
    for number in range(2):
        tar(tmp_path / f"train-{number:04}.tar", photos(f"{number}.jpg"))
    assert find(tmp_path).classes == []


def test_a_damaged_or_compressed_tar_in_a_tar_is_named(tmp_path):
    data = packed(photos("1.jpg", "2.jpg"))
    path = tar(tmp_path / "t.tar", [("in/a.tar", data[:700])])
    with pytest.raises(ShardError, match="is not a whole tar"):
        find(path)
    tar(path, [("in/a.tar", gzip.compress(data))])
    with pytest.raises(ShardError, match=r"in/a\.tar in it, is compressed by gzip"):
        find(path)
    tar(path, [*photos("1.jpg"), ("b.tar.gz", gzip.compress(data))])
    source = find(path)
    assert source.rejects == [(Reject.OTHER_FILE, "t/b.tar.gz")]
    assert "compressed tars in tars are not read: t/b.tar.gz" in source.notes


def test_what_is_only_called_a_tar_in_a_tar_is_another_file(tmp_path):
    path = tar(tmp_path / "t.tar", [*photos("1.jpg"), ("model.pth.tar", b"PK\3\4" * 300)])
    assert find(path).rejects == [(Reject.OTHER_FILE, "t/model.pth.tar")]


def test_tars_behind_a_tar_are_read_and_their_labels_do_not_mix(tmp_path):
    parts = [
        packed([("0.jpg", IMAGES[number]), ("0.cls", f"{number}".encode())]) for number in range(3)
    ]
    path = tmp_path / "c.tar"
    path.write_bytes(b"".join(parts))
    assert classes_of(find(path)) == {"c/0.jpg": "0", "c~2/0.jpg": "1", "c~3/0.jpg": "2"}
    shards.build(path, tmp_path / "set", max_rejects=0)
    samples = {sample.label: sample.data for sample in shards.open(tmp_path / "set")}
    assert samples == dict(enumerate(IMAGES[:3]))
    for rest in (parts[2][:600], b"no tar"):
        path.write_bytes(parts[0] + parts[1] + rest)
        with pytest.raises(ShardError, match="is not a whole tar"):
            find(path)


def test_a_picture_beside_shards_is_not_the_set(tmp_path):
    members = [member for number in range(9) for member in photos(f"{number}.jpg")]
    tar(tmp_path / "d" / "0.tar", members * 2)
    populate(tmp_path / "d", ["preview.png", "._0.png"])
    (tmp_path / "d" / "0_stats.json").write_text("{}")
    source = find(tmp_path / "d")
    assert len(source.samples) == 9
    assert "not those beside them: preview.png" in source.notes[0]
    left = [rejection for rejection in source.rejects if rejection.reason != Reject.DUPLICATE]
    assert left == [
        (Reject.JUNK, "._0.png"),
        (Reject.OTHER_FILE, "0_stats.json"),
        (Reject.OTHER_FILE, "preview.png"),
    ]


def test_a_tar_beside_images_is_told(tmp_path):
    populate(tmp_path, ["cat/1.jpg", "dog/2.jpg"])
    tar(tmp_path / "photos.tar", photos("1.jpg"))
    source = find(tmp_path)
    assert source.rejects == [(Reject.OTHER_FILE, "photos.tar")]
    assert "not those in its tars: photos.tar" in source.notes[-1]


def test_a_folder_of_tars_is_read_at_any_depth_and_compressed_ones_are_refused(tmp_path):
    tar(tmp_path / "0.tar", photos("1.jpg"))
    tar(tmp_path / "sub" / "1.TAR", photos("1.jpg"))
    source = find(tmp_path)
    assert [sample.name for sample in source.samples] == ["0/1.jpg", "sub/1/1.jpg"]
    assert "the tars of several folders are one set" in source.notes[0]
    (tmp_path / "2.tar.gz").write_bytes(gzip.compress(packed(photos("1.jpg"))))
    with pytest.raises(ShardError, match=r"not compressed .* got 2\.tar\.gz; unpack them first"):
        find(tmp_path)
    (tmp_path / "alone").mkdir()
    (tmp_path / "2.tar.gz").rename(tmp_path / "alone" / "2.tgz")
    with pytest.raises(ShardError, match=r"not compressed .* got 2\.tgz; unpack them first"):
        find(tmp_path / "alone")


# names


def test_names_of_members_fit_into_wids_hundred_bytes(tmp_path):
    long_names = [
        f"{'c' * 60}/{'n' * 80}_1.jpg",
        f"{'c' * 60}/{'n' * 80}_2.jpg",
        f"{'ö' * 60}/1.jpg",
        f"a/{'%' * 40}.jpeg",
    ]
    longest = f"{'k' * 96}.jpg"
    src = populate(tmp_path / "src", [*long_names, longest])
    index = shards.build(src, tmp_path / "set", shard_size=10)
    with tarfile.open(tmp_path / "set" / "shard-000000.tar") as built:
        names = built.getnames()
    assert max(len(name.encode()) for name in names) <= 100
    assert len({*names}) == len(names) == 5 + 4
    # what fitted keeps its name; the file's name stays where there is room
    assert longest.removesuffix(".jpg") in index.keys
    mark = hashlib.sha256(f"{'ö' * 60}/1".encode()).hexdigest()[:16]
    assert f"{'ö' * 35}~{mark}/1" in index.keys


def test_wids_finds_every_sample_of_long_names(tmp_path):
    wids = pytest.importorskip("wids")
    names = [f"{'c' * 60}/{'n' * length}_{length}.jpg" for length in range(25, 40)]
    shards.build(populate(tmp_path / "src", names), tmp_path / "set")
    data = shards.open(tmp_path / "set")
    theirs = wids.ShardListDataset(
        str(tmp_path / "set" / "index.json"), cache_dir=str(tmp_path / "cache")
    )
    assert [theirs[n]["__key__"] for n in range(len(names))] == [str(key) for key in data.keys]


def test_every_member_is_a_sample_or_named(tmp_path):
    members = [*photos("1.jpg", "1.seg.png", "cat/2.jpg", "._1.jpg"), ("1.cls", b"0")]
    members += [("notes.md", b"-"), ("empty.jpg", b""), ("in.tar", packed(photos("3.jpg")))]
    index = shards.build(tar(tmp_path / "t.tar", members), tmp_path / "set", max_rejects=1)
    listed = {name for names in index.rejects.values() for name in names}
    assert listed == {"t/1.seg.png", "t/._1.jpg", "t/notes.md", "t/empty.jpg"}
    assert sorted(index.keys) == ["t/1", "t/cat/2", "t/in/3"]
    assert json.loads((tmp_path / "set/index.json").read_text())["counts"]["seen"] == 7


@pytest.mark.parametrize("seed", range(20))
def test_of_any_mixture_every_image_is_a_sample_or_named_once(tmp_path, seed):
    rng = random.Random(seed)
    keys = ("a", "b", "img_0.5", "img_0.7", "d.e/f", "cat/1", "dog/1", "._g", "h.seg", "i.left")
    suffixes = ("jpg", "JPG", "png", "seg.png", "2.jpg", "cls", "label.cls", "json", "txt", "npy")
    names = {f"{rng.choice(keys)}.{rng.choice(suffixes)}" for _ in range(30)} | {"a.jpg"}
    source = find(tar(tmp_path / "t.tar", [(name, b"1") for name in sorted(names)]))
    kept = [sample.name for sample in source.samples]
    rejected = [name for _, name in source.rejects]
    assert len({*kept, *rejected}) == len(kept) + len(rejected)
    assert {*kept, *rejected} <= {f"t/{name}" for name in names}
    unnamed = names - {name.removeprefix("t/") for name in (*kept, *rejected)}
    # only what belongs to a sample's key goes without saying
    image_keys = {webdataset_key(name.removeprefix("t/")) for name in kept}
    assert {webdataset_key(name) for name in unnamed} <= image_keys
    assert not any(name.lower().endswith(("jpg", "png")) for name in unnamed)
