"""Results as text for other programs: CSV and Markdown."""

import csv
import io
import json
from collections.abc import Sequence
from care.show.groups import Row
from care.show.results import MEASURES, tables

PLAIN = str.maketrans(
    {"\n": " ", **{mark: f"\\{mark}" for mark in "\\|*`<"}}
)  # text that is no Markdown


def as_csv(rows: Sequence[Row]) -> str:
    """All that the rows hold, unrounded, a line each; dictionaries such as the settings as JSON.

    The figures on resampled images are left out: they are hundreds a row, and in results.json.
    """
    columns = dict.fromkeys(
        ["source", "task", "encoder", *MEASURES, *sorted({name for row in rows for name in row})]
    )
    columns.pop("resampled", None)
    writer = csv.DictWriter(text := io.StringIO(), list(columns), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(
        {
            n: json.dumps(value) if isinstance(value, dict | list) else value
            for n, value in row.items()
        }
        for row in rows
    )
    return text.getvalue()


def as_markdown(rows: Sequence[Row]) -> str:
    """The tables that ``care.show.results.tables`` makes of the rows, each with its protocols."""
    text = ""
    for one in tables(rows):
        lines = [["task", "encoder", *one.headings], ["---", "---", *["---:"] * len(one.headings)]]
        for task, encoder, values, best in one.lines:
            lines.append(
                [
                    task.translate(PLAIN),
                    encoder.translate(PLAIN),
                    *([f"**{values[0]}**", *values[1:]] if best else values),
                ]
            )
        text += "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"
        text += (
            "".join(
                f"- {f'{task}: {protocol}'.translate(PLAIN)}\n"
                for task, protocol in one.protocols.items()
            )
            + "\n"
        )
    return text
