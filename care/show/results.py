"""Results of many runs, beside what the paper reports for the same tasks."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from care import paper
from care.errors import CareError
from care.show.report import MEASURES, Row, tables
from shards import storage

PLAIN = str.maketrans({"\n": " ", **{mark: f"\\{mark}" for mark in "\\|*`<"}})  # text that is no Markdown


def gather(folder: str | Path) -> list[Row]:
    """The evaluations of every results.json in or below ``folder``, outer files first; each result once, ``file`` is where it is from.

    Raises:
        CareError: there are none, or a results.json is another program's; a ``ShardError``: one is damaged.
    """
    root, found = storage.locate(folder), dict[str, Row]()
    for path in sorted(root.rglob("results.json"), key=lambda path: (len(path.parts), path)):
        try:
            tables(rows := storage.read_json(path)["evaluations"])  # what makes no table is not ours
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CareError(f"{path} holds no evaluations of a care command; move it away, or name a folder without it") from error
        for row in rows:  # those of a demo are in its results.json, under other names, and below it
            same = [row.get(name) for name in ("settings", "seed", "trials", *MEASURES)] if "digests" in row else str(path)
            found.setdefault(storage.digest([row.get("digests") or row, same]), row | {"file": path.relative_to(root).as_posix()})
    if not found:
        raise CareError(f"no results.json in or below {folder} holds evaluations; wanted a folder of `care evaluate` or `care demo`")
    return list(found.values())


def compared(rows: Sequence[Row]) -> list[Row]:
    """``rows``, and after them the paper's of the same tasks: their ``source`` says that they are reported, not measured here."""
    return [*rows] + [
        {"source": f"reported by the {one.source} (ImageNet)", "task": task, "table": one.table, **one.measures, "epochs": one.epochs,
         "encoder": f"{one.method}, {one.encoder}" + (f", {one.epochs} epochs" if one.epochs else ""),
         "protocol": "measured by its authors, not by this package; the encoders were pre-trained on ImageNet"}
        for task in dict.fromkeys(row["task"] for row in rows) for one in paper.rows(task)
    ]  # fmt: skip


def as_csv(rows: Sequence[Row]) -> str:
    """All that the rows hold, unrounded, a line each; dictionaries such as the settings as JSON."""
    columns = dict.fromkeys(["source", "task", "encoder", *MEASURES, *sorted({name for row in rows for name in row})])
    writer = csv.DictWriter(text := io.StringIO(), list(columns))
    writer.writeheader()
    writer.writerows({n: json.dumps(value) if isinstance(value, dict | list) else value for n, value in row.items()} for row in rows)
    return text.getvalue()


def as_markdown(rows: Sequence[Row]) -> str:
    """The tables that ``care.show.report.tables`` makes of the rows, each with its protocols."""
    text = ""
    for one in tables(rows):
        lines = [["task", "encoder", *one.headings], ["---", "---", *["---:"] * len(one.headings)]]
        for task, encoder, values, best in one.lines:
            lines.append([task.translate(PLAIN), encoder.translate(PLAIN), *([f"**{values[0]}**", *values[1:]] if best else values)])
        text += "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"
        text += "".join(f"- {f'{task}: {protocol}'.translate(PLAIN)}\n" for task, protocol in one.protocols.items()) + "\n"
    return text
