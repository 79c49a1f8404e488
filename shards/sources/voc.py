"""Pascal VOC lists."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from shards import images, storage
from shards.errors import ShardError
from shards.rejects import Reject
from shards.sources.annotations import Annotations, finite_numbers
from shards.sources.coco import parse_coco


def parse_voc(path: Path, root: Path) -> Annotations:
    entries, objects, rejects = (
        list[dict[str, Any]](),
        list[dict[str, Any]](),
        list[tuple[str, str]](),
    )
    try:
        stems = dict.fromkeys(
            line.split()[0]
            for line in storage.read_bytes(path).decode().splitlines()
            if line.strip()
        )
    except (OSError, UnicodeDecodeError) as error:
        raise ShardError(f"{path} is no VOC list: {error}") from None
    for stem in stems:
        try:
            tree = ElementTree.fromstring(storage.read_bytes(root / "Annotations" / f"{stem}.xml"))
            file = next(
                name
                for name in (f"{stem}.jpg", tree.findtext("filename", ""))
                if (root / "JPEGImages" / name).is_file()
            )
            width, height = (
                int(float(tree.findtext(f"size/{side}", "0"))) for side in ("width", "height")
            )
            if min(width, height) <= 0:
                width, height = images.decode(storage.read_bytes(root / "JPEGImages" / file)).size
            for one in tree.findall("object"):
                left, top, right, bottom = (
                    finite_numbers(
                        one.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")
                    )
                    or (0,) * 4
                )
                # the first pixel is 1, and the last one belongs to the box; without extent as written, it stays without
                extent = (
                    (right - left + 1, bottom - top + 1)
                    if left < right and top < bottom
                    else (0, 0)
                )
                name, difficult = (
                    one.findtext("name", "").strip(),
                    one.findtext("difficult", "").strip() == "1",
                )
                objects.append(
                    {
                        "image_id": stem,
                        "category_id": name,
                        "bbox": (left - 1, top - 1, *extent),
                        "difficult": difficult,
                    }
                )
            entries.append({"id": stem, "file_name": file, "width": width, "height": height})
        except (StopIteration, ShardError):
            rejects.append((Reject.NO_IMAGE, stem))
        except (OSError, ValueError, LookupError, OverflowError, ElementTree.ParseError):
            rejects.append((Reject.NO_ANNOTATION, stem))
    categories = [
        {"id": name, "name": name} for name in sorted({one["category_id"] for one in objects})
    ]
    annotations = [{"id": n, "iscrowd": 0, **one} for n, one in enumerate(objects, 1)]
    content = {
        "voc": True,
        "images": entries,
        "categories": categories,
        "annotations": annotations,
        "rejects": rejects,
    }
    return parse_coco(root / "JPEGImages", content)._replace(path=path)
