"""The paper's tables as data: reported by its authors, of encoders pre-trained on ImageNet; never results of this package."""

import csv
import json
from importlib.resources import files
from typing import NamedTuple


class PaperRow(NamedTuple):
    """What a ``source`` (paper, or the released code's README) reports of an encoder; ``params`` in millions, ``measures`` in %."""

    source: str
    table: str
    task: str
    method: str
    encoder: str
    epochs: int | None
    params: int | None
    gflops: float | None
    measures: dict[str, float]  # what is reported of top1, top5; ap, ap50, ap75 (of boxes); mask_ap, mask_ap50, mask_ap75


def rows(task: str | None = None) -> list[PaperRow]:
    """The rows of all tasks, or of one: linear, 1 % or 10 % of the labels, VOC C4, COCO C4, COCO FPN, ablation λ, …."""
    # cells are empty where nothing is reported and where our copy cannot be read: parts of Table 1a, ViT-S's parameters
    names, *lines = csv.reader(files("care").joinpath("paper.csv").read_text(encoding="utf-8").splitlines())
    cells = [[*line[:5], *(json.loads(cell or "null") for cell in line[5:])] for line in lines if task in (None, line[2])]
    return [PaperRow._make([*row[:8], {n: one for n, one in zip(names[8:], row[8:], strict=True) if one is not None}]) for row in cells]
