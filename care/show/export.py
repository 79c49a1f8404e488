"""Results as text for other programs: CSV and Markdown."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any
from care.show.results import Line, Table, tables
from care.show.rows import MEASURES, Row

# text that is no Markdown, for ``str.translate``
PLAIN = str.maketrans({"\n": " ", "\\": "\\\\", "|": "\\|", "*": "\\*", "`": "\\`", "<": "\\<"})


def as_csv(rows: Sequence[Row]) -> str:
    """Write all that the rows hold, unrounded, a line each.

    Dictionaries such as the settings are JSON. The figures on resampled images are left out: they
    are hundreds a row, and in results.json.

    Args:
        rows: evaluations as in results.json, or as ``compared`` gives them.
    """
    names = set[str]().union(*rows)
    columns = dict.fromkeys(["source", "task", "encoder", *MEASURES, *sorted(names)])
    columns.pop("resampled", None)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return text.getvalue()


def as_markdown(rows: Sequence[Row]) -> str:
    """Write the tables of the rows, each with its protocols.

    Args:
        rows: evaluations as in results.json, or as ``compared`` gives them.
    """
    return "".join(_markdown_table(table) for table in tables(rows))


def _cell(value: Any) -> Any:
    """What a cell of a CSV holds of a value in a row."""
    return json.dumps(value) if isinstance(value, dict | list) else value


def _markdown_table(table: Table) -> str:
    """A table, and a list of the protocols of its tasks."""
    rows = [
        ["task", "encoder", *table.headings],
        ["---", "---", *["---:"] * len(table.headings)],
        *(_markdown_cells(line) for line in table.lines),
    ]
    text = "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"
    for task, protocol in table.protocols.items():
        text += f"- {f'{task}: {protocol}'.translate(PLAIN)}\n"
    return text + "\n"


def _markdown_cells(line: Line) -> list[str]:
    """A line of a table, its first value bold where it is the best."""
    values = [*line.values]
    if line.best:
        values[0] = f"**{values[0]}**"
    return [line.task.translate(PLAIN), line.encoder.translate(PLAIN), *values]
