"""What a grid says of where an encoder looks: one measurement, told as up to three tasks."""

import csv
import io
from collections.abc import Collection, Iterator
from typing import NamedTuple
from care.evaluate.object_figures import ObjectFigures
from care.evaluate.resampling import resampled_mean
from flows.result import Result
from shards import storage


class ObjectTask(NamedTuple):
    """A task of the tables.

    Attributes:
        evaluation: the name that asks for it.
        task: its name in the tables.
        measure: a column of ``attention.csv``, and a measure of the row.
        chance: the column of what a map without preference would have.
    """

    evaluation: str
    task: str
    measure: str
    chance: str


TASKS = (
    ObjectTask("attention", "attention inside objects", "inside", "area"),
    ObjectTask("localisation", "pointing game", "pointing", "pointing_chance"),
    ObjectTask("localisation", "CorLoc", "corloc", "corloc_chance"),
)


def object_rows(result: Result, evaluations: Collection[str]) -> Iterator[Result]:
    """The rows of an encoder, each with its own chance and its figure by resampled images.

    Args:
        result: of the stage that judged by ``care.evaluate.attention``.
        evaluations: which tasks are asked for.

    Yields:
        A row for each task.
    """
    (row,) = result["rows"]
    (table,) = (name for name in result["outputs"] if name.endswith("attention.csv"))
    text = storage.read_bytes(f"{result['url']}/{table}").decode(errors="surrogateescape")
    images = list(csv.DictReader(io.StringIO(text)))
    common = {name: value for name, value in row.items() if name not in ObjectFigures._fields}
    for each in TASKS:
        if each.evaluation in evaluations:
            by_image = [float(image[each.measure]) for image in images]
            yield common | {
                "task": each.task,
                each.measure: row[each.measure],
                "chance": row[each.chance],
                "resampled": resampled_mean(by_image),
            }
