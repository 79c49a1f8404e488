"""Sources other than folders: CSV, COCO and VOC lists, other people's tars."""

import gzip
import io
import json
import random
import tarfile
import pytest
from made_images import image_bytes, populate
import shards
from shards import Reject, ShardError
from shards.sources import find

SIZE = 20, 16


def tar(path, members, tar_format=tarfile.GNU_FORMAT):
    """A tar of (name, bytes), or (name, ``TarInfo``)."""
    with tarfile.open(path, "w", format=tar_format) as file:
        for name, data in members:
            if isinstance(data, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
            else:
                file.addfile(data)
    return path


def listed(source):
    return [(sample.name, sample.label, sample.key) for sample in source.samples]


def samples(path):
    return sorted((sample.data, sample.label) for sample in shards.open(path))


# CSV


def test_a_csv_lists_images_and_classes(tmp_path):
    populate(tmp_path, ["a.jpg", "deep/b.png", "c, d.jpg"])
    rows = (
        "url,label",
        "a.jpg,dog",
        "deep/b.png, cat",
        '"c, d.jpg",dog',
        "a.jpg,dog",
        "notes.txt,dog",
        "gone.jpg,cat",
    )
    (tmp_path / "list.csv").write_text("\n".join(rows))
    source = find(tmp_path / "list.csv")
    assert source.classes == ["cat", "dog"]
    assert [(sample.name, sample.label) for sample in source.samples] == [
        ("a.jpg", 1),
        ("c, d.jpg", 1),
        ("deep/b.png", 0),
        ("gone.jpg", 0),
    ]
    assert source.rejects == [(Reject.DUPLICATE, "a.jpg"), (Reject.OTHER_FILE, "notes.txt")]
    index = shards.build(tmp_path / "list.csv", tmp_path / "set", max_rejects=0.5)
    assert {**index.rejects} == {
        "listed twice": ["a.jpg"],
        "other file": ["notes.txt"],
        "unreadable": ["gone.jpg"],
    }
    assert index.seen == 6 == 3 + 3
    files = {(tmp_path / name).read_bytes() for name in ("a.jpg", "deep/b.png", "c, d.jpg")}
    assert {data for data, _ in samples(tmp_path / "set")} == files


def test_the_order_of_rows_does_not_matter_and_labels_may_be_missing(tmp_path):
    rows = [f"{n}.jpg" for n in range(6)]
    populate(tmp_path, rows)
    (tmp_path / "a.csv").write_text("\n".join(rows))
    (tmp_path / "b.csv").write_text("path\n" + "\n".join(rows[::-1]))
    assert find(tmp_path / "a.csv") == find(tmp_path / "b.csv")
    assert {sample.label for sample in find(tmp_path / "a.csv").samples} == {-1}
    (tmp_path / "c.csv").write_text("0.jpg,10\n1.jpg,9\n2.jpg\n")
    source = find(tmp_path / "c.csv")
    assert (source.classes, source.rejects) == (["9", "10"], [])
    assert [sample.label for sample in source.samples] == [1, 0, -1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a.jpg,x,y\n", "wanted rows of image and class"),
        (b"", "wanted images at"),
        (b"\xff\xfe\xff", "cannot be read as a CSV"),
    ],
)
def test_a_bad_csv_is_one_line(tmp_path, text, message):
    (tmp_path / "list.csv").write_bytes(text)
    with pytest.raises(ShardError, match=message):
        find(tmp_path / "list.csv")


# COCO and VOC


def test_coco_lists_give_their_images(tmp_path):
    populate(tmp_path / "images", ["a.jpg", "b.jpg", "unlisted.jpg"])
    names = {"a": "a.jpg", "b": "b.jpg", "c": "gone.jpg", "d": "a.jpg", "e": "a.jpg"}
    images = [
        {"id": number, "file_name": name, "width": 20, "height": 16}
        for number, name in names.items()
    ]
    document = {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": []}
    (tmp_path / "annotations.json").write_text(json.dumps(document))
    rejects = [
        (Reject.DUPLICATE, "a.jpg"),
        (Reject.DUPLICATE, "a.jpg"),
        (Reject.UNREADABLE, "gone.jpg"),
    ]
    source = find(tmp_path / "annotations.json")
    assert [sample.name for sample in source.samples] == ["a.jpg", "b.jpg"]
    assert source.rejects == rejects
    # the folder has one more
    source = find(tmp_path)
    assert [sample.name for sample in source.samples] == ["a.jpg", "b.jpg", "unlisted.jpg"]
    assert source.rejects == rejects


def test_voc_lists_give_their_images(tmp_path):
    root = populate(tmp_path / "JPEGImages", ["1.jpg", "2.jpg", "3.jpg"]).parent
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    size = "<size><width>20</width><height>16</height></size>"
    for stem in (1, 3):
        xml = f"<annotation><filename>{stem}.jpg</filename>{size}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(xml)
    (root / "ImageSets/Main/train.txt").write_text("1\n3\n")
    index = shards.build(root / "ImageSets/Main/train.txt", tmp_path / "set")
    assert sorted(index.keys) == ["1", "3"]


# tars

IMAGES = [image_bytes(n, SIZE, file_format="JPEG") for n in range(6)]


def test_a_webdataset_keeps_its_bytes_and_its_classes(tmp_path):
    (tmp_path / "wds").mkdir()
    tar(
        tmp_path / "wds/b.tar",
        [
            ("x/1.jpg", IMAGES[0]),
            ("x/1.cls", b"10"),
            ("x/1.json", b"{}"),
            ("2.jpg", IMAGES[1]),
            ("2.cls", b"9"),
        ],
    )
    tar(tmp_path / "wds/a.tar", [("1.cls", b"9"), ("1.jpg", IMAGES[2])], tarfile.PAX_FORMAT)
    source = find(tmp_path / "wds")
    assert listed(source) == [
        ("a/1.jpg", 0, "a/1"),
        ("b/2.jpg", 0, "b/2"),
        ("b/x/1.jpg", 1, "b/x/1"),
    ]
    assert (source.classes, source.rejects) == (["9", "10"], [])
    shards.build(tmp_path / "wds", tmp_path / "set")
    assert samples(tmp_path / "set") == sorted([(IMAGES[2], 0), (IMAGES[1], 0), (IMAGES[0], 1)])
    shards.build(tmp_path / "wds/a.tar", tmp_path / "one")
    assert samples(tmp_path / "one") == [(IMAGES[2], 0)]


def test_img2datasets_and_webdatasets_own_tars_are_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "wds").mkdir()
    sides = {"txt": "a caption", "json": {"url": "https://…", "status": "success"}}
    with webdataset.ShardWriter(str(tmp_path / "wds/%05d.tar"), maxcount=2, verbose=0) as writer:
        for number, data in enumerate(IMAGES):
            writer.write({"__key__": f"{number:09}", "jpg": data, **sides})
    index = shards.build(tmp_path / "wds", tmp_path / "set", max_rejects=0)
    assert samples(tmp_path / "set") == sorted((data, -1) for data in IMAGES)
    assert (index.seen, {**index.rejects}, index.classes) == (6, {}, ())


