"""What the paper reports, to stand beside results for the same tasks.

Never results of this package. The figures are in ``care/paper.csv``, whose cells are empty where
nothing is reported, and where our copy of the paper cannot be read: parts of Table 1a, and ViT-S's
parameters.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from care.show.rows import MEASURES, Row

# columns of paper.csv that are text; all others are numbers
_TEXTS = ("source", "table", "task", "method", "encoder")


def paper() -> list[Row]:
    """Read all that the paper and the released code's README report of an encoder.

    Returns:
        A row for each line of a table: ``source``, ``table``, ``task``, ``method`` and ``encoder``
        as text; ``epochs`` of the pre-training, ``params`` in millions, ``gflops`` and measures in
        per cent as numbers, None where there is none.
    """
    path = Path(__file__).parents[1] / "paper.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return [_numbers_parsed(line) for line in csv.DictReader(file)]


def compared(rows: Sequence[Row]) -> list[Row]:
    """Put the paper's results of the same tasks behind ours.

    Args:
        rows: evaluations as in results.json.

    Returns:
        The rows, then the paper's. Their ``source`` says that they are reported, not measured here.
    """
    return [*rows, *paper_rows(rows)]


def paper_rows(rows: Sequence[Row]) -> list[Row]:
    """Find the paper's results of the tasks that ours are of.

    Args:
        rows: evaluations as in results.json.

    Returns:
        The paper's rows, as ``compared`` puts them behind ours.
    """
    reported_rows = paper()
    of_tasks = []
    for task in dict.fromkeys(row["task"] for row in rows):
        of_tasks += [_as_result(row) for row in reported_rows if row["task"] == task]
    return of_tasks


def _numbers_parsed(line: dict[str, str]) -> Row:
    """A line of the file, with numbers for their text."""
    row: Row = {}
    for name, cell in line.items():
        row[name] = cell if name in _TEXTS else json.loads(cell or "null")
    return row


def _as_result(reported: Row) -> Row:
    """A line of the paper as an evaluation in a results.json."""
    kept = ("task", "table", "epochs", *MEASURES)
    row = {name: reported[name] for name in kept if reported.get(name) is not None}
    encoder = f"{reported['method']}, {reported['encoder']}"
    if reported["epochs"]:
        encoder += f", {reported['epochs']} epochs"
    row["source"] = f"reported by the {reported['source']} (ImageNet)"
    row["encoder"] = encoder
    row["protocol"] = (
        "measured by its authors, not by this package; the encoders were pre-trained on ImageNet"
    )
    return row
