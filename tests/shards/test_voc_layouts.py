"""Pascal VOC as tools write it: names with suffixes, paths and blanks, and no lists."""

import pytest
from made_images import populate
from made_lists import BOX, SIZE, counted, voc
import shards
from shards import Reject, ShardError
from shards.boxes import load

STEMS = ["a", "b", "c"]
THINGS = {stem: [("cat", BOX)] for stem in STEMS}
XML = (
    "<annotation><filename>{}</filename>" + SIZE + "<object><name>cat</name><bndbox><xmin>3</xmin>"
    "<ymin>4</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
)


def named(root, suffix, file_name, stems=STEMS):
    """A devkit whose images have a suffix, and whose ``<filename>`` is another text."""
    path = voc(root, {stem: [] for stem in stems})
    for stem in stems:
        (root / "JPEGImages" / f"{stem}.jpg").unlink()
        xml = XML.format(file_name.format(stem))
        (root / "Annotations" / f"{stem}.xml").write_text(xml)
    populate(root / "JPEGImages", [f"{stem}{suffix}" for stem in stems])
    return path


def assert_all(path, root, count=3):
    """All images and boxes, as files and in a set."""
    box_set = load(path)
    assert (len(box_set.pictures), counted(box_set), box_set.rejects) == (count, count, {})
    index = shards.build(path, root / "set")
    assert (len(index.samples), dict(index.rejects)) == (count, {})
    in_shards = load(root / "set")
    assert (in_shards.digest, in_shards.rejects, in_shards.voc) == (box_set.digest, {}, True)
    return box_set


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".jpg", ".tif"])
@pytest.mark.parametrize(
    "file_name",
    ["{}", "{}.jpg", "/home/x/photos/{}.jpeg", "C:\\photos\\{}.png", "", "photo", "{}.xml"],
)
def test_what_tools_write_as_filename(tmp_path, suffix, file_name):
    assert_all(named(tmp_path, suffix, file_name), tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "JPEGImages/{0}.jpg Annotations/{0}.xml",
        "Annotations/{}.xml",
        "{}.jpg",
        "{}.jpg 1",
        "{}  1",
        "{} -1",
        "JPEGImages/{}.jpg",
        "JPEGImages\\{}",
        "/x/y/{}.jpg ",
    ],
)
def test_lines_of_lists(tmp_path, line):
    path = voc(tmp_path, THINGS)
    path.write_text("".join(f"{line.format(stem)}\r\n" for stem in STEMS))
    assert_all(path, tmp_path)


def test_names_with_blanks_are_not_merged(tmp_path):
    stems = ["Screenshot (573)", "Screenshot (574)", "shot 1", "shot 0", "shot"]
    path = named(tmp_path, ".png", "{}.png", stems)
    for flag in ("", "  1", " -1", " 0"):
        path.write_text("".join(f"{stem}{flag}\n" for stem in stems))
        assert [picture.path.stem for picture in load(path).pictures] == stems
    (tmp_path / "JPEGImages" / "Screenshot (573).png").unlink()
    (tmp_path / "Annotations" / "Screenshot (573).xml").unlink()
    assert load(path).rejects == {Reject.NO_IMAGE: ["Screenshot (573)"]}


def test_an_image_without_annotation_is_kept_without_objects(tmp_path, capsys):
    path = voc(tmp_path, THINGS)
    (tmp_path / "Annotations" / "b.xml").unlink()
    box_set = load(path)
    assert [len(picture.boxes) for picture in box_set.pictures] == [1, 0, 1]
    index = shards.build(path, tmp_path / "set")
    assert (len(index.samples), dict(index.rejects)) == (3, {})
    told = capsys.readouterr().err.replace("\n", " ")
    assert "1 image has no .xml file: kept without objects" in told
    for file in (tmp_path / "Annotations").iterdir():
        file.unlink()
    with pytest.raises(ShardError, match=r"wanted a folder Annotations with \.xml files above it"):
        load(path)


