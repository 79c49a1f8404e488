"""Where the images of COCO documents are, as the tools leave them."""

import json
import shutil
import pytest
from made_images import image_bytes
from made_lists import BOX, HEIGHT, WIDTH, coco, counted, voc
from PIL import Image
import shards
from shards import Reject, ShardError
from shards.boxes import load
from shards.sources.image_files import name_variants

STEMS = ["a", "b", "c"]
# the list, the images' folder, and what the list puts before their names
LAYOUTS = {
    "CVAT": ("annotations/instances_default.json", "images/default", ""),
    "CVAT, older": ("annotations/instances_default.json", "images", ""),
    "Ultralytics": ("annotations/instances_train2017.json", "images/train2017", ""),
    "Ultralytics, keypoints": ("annotations/person_keypoints_val2017.json", "images/val2017", ""),
    "COCO's captions": ("annotations/captions_val2017.json", "val2017", ""),
    "COCO's test part": ("annotations/image_info_test2017.json", "test2017", ""),
    "year in the list only": ("annotations/instances_train2017.json", "train", ""),
    "beside annotations": ("annotations/train.json", "images", ""),
    "FiftyOne": ("labels.json", "data", ""),
    "Label Studio": ("result.json", "images", "images/"),
    "Label Studio on Windows": ("result.json", "images", "images\\"),
    "Label Studio, uploaded": ("result.json", "images", "/data/upload/1/"),
    "Label Studio, local files": ("result.json", "images", "/data/local-files/?d=some%20where/"),
    "a server": ("result.json", "images", "https://host:8080/a/b/"),
    "a bucket": ("result.json", "images", "s3://bucket/a/"),
    "another disk": ("labels.json", "images", "D:\\photos\\new\\"),
    "another home": ("train.json", "train", "/home/somebody/photos/train/"),
    "from the root": ("annotations/x.json", "train", "train/"),
    "from above the root": ("annotations/x.json", "images", "dataset/images/"),
    "relative to another folder": ("annotations/x.json", "images", "../images/"),
    "Roboflow": ("train/_annotations.coco.json", "train", ""),
    "deep": ("annotations/x.json", "images/2024/05", "2024/05/"),
}


def laid_out(root, path, images, prefix):
    """A COCO document whose names have something before them that their files have not."""
    file = coco(root, {stem: [("cat", BOX)] for stem in STEMS}, path, images)
    document = json.loads(file.read_text())
    for entry in document["images"]:
        entry["file_name"] = prefix + entry["file_name"]
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_found(tmp_path, layout):
    path, images, prefix = LAYOUTS[layout]
    file = laid_out(tmp_path / "data", path, images, prefix)
    box_set = load(file)
    assert (counted(box_set), box_set.rejects) == (3, {})
    names = [tmp_path / "data" / images / f"{stem}.jpg" for stem in STEMS]
    assert [picture.path.resolve() for picture in box_set.pictures] == names
    index = shards.build(file, tmp_path / "set")
    assert (len(index.samples), dict(index.rejects)) == (3, {})
    assert load(tmp_path / "set").digest == box_set.digest


def test_the_choice_is_told_where_it_is_one(tmp_path, capsys):
    shards.build(laid_out(tmp_path / "a", *LAYOUTS["CVAT"]), tmp_path / "set")
    told = capsys.readouterr().err
    assert "a.jpg is taken from" in told
    assert "images/default/a.jpg; if that is another image, name the folder" in told
    shards.build(laid_out(tmp_path / "b", "set.json", "images", ""), tmp_path / "other")
    assert "is taken from" not in capsys.readouterr().err


def test_the_reading_that_finds_most_wins(tmp_path):
    file = laid_out(tmp_path, "annotations/x.json", "images", "train/")
    (tmp_path / "data").mkdir()
    shutil.copy(tmp_path / "images/a.jpg", tmp_path / "annotations/a.jpg")
    assert {picture.path.parent.name for picture in load(file).pictures} == {"images"}


