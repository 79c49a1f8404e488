"""Detections as COCO's results files have them, by the ids of the annotated list."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple
import numpy as np
from numpy.typing import NDArray
from care.evaluate.average_precision import Detections
from shards.boxes import BoxSet

# one annotation or result, as COCO's files have it
Json = dict[str, Any]


class DetectionResults(NamedTuple):
    """What a detector has found in the pictures of a set.

    Attributes:
        truth: the set.
        detections: of every picture.
    """

    truth: BoxSet
    detections: Sequence[Detections]

    def __eq__(self, other: object) -> bool:
        """Whether all of them are equal; arrays alone would be compared one by one."""
        return isinstance(other, DetectionResults) and self.rows() == other.rows()

    def __hash__(self) -> int:
        return hash(json.dumps(self.rows()))

    def files(self) -> dict[str, bytes]:
        """What an evaluation leaves of them: a COCO results file.

        Images and categories have the ids of the annotated list, so that ``loadRes`` of pycocotools
        reads it beside that; of VOC they are the names of files and classes.
        """
        return {"detections.json": json.dumps(self.rows()).encode()}

    def rows(self) -> list[Json]:
        """A row of JSON for each detection, with its mask where masks were looked for."""
        rows = list[Json]()
        image_ids = self.truth.image_ids or range(len(self.detections))
        for image_id, in_picture in zip(image_ids, self.detections, strict=True):
            masks: list[Json | None] = [None] * len(in_picture.boxes)
            if in_picture.masks:
                masks = [*in_picture.masks]
            for box, score, label, mask in zip(
                in_picture.boxes, in_picture.scores, in_picture.labels, masks, strict=True
            ):
                row: Json = {
                    "image_id": image_id,
                    "category_id": self._category_id(int(label)),
                    "bbox": coco_box(box),
                    "score": float(score),
                }
                if mask is not None:
                    row["segmentation"] = _as_text(mask)
                rows.append(row)
        return rows

    def _category_id(self, label: int) -> int | str:
        """What the list calls a class; its name where the list does not have it."""
        if not self.truth.category_ids:
            return label
        name = self.truth.classes[label]
        return self.truth.category_ids.get(name, name)


def coco_box(box: NDArray[np.float32]) -> list[float]:
    """COCO's left, top, width and height of left, top, right and bottom."""
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]


def _as_text(mask: Json) -> Json:
    """An RLE whose counts JSON can hold."""
    counts = mask["counts"]
    return mask | {"counts": counts.decode() if isinstance(counts, bytes) else counts}