@pytest.mark.parametrize(
    ("xmls", "images"),
    [
        ("annotations", "images"),
        ("Annotations", "JPEGImages"),
        ("Annotations", "images"),
        ("annotations/xmls", "images"),
        ("labels", "images"),
        ("", ""),
        ("Annotations", ""),
        ("a/b", "a/b"),
    ],
)
def test_folders_without_lists(tmp_path, xmls, images):
    root = tmp_path / "data"
    populate(root / images, [f"{stem}.png" for stem in STEMS])
    (root / xmls).mkdir(parents=True, exist_ok=True)
    for stem in STEMS:
        (root / xmls / f"{stem}.xml").write_text(XML.format(f"{stem}.png"))
    assert_all(root, tmp_path)


@pytest.mark.parametrize("text", ["<note/>", "no XML", ""])
def test_other_xml_files_are_other_files(tmp_path, text):
    root = populate(tmp_path / "data", ["a.jpg", "b.jpg"])
    (root / "a.xml").write_text(text)
    index = shards.build(root, tmp_path / "set")
    assert (len(index.samples), dict(index.rejects)) == (2, {"other file": ["a.xml"]})


def test_two_annotations_of_one_image_are_not_merged(tmp_path):
    path = voc(tmp_path, THINGS)
    (tmp_path / "JPEGImages" / "b.jpg").unlink()
    (tmp_path / "Annotations" / "b.xml").write_text(XML.format("a.jpg"))
    assert load(path).rejects == {Reject.SHARED_FILE: ["b"]}
    path.write_text("x/a\ny/a\nc\n")
    assert load(path).rejects == {Reject.DUPLICATE: ["y/a"]}


def test_a_folder_is_used_whole_and_by_a_relative_path(tmp_path, monkeypatch):
    root = populate(tmp_path / "data", [f"{stem}.png" for stem in STEMS])
    for stem in STEMS[:2]:
        (root / f"{stem}.xml").write_text(XML.format(f"{stem}.png"))
    monkeypatch.chdir(tmp_path)
    index = shards.build("data", "set")
    assert (len(index.samples), dict(index.rejects)) == (3, {})
    assert [picture.path.stem for picture in load("set").pictures] == STEMS[:2]
    assert load("set").digest == load("data").digest
    (root / "b.xml").write_text("<annotation>")
    index = shards.build("data", "other")
    assert (len(index.samples), dict(index.rejects)) == (3, {})
    assert load("other").rejects == {Reject.NO_ANNOTATION: ["b"]}


def test_a_devkit_of_one_list_is_read_and_of_several_is_told(tmp_path):
    root = tmp_path / "data"
    path = voc(root, THINGS)
    populate(root / "SegmentationClass", ["a.png"])
    path.write_text("a\nb\n")
    index = shards.build(root, tmp_path / "set")
    assert len(index.samples) == 4
    assert [picture.path.stem for picture in load(root).pictures] == ["a", "b"]
    assert load(tmp_path / "set").digest == load(root).digest == load(path).digest
    path.with_name("val.txt").write_text("c\n")
    for act in (lambda: shards.build(root, tmp_path / "other"), lambda: load(root)):
        with pytest.raises(ShardError, match=r"name one of its lists: .*train\.txt, .*val\.txt"):
            act()


@pytest.mark.parametrize("document", ["", "_annotations.coco.json"])
def test_annotated_parts_of_a_folder_are_told(tmp_path, document, capsys):
    for part in ("train", "valid"):
        root = populate(tmp_path / "data" / part, [f"{stem}.jpg" for stem in STEMS])
        for stem in STEMS:
            if document:
                (root / document).write_text("{}")
            else:
                (root / f"{stem}.xml").write_text(XML.format(f"{stem}.jpg"))
    index = shards.build(tmp_path / "data", tmp_path / "set")
    assert len(index.samples) == 6
    told = capsys.readouterr().err.replace("\n", " ")
    assert "annotations in train, valid are not read: build each of these folders alone" in told
