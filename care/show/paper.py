"""What the paper reports, beside results for the same tasks."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from care.show.groups import Row
from care.show.results import MEASURES


def paper() -> list[Row]:
    """All that the paper and the released code's README report of an encoder, never results of this package; params in millions."""
    # cells are empty where nothing is reported and where our copy cannot be read: parts of Table 1a, ViT-S's parameters
    names, *lines = csv.reader(
        Path(__file__).parents[1].joinpath("paper.csv").read_text(encoding="utf-8").splitlines()
    )
    return [
        dict(
            zip(names, (*line[:5], *(json.loads(cell or "null") for cell in line[5:])), strict=True)
        )
        for line in lines
    ]


def compared(rows: Sequence[Row]) -> list[Row]:
    """``rows``, and after them the paper's of the same tasks: their ``source`` says that they are reported, not measured here."""
    return [*rows] + [
        {
            **{
                name: one[name]
                for name in ("task", "table", "epochs", *MEASURES)
                if one.get(name) is not None
            },
            "source": f"reported by the {one['source']} (ImageNet)",
            "encoder": f"{one['method']}, {one['encoder']}"
            + (f", {one['epochs']} epochs" if one["epochs"] else ""),
            "protocol": "measured by its authors, not by this package; the encoders were pre-trained on ImageNet",
        }
        for task in dict.fromkeys(row["task"] for row in rows)
        for one in paper()
        if one["task"] == task
    ]
