"""Annotated lists for the tests of this folder: the same images and boxes for COCO and for VOC."""

import json
import math
from made_images import populate

WIDTH, HEIGHT = 20, 16
BOX = (2, 3, 9, 8)
IDS = {"dog": 3, "cat": 7}  # by id, the classes are not in the order of their names
SIZE = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
OBJECT = "<object><name> {} </name><difficult>{:d}</difficult><bndbox>{}</bndbox></object>"
COCOS_LAYOUT = ("annotations/instances_train2017.json", "train2017")
MASKS = [
    [[2, 3, 9, 3, 9, 8.5], [1, 1, 5, 1, 5, 5, 1, 5]],
    {"size": [16, 20], "counts": [30, 5, 285]},
    {"size": [16, 20], "counts": "abc"},
    None,
    [],
    [[2, 3, 9, 3], [2, 3], [], 7, "23456789", ["a"] * 6, [1, 1, 5, 1, 5, math.nan]],
    [[2, 3, 9, 3], [2, 3, 9, 3, 9, 8]],
    "mask",
    {"counts": [320]},
]
USABLE_MASKS = [*MASKS[:3], [], [], [], [[2, 3, 9, 3, 9, 8]], [], []]


def coco(root, things, path="set.json", images=".", **replaced):
    """A COCO JSON.

    ``things`` are (name, (x_min, y_min, x_max, y_max)[, ignored]) by the stem of their image.
    """
    populate(root / images, [f"{stem}.jpg" for stem in things])
    entries = []
    annotations = []
    for number, (stem, objects) in enumerate(things.items(), 10):
        entry = {"id": number, "file_name": f"{stem}.jpg", "width": WIDTH, "height": HEIGHT}
        entries.append(entry)
        for name, (x_min, y_min, x_max, y_max), *ignored in objects:
            annotations.append(
                {
                    "image_id": number,
                    "category_id": IDS.get(name, 99),
                    "bbox": [x_min, y_min, x_max - x_min, y_max - y_min],
                    "iscrowd": int(any(ignored)),
                }
            )
    categories = [{"id": number, "name": name} for name, number in reversed(IDS.items())]
    document = {"images": entries, "categories": categories, "annotations": annotations}
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(json.dumps(document | replaced))
    return root / path


def voc(root, things, size=SIZE, file=""):
    """A VOC devkit with the same; its sides count from 1, and the last pixel belongs to the box."""
    populate(root / "JPEGImages", [file or f"{stem}.jpg" for stem in things])
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for stem, objects in things.items():
        text = f"<filename>{file}</filename>{size}"
        for name, (x_min, y_min, *others), *ignored in objects:
            sides = zip(CORNERS, (x_min + 1, y_min + 1, *others), strict=False)
            box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
            text += OBJECT.format(name, any(ignored), box)
        (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{text}</annotation>")
    path = root / "ImageSets" / "Main" / "train.txt"
    path.write_text("".join(f"{stem}  1\n\n" for stem in things))
    return path


def masked(root, **replaced):
    """A COCO JSON of one image with a box for every mask, and one without any."""
    annotations = []
    for number, mask in enumerate(MASKS, 1):
        box = {"id": number, "image_id": 10, "category_id": 7, "bbox": [2, 3, 7, 5]}
        annotations.append(box | {"segmentation": mask})
    annotations.append({"id": 99, "image_id": 10, "category_id": 3, "bbox": [1, 1, 5, 5]})
    return coco(root, {"a": []}, annotations=annotations, **replaced)


def counted(box_set):
    """How many boxes count in an evaluation."""
    return sum(int((~picture.ignored).sum()) for picture in box_set.pictures)


def rejected(box_set):
    """How many were left out, by reason."""
    return {reason: len(names) for reason, names in box_set.rejects.items()}


def boxes_of_photos(photos):
    """COCO's annotations of a folder of photographs, a box in each."""
    entries = []
    annotations = []
    for number, file in enumerate(sorted(photos.rglob("*.jpg"))):
        entry = {"id": number, "file_name": str(file), "width": WIDTH, "height": HEIGHT}
        entries.append(entry)
        box = [number % 9, 2, 5, 6]
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": box})
    categories = [{"id": 1, "name": "thing"}]
    document = {"images": entries, "annotations": annotations, "categories": categories}
    path = photos.parent / "annotations.json"
    path.write_text(json.dumps(document))
    return path
