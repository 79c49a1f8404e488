"""Results of many runs: gathered from their files, and put into tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from care.errors import CareError
from care.show.groups import Row, grouped
from shards import storage

MEASURES = {
    "top1": "top-1 %",
    "top5": "top-5 %",
    "best1": "best epoch's top-1 %",
    "ap": "AP %",
    "ap50": "AP50 %",
    "ap75": "AP75 %",
    "mask_ap": "mask AP %",
    "mask_ap50": "mask AP50 %",
    "mask_ap75": "mask AP75 %",
    "inside": "inside %",
}


class Table(NamedTuple):
    """Evaluations with the same measures."""

    headings: list[str]
    lines: list[
        tuple[str, str, list[str], bool]
    ]  # task, encoder, values, and whether their first is the task's best; grouped by task
    protocols: dict[str, str]  # by task


def tables(rows: Sequence[Row]) -> list[Table]:
    """A table for each set of measures that tasks have; a task's rows that differ in protocol, settings, seed or data are told apart."""
    found = dict[tuple[str, ...], Table]()
    for groups in grouped(rows).values():
        task_rows = [row for group in groups for row in group.rows]
        measures = tuple(m for m in MEASURES if any(row.get(m) is not None for row in task_rows))
        table = found.setdefault(measures, Table([MEASURES[m] for m in measures], [], {}))
        for group in groups:
            if group.protocol:
                table.protocols[group.label] = group.protocol
            top = max((row.get(m) or 0 for row in group.rows for m in measures[:1]), default=0)
            for row, encoder in zip(group.rows, group.encoders(), strict=True):
                best = not group.source and bool(measures) and row.get(measures[0]) == top
                values = [_value(row, measure) for measure in measures]
                table.lines.append((group.label, encoder, values, best))
    return list(found.values())


def _value(row: Row, measure: str) -> str:
    """A cell of a table: the measure and, of several trials, its standard deviation."""
    if row.get(measure) is None:
        return "–"
    deviation = row.get(f"{measure}_std")
    spread = "" if deviation is None else f" ± {deviation:.1f}"
    return f"{row[measure]:.1f}{spread}"


def gather(folder: str | Path) -> list[Row]:
    """Evaluations below ``folder``, each once with its ``file``, outer first; none or others': ``CareError``, damaged: ``ShardError``."""
    root, found = storage.locate(folder), dict[str, Row]()
    for path in sorted(root.rglob("results.json"), key=lambda path: (len(path.parts), path)):
        try:
            tables(
                rows := storage.read_json(path)["evaluations"]
            )  # what makes no table is not ours
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CareError(
                f"{path} holds no evaluations of a care command; move it away, or name a folder without it"
            ) from error
        for row in rows:  # those of a demo are in its results.json, under other names, and below it
            same = (
                [row.get(name) for name in ("settings", "seed", "trials", *MEASURES)]
                if "digests" in row
                else str(path)
            )
            found.setdefault(
                storage.digest([row.get("digests") or row, same]),
                row | {"file": path.relative_to(root).as_posix()},
            )
    if not found:
        raise CareError(
            f"no results.json in or below {folder} holds evaluations; wanted a folder of `care evaluate` or `care demo`"
        )
    return list(found.values())