def test_names_that_would_become_one_are_listed_and_not_merged(tmp_path):
    file = coco(tmp_path, {"1": [("cat", BOX)], "2": [("cat", BOX)]}, images="images")
    document = json.loads(file.read_text())
    for entry, name in zip(document["images"], ["x/1.jpg", "y/1.jpg"], strict=True):
        entry["file_name"] = name
    entry = {"id": 5, "file_name": "x/2.jpg", "width": WIDTH, "height": HEIGHT}
    document["images"].append(entry)
    file.write_text(json.dumps(document))
    box_set = load(file)
    assert [picture.path.name for picture in box_set.pictures] == ["2.jpg"]
    assert box_set.rejects == {Reject.SHARED_FILE: ["x/1.jpg", "y/1.jpg"]}


def test_a_folder_can_be_named(tmp_path):
    file = laid_out(tmp_path / "data", "x.json", "elsewhere/deep", "images/")
    message = (
        rf"no image that {file} lists is there .*looked in {tmp_path}: data, .*data/images, .*"
        "name their folder by --image-root"
    )
    for act in (lambda: load(file), lambda: shards.build(file, tmp_path / "set")):
        with pytest.raises(ShardError, match=message) as error:
            act()
        assert "\n" not in str(error.value)
    root = str(tmp_path / "data" / "elsewhere" / "deep")
    assert counted(load(file, image_root=root)) == 3
    assert len(shards.build(file, tmp_path / "set", image_root=root).samples) == 3
    (tmp_path / "empty").mkdir()
    with pytest.raises(ShardError, match=r"no image that .* looked in .*/empty: ., .*; name"):
        load(file, image_root=tmp_path / "empty")
    with pytest.raises(ShardError, match=r"a folder of images \(--image-root\), got .*/nowhere"):
        load(file, image_root=tmp_path / "nowhere")
    with pytest.raises(ShardError, match=r"wanted a COCO JSON .* as the source"):
        shards.build(root, tmp_path / "other", image_root=root)


def test_a_named_folder_may_be_that_of_the_folders_of_all_parts(tmp_path):
    for part in ("train2017", "val2017", "default"):
        list_file = f"lists/{part}/instances_{part}.json"
        file = laid_out(tmp_path, list_file, f"data/images/{part}", "")
        for folder in ("data", "data/images", f"data/images/{part}"):
            pictures = load(file, image_root=tmp_path / folder).pictures
            assert {picture.path.parent.name for picture in pictures} == {part}


def test_a_folder_of_images_for_a_list_that_has_no_use_for_it_is_refused(tmp_path):
    things = {"a": [("dog", (2, 3, 9, 8))]}
    for path in (voc(tmp_path / "voc", things), tmp_path / "voc"):
        with pytest.raises(ShardError, match="leave --image-root out"):
            load(path, image_root=tmp_path / "voc/JPEGImages")
    file = coco(tmp_path / "coco", things)
    shards.build(file, tmp_path / "set")
    assert counted(load(tmp_path / "set", image_root=tmp_path)) == 1  # which has its own


def test_what_is_not_found_is_listed_with_the_folders(tmp_path, capsys):
    file = laid_out(tmp_path / "data", *LAYOUTS["CVAT"])
    (tmp_path / "data/images/default/b.jpg").unlink()
    shards.build(file, tmp_path / "set", max_rejects=0.5)
    assert "1 of 3 images was not found, such as b.jpg; looked in" in capsys.readouterr().err
    assert load(file).rejects == {Reject.NO_IMAGE: ["b.jpg"]}
    assert load(tmp_path / "set").rejects == {Reject.NO_IMAGE: ["b.jpg"]}


