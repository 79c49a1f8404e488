"""Whatever lies in a folder: each file is a sample, or left out by name, and never both."""

import io
import json
import os
import random
import tarfile
from collections import Counter
import pytest
from made_images import image_bytes, populate
import shards
from shards.build_sets import build_sets
from shards.index import webdataset_key
from shards.plan import make_plan
from shards.sources.part_sources import find_parts

XML = "<annotation><filename>{}</filename><size><width>20</width><height>16</height></size>"
JUNK = (".DS_Store", "._1.jpg", "@eaDir/1.jpg", ".ipynb_checkpoints/1.jpg", "__MACOSX/._x.png")
OTHERS = (
    "notes.txt",
    "a.HEIC",
    "b.CR2",
    "movie.mp4",
    "1.json",
    "noext",
    "x.csv",
    "deep/er/readme.md",
)
STEMS = ("1.jpg", "2.PNG", "a b.png", "ü.jpg", ".x.jpg", "1.png")
BAD = ("empty.jpg", "text.png", "half.png")


class Tree:
    """A folder that grows by what programs and people leave in one.

    Attributes:
        root: the folder.
        read: annotations that are read, and so are neither samples nor left out.
        members: images in tars, by the tar.
    """

    def __init__(self, root, rng):
        self.root = root
        self.rng = rng
        self.read = set()
        self.members = {}

    def fill(self, place):
        """Write some layout, with noise in it."""
        layout = self.rng.choice((self.classes, self.flat, self.coco, self.voc, self.table))
        layout(place)
        for name in self.rng.sample(JUNK, 2) + self.rng.sample(OTHERS, 2):
            self.write(f"{place}{name}", b"noise")
        for name in self.rng.sample(BAD, 1):
            data = {"empty.jpg": b"", "text.png": b"text", "half.png": image_bytes()[:300]}[name]
            self.write(f"{place}{name}", data)
        if self.rng.random() < 0.5:
            (self.root / f"{place}gone.jpg").symlink_to("nowhere")
            os.mkfifo(self.root / f"{place}pipe.png")

    def write(self, name, data):
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def images(self, place, folders):
        names = [
            f"{place}{folder}{stem}"
            for folder in folders
            for stem in self.rng.sample(
                ("1.jpg", "2.PNG", "a b.png", "ü.jpg", ".x.jpg", "1.png"), 3
            )
        ]
        populate(self.root, names)
        return names

    def classes(self, place):
        self.images(place, ("ant/", "bee/deep/", "cat/", *self.rng.choice(((), ("",)))))

    def flat(self, place):
        self.images(place, ("",))

    def coco(self, place):
        """Annotations of some of the images, one of which is not there."""
        names = [name.removeprefix(place) for name in self.images(place, ("", "x/"))]
        entries = [
            {"id": number, "file_name": name, "width": 20, "height": 16}
            for number, name in enumerate(["missing.jpg", *names[:4]])
        ]
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
        category = {"id": 1, "name": "dog"}
        document = {"images": entries, "annotations": [box], "categories": [category]}
        self.write(f"{place}annotations.json", json.dumps(document).encode())

    def voc(self, place):
        """An annotation beside each of some images, and one of an image that is not there."""
        names = [name for name in self.images(place, ("",)) if not name.endswith(".x.jpg")]
        for name in [*names[:2], f"{place}missing.jpg"]:
            stem, file = name.rpartition(".")[0], name.rpartition("/")[2]
            self.write(f"{stem}.xml", f"{XML.format(file)}</annotation>".encode())

    def table(self, place):
        names = [name.removeprefix(place) for name in self.images(place, ("", "y/"))]
        lines = ["file_name,label", *(f"{name},{len(name) % 2}" for name in names[:4])]
        self.write(f"{place}metadata.csv", "\n".join(lines).encode())

    def files(self):
        """All files but for links to folders, as paths in the tree."""
        return sorted(
            f"{folder}/{name}".removeprefix(f"{self.root}/")
            for folder, _, names in os.walk(self.root)
            for name in names
        )


def common_folder(source):
    """The folder that the names of a source are seen from."""
    (root,) = {image.path.removesuffix(image.name) for image in source.samples}
    return root


def below(place, names):
    """Names of a source, as they are in the tree."""
    return [f"{place}{name}" for name in names]


def is_annotation(name):
    """Whether a file of these trees may say what is on images."""
    return name.endswith((".xml", "annotations.json", "metadata.csv"))


