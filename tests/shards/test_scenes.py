import itertools
import json
import numpy as np
import pytest
from PIL import Image
from shards import scene_shapes, scenes
from shards.errors import ShardError
from shards.scenes import CLASSES, MAIN_VISIBLE, render, write

COUNT, SIZE, START, SEED = 20, 48, 3, 5


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    dest = tmp_path_factory.mktemp("scenes") / "set"
    write(dest, count=COUNT, seed=SEED, size=SIZE, start=START)
    return dest


@pytest.fixture(scope="module")
def coco(written):
    return json.loads((written / "annotations.json").read_text())


def content(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def naive_counts(mask):
    """Run lengths one pixel at a time, down the columns, zeros first."""
    height, width = mask.shape
    pixels = [bool(mask[y, x]) for x in range(width) for y in range(height)]
    runs = [(value, len(list(group))) for value, group in itertools.groupby(pixels)]
    return [0] * runs[0][0] + [length for _, length in runs]


def naive_mask(segmentation):
    height, width = segmentation["size"]
    mask = np.zeros((height, width), bool)
    at = 0
    for turn, count in enumerate(segmentation["counts"]):
        for k in range(at, at + count):
            mask[k % height, k // height] = turn % 2
        at += count
    assert at == height * width
    return mask


def naive_box(mask):
    """x, y, width and height of the pixels of a mask, one at a time."""
    height, width = mask.shape
    xs = [x for x in range(width) if any(mask[y, x] for y in range(height))]
    ys = [y for y in range(height) if any(mask[y, x] for x in range(width))]
    return min(xs), min(ys), max(xs) - min(xs) + 1, max(ys) - min(ys) + 1


def some_masks():
    rng = np.random.default_rng(0)
    yield np.zeros((5, 7), bool)
    yield np.ones((5, 7), bool)
    yield from (rng.random((6, 4)) < share for share in (0.1, 0.5, 0.9))
    for index in range(8):
        yield from (thing.mask for thing in render(1, index, size=32).objects)


def test_a_scene_depends_on_its_arguments_alone():
    first = [render(0, index, size=32) for index in range(6)]
    again = [render(0, index, size=32) for index in reversed(range(6))][::-1]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image)
        for x, y in zip(a.objects, b.objects, strict=True):
            assert (x.label, x.box, x.mask.tobytes()) == (y.label, y.box, y.mask.tobytes())
    assert len({scene.image.tobytes() for scene in [*first, render(1, 0, size=32)]}) == 7


@pytest.mark.parametrize("size", [24, 65, 96])
def test_objects_of_a_scene(size):
    for index in range(40):
        scene = render(2, index, size=size)
        assert scene.image.shape == (size, size, 3)
        assert scene.image.dtype == np.uint8
        assert scene.image.std() > 5
        assert scene.label == scene.objects[0].label == index % len(CLASSES)
        assert 1 <= len(scene.objects) <= 3
        assert np.sum([thing.mask for thing in scene.objects], axis=0).max() == 1
        for thing in scene.objects:
            assert thing.mask.shape == (size, size)
            assert thing.box == naive_box(thing.mask)


def test_the_main_object_is_seen(monkeypatch):
    areas = []

    def recording(*args):
        sprite = scene_shapes.draw_sprite(*args)
        areas.append((np.asarray(sprite.alpha) >= 128).sum())
        return sprite

    monkeypatch.setattr(scenes, "draw_sprite", recording)
    shares = []
    for index in range(160):
        areas.clear()
        main = render(3, index, size=64).objects[0]
        shares.append(main.mask.sum() / areas[0])
    assert MAIN_VISIBLE <= min(shares) < 0.8
    assert max(shares) == 1


def test_mean_colour_tends_to_the_class_without_telling_it():
    rendered = [render(4, index, size=32) for index in range(640)]
    labels = np.array([scene.label for scene in rendered])
    means = np.array([scene.image.mean((0, 1)) for scene in rendered])
    train = slice(0, 320)
    val = slice(320, 640)
    centres = [means[train][labels[train] == label].mean(0) for label in range(len(CLASSES))]
    guesses = np.linalg.norm(means[val][:, None] - np.array(centres), axis=2).argmin(1)
    share = (guesses == labels[val]).mean()
    assert 1.5 / len(CLASSES) < share < 0.5


def test_run_lengths_agree_with_a_naive_coder():
    for mask in some_masks():
        coded = scenes._run_lengths(mask)
        assert coded == {"size": list(mask.shape), "counts": naive_counts(mask)}
        assert np.array_equal(naive_mask(json.loads(json.dumps(coded))), mask)


def test_run_lengths_agree_with_pycocotools():
    reference = pytest.importorskip("pycocotools.mask")
    for mask in some_masks():
        coded = scenes._run_lengths(mask)
        decoded = reference.decode(reference.frPyObjects(coded, *coded["size"]))
        assert np.array_equal(decoded.astype(bool), mask)


def test_the_folder_has_every_image(written, coco):
    indices = range(START, START + COUNT)
    for label, name in enumerate(CLASSES):
        files = sorted(path.name for path in (written / "images" / name).iterdir())
        assert files == [f"{index:06d}.jpg" for index in indices if index % len(CLASSES) == label]
    assert [image["id"] for image in coco["images"]] == list(indices)
    for image in coco["images"]:
        with Image.open(written / "images" / image["file_name"]) as opened:
            assert (opened.mode, opened.format) == ("RGB", "JPEG")
            assert opened.size == (image["width"], image["height"])
            pixels = np.asarray(opened).astype(float)
        assert abs(pixels - render(SEED, image["id"], size=SIZE).image).mean() < 12


def test_annotations_say_what_was_rendered(coco):
    assert coco["categories"] == [
        {"id": label + 1, "name": name} for label, name in enumerate(CLASSES)
    ]
    assert "procedural" in coco["info"]["description"]
    assert (coco["info"]["seed"], coco["info"]["size"]) == (SEED, SIZE)
    numbers = [annotation["id"] for annotation in coco["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1))
    for index in range(START, START + COUNT):
        annotations = [
            annotation for annotation in coco["annotations"] if annotation["image_id"] == index
        ]
        objects = render(SEED, index, size=SIZE).objects
        assert len(annotations) == len(objects)
        for annotation, thing in zip(annotations, objects, strict=True):
            assert annotation["category_id"] == thing.label + 1
            assert annotation["bbox"] == list(thing.box)
            assert annotation["area"] == thing.mask.sum()
            assert annotation["iscrowd"] == 0
            assert np.array_equal(naive_mask(annotation["segmentation"]), thing.mask)


def test_pycocotools_reads_the_annotations(written, coco):
    reader = pytest.importorskip("pycocotools.coco")
    loaded = reader.COCO(written / "annotations.json")
    for annotation in coco["annotations"]:
        mask = loaded.annToMask(annotation).astype(bool)
        assert np.array_equal(mask, naive_mask(annotation["segmentation"]))


def test_equal_arguments_give_equal_bytes(written, tmp_path):
    write(tmp_path / "other", count=COUNT, seed=SEED, size=SIZE, start=START)
    assert content(tmp_path / "other") == content(written)


def test_what_is_there_is_not_touched(written):
    before = content(written)
    with pytest.raises(ShardError, match="wanted a new folder for scenes"):
        write(written, count=COUNT, seed=SEED, size=SIZE, start=START)
    assert content(written) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    def stopping(seed, index, *, size):
        if index == 3:
            raise error
        return render(seed, index, size=size)

    monkeypatch.setattr(scenes, "render", stopping)
    with pytest.raises(error):
        write(tmp_path / "set", count=8, size=24)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    write(tmp_path / "set", count=8, size=24)
    assert len(list((tmp_path / "set" / "images").rglob("*.jpg"))) == 8
