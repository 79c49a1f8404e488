"""One self-contained HTML page about a run."""

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment

from care.errors import CareError
from care.show.maps import SCALE
from shards import storage

CURVES = {
    "cnn": "C-stream loss (Eq. 1)",
    "transformer": "T-stream loss (Eq. 3)",
    "attention": "attention supervision (Eq. 4, unweighted)",
    "spread": "spread of the embeddings (1 healthy, 0 collapsed)",
    "knn": "kNN on the way, top-1 %",
    "classifier": "loss of the boxes' classes",
    "box_reg": "loss of the boxes' places",
    "objectness": "loss of the proposals' objectness",
    "rpn_box_reg": "loss of the proposals' places",
}
WIDTH, HEIGHT = 420, 150


MEASURES = {"top1": "top-1 %", "top5": "top-5 %", "ap": "AP %", "ap50": "AP50 %", "ap75": "AP75 %", "inside": "inside %"}
"""What an evaluation's row may hold, and how it is headed."""


class Table(NamedTuple):
    """Evaluations with the same measures."""

    headings: list[str]
    lines: list[tuple[str, str, list[str], bool]]
    """Task, encoder, values, and whether the first of these is the task's best; grouped by task."""
    protocols: dict[str, str]
    """By task."""


class Curve(NamedTuple):
    """A line in SVG coordinates, and what its axes say."""

    title: str
    points: str
    top: str
    bottom: str
    steps: int
    last: str


def report(run: str | Path) -> Path:
    """Write ``run/report.html`` from what is in the run directory: results.json, losses.jsonl, maps.png, each where present.

    Raises:
        CareError: ``run`` holds neither results nor losses.
    """
    folder = storage.local(run)
    losses, results, maps = folder / "losses.jsonl", folder / "results.json", folder / "maps.png"
    if not (losses.exists() or results.exists()):
        raise CareError(f"{run} holds neither results.json nor losses.jsonl; wanted a directory that a care command wrote its run to")
    rows = [json.loads(line) for line in losses.read_text().splitlines()] if losses.exists() else []
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("care.show").joinpath("report.html.j2").read_text()
    )
    content = storage.read_json(results) if results.exists() else {}
    page = template.render(
        results=content,
        tables=tables(content.get("evaluations", [])),
        curves=[_curve(title, rows, key) for key, title in CURVES.items() if any(row.get(key) for row in rows)],
        scale=SCALE,
        width=WIDTH,
        height=HEIGHT,
        maps=base64.b64encode(maps.read_bytes()).decode() if maps.exists() else None,
    )
    storage.write_bytes(folder / "report.html", page.encode())
    return folder / "report.html"


def tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """The rows of ``results.json``'s evaluations as tables, one for each set of measures."""
    grouped: dict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        grouped.setdefault(tuple(m for m in MEASURES if m in row), {}).setdefault(row["task"], []).append(row)
    return [
        Table(
            [MEASURES[m] for m in measures],
            [
                (task, row["encoder"], [f"{row[m]:.1f}" for m in measures], row[measures[0]] == max(r[measures[0]] for r in of))
                for task, of in tasks.items()
                for row in of
            ],
            {task: of[0].get("protocol", "") for task, of in tasks.items()},
        )
        for measures, tasks in grouped.items()
    ]


def _curve(title: str, rows: list[dict[str, float]], key: str) -> Curve:
    """Each point is the mean of its share of the steps: at most one a pixel pair."""
    values = [(step, row[key]) for step, row in enumerate(rows) if key in row]  # what is measured now and then is not in every row
    width = max(len(values) * 2 // WIDTH, 1)
    parts = [values[at : at + width] for at in range(0, len(values), width)]
    means = [sum(value for _, value in part) / len(part) for part in parts]
    low, high = min(means), max(means)
    scale, last = (HEIGHT - 10) / ((high - low) or 1), max(len(rows) - 1, 1)
    points = " ".join(f"{p[-1][0] * WIDTH / last:.1f},{5 + (high - mean) * scale:.1f}" for p, mean in zip(parts, means, strict=True))
    return Curve(title, points, f"{high:.3g}", f"{low:.3g}", len(rows), f"{means[-1]:.3g}")
