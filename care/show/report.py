"""One self-contained HTML page about a run."""

import base64
import json
from pathlib import Path
from jinja2 import Environment, PackageLoader
from care.errors import CareError
from care.show.maps import SCALE
from care.show.results import tables
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
