"""What would be built is what is built, and the contact sheet shows it."""

import io
import json
import math
import numpy as np
import pytest
from made_images import encoded, image_bytes, populate, spoil
from PIL import Image, ImageFont
import shards
from shards.plan import make_plan
from shards.preview import contact_sheet
from shards.preview_legend import LegendEntry, lay_out
from shards.survey import survey

TILE = 160
CORNER = (10, 35)  # left and top of the first tile


def look(source, **options):
    plan = make_plan(source, **options)
    return survey(plan), plan


def sheet_of(source, **options):
    """The pixels of the sheet of a source, and what was looked at."""
    content, plan = look(source, **options)
    classes = plan.annotations.classes if plan.annotations else plan.source.classes
    data = contact_sheet(content.looks, classes, "a title")
    return np.asarray(Image.open(io.BytesIO(data))).astype(int), content


def coco(folder, boxes, size=(40, 40)):
    """A grey image with boxes, as COCO."""
    folder.mkdir()
    (folder / "1.png").write_bytes(encoded(Image.new("RGB", size, (90, 90, 90))))
    objects = [
        {"id": n, "image_id": 1, "category_id": category, "bbox": box, "iscrowd": crowd}
        for n, (category, box, crowd) in enumerate(boxes)
    ]
    document = {
        "images": [{"id": 1, "file_name": "1.png", "width": size[0], "height": size[1]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": objects,
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def test_a_survey_counts_what_the_build_keeps(photos, tmp_path):
    (photos / "stray.png").write_bytes(image_bytes())
    (photos / "notes.txt").write_text("notes")
    content, _ = look(photos)
    index = shards.build(photos, tmp_path / "set")
    assert content.form == "folders as classes"
    assert content.images == len(index.samples) == 18
    assert content.classes == {"cat": 9, "dog": 8}
    assert content.unclassified == 1
    assert content.rejects == dict(index.rejects) == {"other file": ["notes.txt"]}
    assert content.lost == 0
    assert not (photos / "index.json").exists()


def test_broken_images_are_seen_among_those_that_are_looked_at(tmp_path):
    content, _ = look(spoil(tmp_path / "photos"))
    reasons = {look.sample.name: look.reason for look in content.looks}
    assert reasons == {
        "cat/empty.jpg": "empty file",
        "cat/half.png": "corrupt image",
        "cat/ok.jpg": "",
        "cat/text.jpg": "not an image",
        "dog/gone.jpg": "unreadable",
        "dog/ok.png": "",
        "stray.jpg": "",
    }


def test_every_class_is_looked_at_however_rare(tmp_path):
    names = [f"a/{n}.png" for n in range(70)] + [f"{name}/0.png" for name in "bcd"]
    content, plan = look(populate(tmp_path / "photos", names))
    assert len(content.looks) == 64
    assert {look.class_name for look in content.looks} == {"a", "b", "c", "d"}
    again = survey(plan)
    assert [look.sample for look in again.looks] == [look.sample for look in content.looks]


def test_boxes_are_counted_by_class_and_reason(tmp_path):
    boxes = [
        (1, [0, 0, 9, 9], 0),
        (2, [5, 5, 9, 9], 1),
        (1, [50, 50, 9, 9], 0),
        (3, [0, 0, 9, 9], 0),
    ]
    content, _ = look(coco(tmp_path / "a", boxes))
    assert content.form == "COCO, annotations.json"
    assert content.boxes == {
        "cat": 1,
        "dog": 1,
        "left out: box outside of the image": 1,
        "left out: unknown category": 1,
    }


FORMS = {
    "folders as classes": ["a/1.png", "b/1.png"],
    "a folder without classes": ["1.png", "2.png"],
}


@pytest.mark.parametrize("form", FORMS)
def test_what_a_folder_is_read_as(tmp_path, form):
    assert look(populate(tmp_path / "a", FORMS[form]))[0].form == form


def test_what_tables_tars_and_metadata_are_read_as(tmp_path):
    import tarfile

    source = populate(tmp_path / "a", ["1.png", "2.png"])
    (tmp_path / "t.csv").write_text("image,label\na/1.png,x\na/2.png,y\n")
    assert look(tmp_path / "t.csv")[0].form == "a table"
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(source / "1.png", "1.png")
    assert look(tmp_path / "t.tar")[0].form == "a tar"
    (source / "metadata.csv").write_text("file_name,label\n1.png,x\n2.png,y\n")
    content, _ = look(source)
    assert content.form == "a folder with metadata.csv"
    assert content.classes == {"x": 1, "y": 1}


# the sheet


def test_a_small_image_is_enlarged_and_its_pixels_are_those_of_decode(tmp_path):
    source = populate(tmp_path / "photos", ["a/1.png"])
    pixels, content = sheet_of(source)
    wanted = np.asarray(content.looks[0].image)
    left, top = CORNER
    tile = pixels[top : top + TILE, left : left + TILE]
    scale = TILE // 20
    assert wanted.shape == (16, 20, 3)
    start = (TILE - 16 * scale) // 2
    assert np.array_equal(tile[start::scale][:16, scale // 2 :: scale], wanted)


def test_an_image_that_lies_is_upright_on_the_sheet(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left half of the file is above
    image = Image.new("RGB", (16, 16), "white")
    image.paste("red", (0, 0, 8, 16))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_bytes(encoded(image, exif=exif))
    pixels, _ = sheet_of(tmp_path / "photos")
    left, top = CORNER
    assert pixels[top + 20, left + 80].tolist() == [255, 0, 0]
    assert pixels[top + 140, left + 80].tolist() == [255, 255, 255]


def test_boxes_lie_where_they_are_and_crowds_are_grey(tmp_path):
    boxes = [(1, [10, 20, 20, 10], 0), (2, [0, 30, 40, 10], 1)]
    pixels, _ = sheet_of(coco(tmp_path / "a", boxes))
    left, top = CORNER  # the image is four times as large
    red, grey = [255, 80, 60], [170, 170, 170]
    assert pixels[top + 100, left + 40].tolist() == red
    assert pixels[top + 100, left + 119].tolist() == red
    assert pixels[top + 119, left + 100].tolist() == red
    assert pixels[top + 100, left + 80].tolist() == [90, 90, 90]
    assert pixels[top + 159, left + 80].tolist() == grey


def test_a_legend_has_the_classes_of_boxes_without_room_for_their_names(tmp_path):
    wide = (1, [0, 20, 20, 10], 0)
    plain, _ = sheet_of(coco(tmp_path / "a", [wide]))
    pixels, _ = sheet_of(coco(tmp_path / "b", [wide, (2, [30, 20, 3, 10], 0)]))
    left = CORNER[0]
    y = len(plain) + 2
    assert len(pixels) == len(plain) + 17 + 10
    assert pixels[y, left].tolist() == [60, 150, 255]  # a dog's box is narrow, a cat's is not
    assert not (pixels[len(plain) :] == [255, 80, 60]).all(2).any()
    with_crowd, _ = sheet_of(coco(tmp_path / "c", [(2, [0, 20, 20, 10], 1)]))
    assert with_crowd[y, left].tolist() == [170, 170, 170]


def test_a_legend_that_is_too_long_for_a_line_goes_on_in_the_next():
    font = ImageFont.load_default(12)
    entries = [LegendEntry("x" * length, (0, 0, 0)) for length in (10, 9, 8, 7)]
    width = max(16 + math.ceil(font.getlength(entry.name)) for entry in entries)
    assert lay_out(entries, width, font) == [[entry] for entry in entries]
    assert lay_out(entries, 10 * width, font) == [entries]
    assert lay_out([], width, font) == []


def test_what_is_rejected_is_a_red_tile(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_text("no image")
    pixels, content = sheet_of(tmp_path / "photos")
    assert content.looks[0].reason == "not an image"
    left, top = CORNER
    assert pixels[top + 5, left + 5].tolist() == [250, 225, 225]


def test_any_names_sizes_and_numbers_of_images_make_a_sheet(tmp_path):
    sizes = [(1, 1), (1, 500), (500, 1), (300, 200), (161, 160)]
    for number, size in enumerate(sizes):
        folder = tmp_path / "photos" / ("漢字 [bold]" + "x" * 90)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}\t\udcff.png").write_bytes(image_bytes(size=size))
    pixels, _ = sheet_of(tmp_path / "photos")
    assert pixels.shape == (20 + 15 + 2 * (TILE + 34 + 10), 3 * (TILE + 10) + 10, 3)