def test_names_of_any_text_are_no_error(tmp_path):
    names = ["", ".", "..", "/", "\\", "x" * 5000, "a\0b", "://", "?d=", "a/" * 400 + "b", "ü\n"]
    for name in names:
        assert name_variants(name)[0] == name
    file = laid_out(tmp_path, "x.json", "images", "")
    document = json.loads(file.read_text())
    for number, name in enumerate(names, 100):
        entry = {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
        document["images"].append(entry)
    file.write_text(json.dumps(document))
    box_set = load(file)
    assert counted(box_set) == 3
    assert sum(map(len, box_set.rejects.values())) == len(names)


def test_images_stored_lying_are_told_and_left_out(tmp_path, capsys):
    file = coco(tmp_path / "data", {stem: [("cat", BOX)] for stem in STEMS})
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = image_bytes(file_format="JPEG", exif=exif.tobytes())
    (tmp_path / "data/b.jpg").write_bytes(lying)
    assert load(file).rejects == {Reject.OTHER_SIZE: ["b.jpg"]}
    with pytest.raises(ShardError, match=r"1 not of the annotated size \(b.jpg\)"):
        shards.build(file, tmp_path / "set")
    told = capsys.readouterr().err.replace("\n", " ")
    assert "b.jpg has 16 × 20 upright pixels, which EXIF turns, its annotation says 20 × 16" in told
    index = shards.build(file, tmp_path / "set", max_rejects=0.5)
    assert dict(index.rejects) == {Reject.OTHER_SIZE: ["b.jpg"]}
    assert counted(load(tmp_path / "set")) == 2
    upright = file.read_text().replace('"width": 20, "height": 16', '"width": 16, "height": 20')
    file.write_text(upright)
    assert load(file).rejects == {Reject.OTHER_SIZE: ["a.jpg", "c.jpg"]}


@pytest.mark.parametrize("name", ["annotations.json", "_annotations.coco.json"])
def test_a_folder_of_which_a_part_is_annotated_is_used_whole(tmp_path, name, monkeypatch, capsys):
    file = laid_out(tmp_path / "data", name, ".", "")
    for number in range(4):
        data = image_bytes(number, file_format="JPEG")
        (tmp_path / "data" / f"other-{number}.jpg").write_bytes(data)
    (tmp_path / "data/notes.txt").write_text("notes")
    (tmp_path / "data/c.jpg").write_bytes(image_bytes(size=(16, 20), file_format="JPEG"))
    monkeypatch.chdir(tmp_path)
    index = shards.build("data", "set")
    assert (len(index.samples), dict(index.rejects)) == (7, {"other file": ["notes.txt"]})
    told = capsys.readouterr().err.replace("\n", " ")
    assert "2 of 7 images have annotations; the set has the others" in told
    box_set = load("set")
    assert [picture.path.name for picture in box_set.pictures] == ["a.jpg", "b.jpg"]
    assert box_set.rejects == {Reject.OTHER_SIZE: ["c.jpg"]} == load("data").rejects
    assert box_set.digest == load("data").digest == load(file).digest


@pytest.mark.parametrize("name", ["A.JPG", "a.png", "a", "photos/A.jpeg", "b.jpg"])
def test_a_name_in_another_case_or_of_another_suffix_is_found_where_only_one_is(tmp_path, name):
    file = coco(tmp_path, {"x": [("cat", BOX)]}, images="images")
    (tmp_path / "images/x.jpg").rename(tmp_path / "images/a.jpg")
    file.write_text(file.read_text().replace("x.jpg", name))
    if name == "b.jpg":
        with pytest.raises(ShardError, match="no image that"):
            load(file)
        return
    assert [picture.path.name for picture in load(file).pictures] == ["a.jpg"]
    shutil.copy(tmp_path / "images/a.jpg", tmp_path / "images/A.Jpg")
    with pytest.raises(ShardError, match="no image that"):
        load(file)


def test_a_name_whose_file_is_anothers_has_none(tmp_path):
    file = coco(tmp_path, {"a": [("cat", BOX)], "b": [("cat", BOX)]})
    file.write_text(file.read_text().replace("b.jpg", "a.png"))
    box_set = load(file)
    assert [picture.path.name for picture in box_set.pictures] == ["a.jpg"]
    assert box_set.rejects == {Reject.NO_IMAGE: ["a.png"]}
