"""COCO instances files."""

from pathlib import Path
from typing import Any
from shards.errors import ShardError
from shards.rejects import Reject
from shards.sources.annotations import AnnotatedObject, Annotations, finite_numbers


def parse_coco(path: Path, content: Any, *roots: Path) -> Annotations:
    found = list[Any]()
    try:
        listed = {image["id"]: image for image in content["images"]}
        categories = {
            one["id"]: str(one["name"])
            for one in sorted(content["categories"], key=lambda one: one["id"])
        }
        rejects = [(str(reason), str(name)) for reason, name in content.get("rejects", [])]
        objects: dict[Any, list[AnnotatedObject]] = {number: [] for number in listed}
        for one in content["annotations"]:
            # a category that is not listed has no name: its number is none that a class could have
            name = categories.get(one["category_id"], f"#{one['category_id']}")
            flags, mask = (
                (bool(content.get("voc") and one.get("difficult")), bool(one.get("iscrowd"))),
                one.get("segmentation") or [],
            )
            if not (isinstance(mask, dict) and {"counts", "size"} <= mask.keys()):
                mask = [
                    polygon
                    for polygon in mask
                    if isinstance(polygon, list) and len(finite_numbers(polygon)) >= 6
                ]
            if one["image_id"] in objects:
                objects[one["image_id"]].append((name, finite_numbers(one["bbox"]), *flags, mask))
            else:
                rejects.append((Reject.UNKNOWN_IMAGE, f"image {one['image_id']}: {name}"))
        for number, image in listed.items():
            file, size = str(image["file_name"]), (int(image["width"]), int(image["height"]))
            if there := next(
                (root / file for root in roots if (root / file).is_file()),
                None if roots else path / file,
            ):
                found.append((there, size, objects[number], image))
            else:
                rejects.append((Reject.NO_IMAGE, file))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ShardError(
            f"{path} is no COCO instances file: {type(error).__name__} {error}"
        ) from None
    return Annotations(path, content, list(dict.fromkeys(categories.values())), found, rejects)