@pytest.mark.parametrize("seed", range(16))
def test_of_any_mixture_each_file_is_a_sample_or_left_out_by_name(tmp_path, seed):
    rng = random.Random(seed)
    tree = Tree(tmp_path / "src", rng)
    wrapper = rng.choice(("", "data/", "food/images/"))
    parts = rng.choice(((""), ("train/", "val/"), ("Training/", "Testing/", "unlabeled/"))) or ("",)
    for part in parts:
        tree.fill(f"{wrapper}{part}")
    if rng.random() < 0.5:
        tree.write(f"{wrapper}beside.jpg", image_bytes())
    src = tree.root
    options = {"max_rejects": 1}
    part_sources = find_parts(src)
    accounted = Counter(part_sources.beside)
    indexes = build_sets(src, tmp_path / "sets", **options)
    for name, index in indexes.items():
        place = f"{part_sources.place}/{name}/".removeprefix(f"{src}/") if name else ""
        folder = src / place
        source = make_plan(folder).source
        # the listing, before anything is decoded
        named = [image.name for image in source.samples] + [name for _, name in source.rejects]
        assert (
            index.seen == len(named) == len(index.samples) + sum(map(len, index.rejects.values()))
        )
        rejected = [name for names in index.rejects.values() for name in names]
        assert {*rejected} <= {*named}
        assert len(rejected) == len({*rejected})
        root = common_folder(source).removeprefix(f"{folder}/")
        accounted.update(map(os.path.normpath, below(f"{place}{root}", named)))
    files = [name for name in tree.files() if not is_junk_beside(name, part_sources, src)]
    assert max(accounted.values()) == 1
    unseen = {*files} - {*accounted}
    assert all(map(is_annotation, unseen)), unseen
    # what annotations name and is not there is told as well
    assert all("missing" in name for name in {*accounted} - {*files})


def is_junk_beside(name, part_sources, src):
    """Whether a file is junk outside of all parts, which nobody misses."""
    folders = below(
        f"{part_sources.place}/".removeprefix(f"{src}/"), [f"{n}/" for n in part_sources.names]
    )
    is_junk = any(part in f"/{name}" for part in ("/.", "/@eaDir", "/__MACOSX"))
    return bool(part_sources.names) and is_junk and not name.startswith(tuple(folders))


@pytest.mark.parametrize("seed", range(6))
def test_of_any_mixture_what_is_held_out_and_what_is_not_are_all(tmp_path, seed):
    rng = random.Random(seed)
    tree = Tree(tmp_path / "src", rng)
    tree.fill("")
    populate(tree.root, [f"more/{number}.png" for number in range(6)])
    indexes = build_sets(tree.root, tmp_path / "sets", val_share=0.3, max_rejects=1)
    alone = shards.build(tree.root, tmp_path / "set", max_rejects=1)
    counted = Counter(key for index in indexes.values() for key in index.keys.tolist())
    assert counted == Counter(alone.keys.tolist())
    rejected = Counter(
        (reason, name)
        for index in indexes.values()
        for reason, names in index.rejects.items()
        for name in names
    )
    assert rejected == Counter(
        (reason, name) for reason, names in alone.rejects.items() for name in names
    )
    assert sum(index.seen for index in indexes.values()) == alone.seen


@pytest.mark.parametrize("seed", range(4))
def test_of_any_mixture_in_a_tar_each_member_is_a_sample_or_left_out_by_name(tmp_path, seed):
    rng = random.Random(seed)
    tree = Tree(tmp_path / "src", rng)
    tree.classes("")
    for name in rng.sample(JUNK, 2) + rng.sample(OTHERS, 3) + rng.sample(BAD, 2):
        tree.write(name, b"noise")
    names = tree.files()
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = (tree.root / name).stat().st_size
            tar.addfile(info, io.BytesIO((tree.root / name).read_bytes()))
    source = make_plan(tmp_path / "all.tar").source
    listed = [image.name for image in source.samples] + [name for _, name in source.rejects]
    unseen = {f"all/{name}" for name in names} - {*listed}
    assert len(listed) == len({*listed})
    # but for what belongs to an image, as in a WebDataset
    keys = {webdataset_key(image.name) for image in source.samples}
    assert {*map(webdataset_key, unseen)} <= keys
    index = shards.build(tmp_path / "all.tar", tmp_path / "set", max_rejects=1)
    assert index.seen == len(listed)
