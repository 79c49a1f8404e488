"""Results of many runs: gathered from their files, and put into tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from care.errors import CareError
from care.show.groups import Group, grouped
from care.show.rows import HEADLINES, MEASURES, PLACES, Result, Row, read
from shards import storage
from shards.misspelt import suggestion

# commands that leave results
WRITERS = "`care evaluate`, `care demo` or `care pipeline run`"


class Line(NamedTuple):
    """An evaluation in a table.

    Attributes:
        task: its label, as its group has it.
        encoder: its label.
        values: of the table's measures, as text.
        best: whether the first value is the best of the group; never of what others report, nor of
            what no label decides.
    """

    task: str
    encoder: str
    values: list[str]
    best: bool


class Table(NamedTuple):
    """Evaluations with the same measures.

    Attributes:
        headings: of the measures.
        lines: grouped by task.
        protocols: by the label of the task.
    """

    headings: list[str]
    lines: list[Line]
    protocols: dict[str, str]


def tables(rows: Sequence[Row]) -> list[Table]:
    """Make a table for each set of measures that tasks have.

    Results of a task that differ in protocol, settings, seed or data are told apart by numbers
    behind its name.

    Args:
        rows: evaluations as in results.json.

    Raises:
        KeyError: Something is no evaluation, see ``care.show.rows.read``.
        TypeError: As ``KeyError``; also a measure that is no number.
        ValueError: As ``TypeError``.
    """
    by_measures = dict[tuple[str, ...], Table]()
    for groups in grouped(read(rows)).values():
        measures = _measures(groups)
        headings = [MEASURES[measure] for measure in measures]
        table = by_measures.setdefault(measures, Table(headings, [], {}))
        for group in groups:
            if group.protocol:
                table.protocols[group.label] = group.protocol
            table.lines.extend(_lines(group, measures))
    return list(by_measures.values())


def gather(folder: str | Path) -> list[Row]:
    """Find the evaluations in and below a folder, each once.

    A result that is in several files, such as a pipeline's and that of its stage, is taken from the
    outer one. Results that differ in the data, the encoder, settings, seed or measures are several;
    those of a version without digests always are.

    Args:
        folder: path or URL.

    Returns:
        The rows, each with its ``file`` below the folder.

    Raises:
        CareError: There is no such folder, there are none in it, or a results.json holds something
            else.
        ShardError: A file is damaged.
    """
    root = storage.locate(folder)
    if not root.exists():
        raise CareError(
            f"{folder} does not exist; wanted a folder of {WRITERS}{suggestion(folder)}"
        )
    gathered = dict[str, Row]()
    for path in sorted(root.rglob("results.json"), key=lambda path: (len(path.parts), path)):
        rows = evaluations(storage.read_json(path), path)
        file = path.relative_to(root).as_posix()
        for row in rows:
            gathered.setdefault(_identity(row, str(path)), row | {"file": file})
    if not gathered:
        raise CareError(
            f"no results.json in or below {folder} holds evaluations; wanted a folder of {WRITERS}"
        )
    return list(gathered.values())


def evaluations(content: Any, path: object) -> list[Row]:
    """Find the evaluations in what a results.json holds.

    Args:
        content: JSON of any kind.
        path: of the file, for the message.

    Raises:
        CareError: There are none, or they are another program's.
    """
    try:
        rows: list[Row] = content["evaluations"]
        # what makes no table is not ours
        tables(rows)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CareError(
            f"{path} holds no evaluations of a care command; move it away, or name a folder"
            " without it"
        ) from error
    return rows


def _measures(groups: Sequence[Group]) -> tuple[str, ...]:
    """Names of the measures that any result of a task has, in the order of the columns."""
    names = set[str]()
    for group in groups:
        for result in group.results:
            names.update(result.measures)
    return tuple(measure for measure in MEASURES if measure in names)


def _lines(group: Group, measures: Sequence[str]) -> list[Line]:
    """A line for each result of a group."""
    first = measures[0] if measures else ""
    best = max(result.measures.get(first, 0) for result in group.results) if first else None
    is_judged = not group.source and first in HEADLINES
    lines = []
    for result, encoder in zip(group.results, group.encoders(), strict=True):
        values = [_value(result, measure) for measure in measures]
        is_best = is_judged and first in result.measures and result.measures[first] == best
        lines.append(Line(group.label, encoder, values, is_best))
    return lines


def _value(result: Result, measure: str) -> str:
    """A cell of a table: the measure and, of several trials, its standard deviation."""
    if measure not in result.measures:
        return "–"
    places = PLACES.get(measure, 1)
    text = f"{result.measures[measure]:.{places}f}"
    if measure in result.deviations:
        text += f" ± {result.deviations[measure]:.{places}f}"
    return text


def _identity(row: Row, path: str) -> str:
    """What is equal of two rows that are one result.

    The encoder's name is not: a demo has its stages' results under other names.
    """
    if "digests" not in row:
        return storage.digest([row, path])
    what_is_equal = [row.get(name) for name in ("settings", "seed", "trials", *MEASURES)]
    return storage.digest([row["digests"] or row, what_is_equal])
