"""One self-contained HTML page about a run; results of many runs, beside what the paper reports for the same tasks."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from jinja2 import Environment, PackageLoader
from care.errors import CareError
from care.show.groups import Row, grouped
from care.show.maps import SCALE
from care.show.verdict import caveat, differences, findings, verdict
from care.show.whiskers import picture
from shards import storage

CURVES = {
    "cnn": "C-stream loss (Eq. 1)",
    "transformer": "T-stream loss (Eq. 3)",
    "attention": "attention supervision (Eq. 4, unweighted)",
    "spread": "spread of the embeddings (1 healthy, 0 collapsed)",
    "knn": "kNN on the way, top-1 %",
    "classifier": "loss of the boxes' classes",
    "box_reg": "loss of the boxes' places",
    "mask": "loss of the masks",
    "objectness": "loss of the proposals' objectness",
    "rpn_box_reg": "loss of the proposals' places",
}
WIDTH, HEIGHT = 420, 150
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
PLAIN = str.maketrans(
    {"\n": " ", **{mark: f"\\{mark}" for mark in "\\|*`<"}}
)  # text that is no Markdown


class Table(NamedTuple):
    """Evaluations with the same measures."""

    headings: list[str]
    lines: list[
        tuple[str, str, list[str], bool]
    ]  # task, encoder, values, and whether their first is the task's best; grouped by task
    protocols: dict[str, str]  # by task


def report(run: str | Path) -> str | Path:
    """Write ``run/report.html`` (a path or URL) from its results.json, losses.jsonl, maps.png; without the first two a ``CareError``."""
    folder = storage.locate(run)
    if not {"results.json", "losses.jsonl"} & (names := storage.listing(folder)).keys():
        raise CareError(
            f"{run} holds neither results.json nor losses.jsonl; wanted a directory that a care command wrote its run to"
        )
    results = storage.read_json(folder / "results.json") if "results.json" in names else {}
    losses, maps = (
        storage.read_bytes(folder / name) if name in names else b""
        for name in ("losses.jsonl", "maps.png")
    )
    rows, curves = [json.loads(line) for line in losses.splitlines()], []
    for key, title in CURVES.items():
        values = [
            (step, row[key]) for step, row in enumerate(rows) if key in row
        ]  # what is measured now and then is not in every row
        if any(value for _, value in values):
            width = max(
                len(values) * 2 // WIDTH, 1
            )  # each point is the mean of its share of the steps: at most one a pixel pair
            parts = [values[at : at + width] for at in range(0, len(values), width)]
            means = [sum(value for _, value in part) / len(part) for part in parts]
            low, high, end = min(means), max(means), max(len(rows) - 1, 1)
            scale = (HEIGHT - 10) / ((high - low) or 1)
            points = (
                f"{part[-1][0] * WIDTH / end:.1f},{5 + (high - mean) * scale:.1f}"
                for part, mean in zip(parts, means, strict=True)
            )
            curves.append(
                {
                    "title": title,
                    "points": " ".join(points),
                    "steps": len(rows),
                    "top": high,
                    "bottom": low,
                    "last": means[-1],
                }
            )
    environment = Environment(
        loader=PackageLoader("care", "show"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    evaluations = results.get("evaluations", [])
    compared = differences(evaluations)
    page = environment.get_template("report.html.j2").render(
        results=results,
        # of the rows, not of the file: results of an earlier version have no verdict of their own
        findings=findings(compared) if verdict(evaluations) else [],
        caveat=caveat(compared),
        differences=picture(compared) if compared else None,
        tables=tables(evaluations),
        curves=curves,
        maps=base64.b64encode(maps).decode(),
        scale=SCALE,
        width=WIDTH,
        height=HEIGHT,
    )
    storage.write_bytes(folder / "report.html", page.encode())
    return str(folder / "report.html") if storage.is_remote(run) else folder / "report.html"


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
    """The tables that ``care.show.report.tables`` makes of the rows, each with its protocols."""
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