def test_our_own_sets_are_a_source(tmp_path, photos):
    shards.build(photos, tmp_path / "set", shard_size=5)
    shards.build(tmp_path / "set", tmp_path / "again", max_rejects=0)
    assert samples(tmp_path / "set") == samples(tmp_path / "again")


def test_odd_members_are_named_and_nothing_leaves_the_folder(tmp_path):
    link = tarfile.TarInfo("link.jpg")
    link.type = tarfile.SYMTYPE
    link.linkname = "/etc/passwd"
    device = tarfile.TarInfo("dev.jpg")
    device.type = tarfile.CHRTYPE
    folder = tarfile.TarInfo("x")
    folder.type = tarfile.DIRTYPE
    path = tar(
        tmp_path / "odd.tar",
        [
            ("../../up.jpg", IMAGES[0]),
            ("/root.jpg", IMAGES[0]),
            ("a.left.jpg", IMAGES[1]),
            ("a.right.jpg", IMAGES[2]),
            ("b.jpg", IMAGES[3]),
            ("b.jpg", IMAGES[4]),
            ("lonely.txt", b"text"),
            ("broken.jpg", b"no image"),
            ("b.txt", b"side"),
            ("", IMAGES[0]),
            (link.name, link),
            (device.name, device),
            (folder.name, folder),
        ],
    )
    index = shards.build(path, tmp_path / "set", max_rejects=1)
    # keys that would collide become two
    assert sorted(index.keys) == ["odd/a%2Eleft", "odd/a%2Eright", "odd/b"]
    assert {**index.rejects} == {
        "link or special file": ["odd/dev.jpg", "odd/link.jpg"],
        "listed twice": ["odd/b.jpg"],
        "not an image": ["odd/broken.jpg"],
        "other file": ["odd/", "odd/lonely.txt"],
        "unsafe name": ["odd/../../up.jpg", "odd//root.jpg"],
    }
    assert index.seen == 3 + sum(map(len, index.rejects.values()))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["odd.tar", "set"]


def test_a_flipped_bit_in_a_header_is_never_a_lost_sample(tmp_path):
    path = tar(tmp_path / "s.tar", [(f"{n}.jpg", data) for n, data in enumerate(IMAGES)])
    tar_bytes = path.read_bytes()
    samples_of_tar = listed(find(path))
    with tarfile.open(path) as file:
        headers = [info.offset for info in file]
    rng = random.Random(0)
    errors = []
    for _ in range(150):
        data = bytearray(tar_bytes)
        data[rng.choice(headers) + rng.randrange(512)] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        try:
            assert listed(find(path)) == samples_of_tar
        except ShardError as error:
            errors.append(str(error))
    assert len(errors) > 140
    assert all("s.tar is not a whole tar" in error for error in errors)


@pytest.mark.parametrize("cut", ["a header", "a body", "the end"])
def test_a_cut_tar_is_named(tmp_path, cut):
    path = tar(tmp_path / "s.tar", [(f"{n}.jpg", data) for n, data in enumerate(IMAGES)])
    with tarfile.open(path) as file:
        last = file.getmembers()[-1]
    end = {
        "a header": last.offset,
        "a body": last.offset_data + 10,
        "the end": last.offset_data - 200,
    }[cut]
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(ShardError, match=r"s\.tar is not a whole tar"):
        find(path)


@pytest.mark.parametrize("name", ["gone.tar", "gone.csv", "gone.json", "gone.txt", "gone"])
def test_a_source_that_is_not_there_is_one_line(tmp_path, name):
    with pytest.raises(ShardError, match=name) as error:
        shards.build(tmp_path / name, tmp_path / "set")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "set").exists()


def test_a_compressed_tar_says_so(tmp_path):
    path = tar(tmp_path / "s.tar", [("a.jpg", IMAGES[0])])
    path.write_bytes(gzip.compress(path.read_bytes()))
    message = r"is not a whole tar: .*compressed by gzip: unpack it first"
    with pytest.raises(ShardError, match=message):
        shards.build(path, tmp_path / "set")
