"""One self-contained HTML page about a run: verdict, tables, attention maps, curves.

The page is made from the files of a run alone, and says the same of results of any age.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from jinja2 import Environment, PackageLoader
from care.errors import CareError
from care.show.comparison import differences
from care.show.groups import rows_beside
from care.show.maps import SCALE
from care.show.results import evaluations, gather, tables
from care.show.rows import Row, read
from care.show.run_settings import settings_of_pipeline, settings_of_run
from care.show.verdict import advice, caveat, findings, judges_care
from care.show.whiskers import picture
from care.train import load_encoder
from care.train.weights import digest_of
from shards import storage
from shards.misspelt import suggestion
from shards.progress import say

# what a line of losses.jsonl may hold, and how it is headed
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
# px: of a curve, the least distance of whose points is two
WIDTH, HEIGHT = 420, 150
# px: left free above and below a curve
MARGIN = 5


class Curve(NamedTuple):
    """A figure over the steps of a training, as a line in an SVG.

    Attributes:
        title: what it is.
        points: as a ``polyline`` has them.
        steps: of the training so far.
        top: value at the upper edge.
        bottom: value at the lower edge.
        last: value of the last point.
    """

    title: str
    points: str
    steps: int
    top: float
    bottom: float
    last: float


def report(
    run: str | Path, *, judged: str | Path | None = None, optional: bool = False
) -> str | Path:
    """Write a page about a run into its directory, over an earlier one.

    Args:
        run: directory, path or URL, with results.json, losses.jsonl or both; maps.png is shown
            where there is one.
        judged: folder with the results of ``care evaluate``, path or URL: of a run without results
            of its own, those of its encoder are shown, beside all that were judged alike.
        optional: whether a page without results will do where there are none in ``judged``.

    Returns:
        The page, ``report.html``: a path, of a URL a string.

    Raises:
        CareError: The directory has neither results nor losses, or another program's results;
            ``judged`` has no result of the run's encoder, or there is no use for it.
    """
    folder = storage.locate(run)
    names = storage.listing(folder).keys()
    if not {"results.json", "losses.jsonl"} & names:
        got, hint = "holds neither results.json nor losses.jsonl", ""
        if not names and not folder.exists():
            got, hint = "does not exist", suggestion(run)
        raise CareError(
            f"{run} {got}; wanted a directory that a care command wrote its run to{hint}"
        )
    results = storage.read_json(folder / "results.json") if "results.json" in names else {}
    losses = storage.read_bytes(folder / "losses.jsonl") if "losses.jsonl" in names else b""
    maps = storage.read_bytes(folder / "maps.png") if "maps.png" in names else b""
    rows: list[Row] = []
    # a page without tables is one, too
    if not isinstance(results, dict) or "evaluations" in results:
        rows = evaluations(results, folder / "results.json")
        if judged is not None and not optional:
            raise CareError(
                f"{run} has results of its own, which its page shows; leave out {judged}"
            )
    elif judged is not None:
        rows = _rows_of_run(run, judged, optional=optional)
    settings = settings_of_pipeline(results, rows) or settings_of_run(run)
    steps = [json.loads(line) for line in losses.splitlines()]
    page = _page(results, rows, settings, steps, maps)
    # a name on the page may hold a byte that is no UTF-8
    storage.write_bytes(folder / "report.html", page.encode(errors="backslashreplace"))
    path = folder / "report.html"
    return str(path) if storage.is_remote(run) else path


def _rows_of_run(run: str | Path, judged: str | Path, *, optional: bool) -> list[Row]:
    """Evaluations of a run's encoder below a folder, beside those of others judged alike.

    Args:
        run: whose newest checkpoint has the encoder.
        judged: the folder.
        optional: whether none are an answer, which is said where there is an encoder.

    Raises:
        CareError: There are none, or the run has no encoder.
    """
    try:
        encoder = digest_of(load_encoder(run))
    except CareError:
        # what was trained is a detector, say, or nothing is saved yet
        if optional:
            return []
        raise
    try:
        return _rows_of_encoder(encoder, run, judged)
    except CareError as error:
        if not optional:
            raise
        say(f"the page has no results: {error}")
        return []


def _rows_of_encoder(encoder: str, run: str | Path, judged: str | Path) -> list[Row]:
    """Evaluations of the encoder with a digest, and those of others that were judged alike."""
    every = gather(judged)
    rows = rows_beside(every, encoder)
    if not rows:
        others = ", ".join(dict.fromkeys(result.encoder for result in read(every)))
        raise CareError(
            f"none of the {len(every)} results in {judged} is of {run} as it is now, they are of "
            f"{others}; judge it: care evaluate knn {run} --train SET --val SET"
        )
    return rows


def _page(
    results: dict[str, Any],
    rows: list[Row],
    settings: Mapping[str, str],
    losses: Sequence[dict[str, Any]],
    maps: bytes,
) -> str:
    """The page as HTML, in which what results say is text and never markup."""
    environment = Environment(
        loader=PackageLoader("care", "show"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    # of the rows, not of the file: results of an earlier version have no verdict of their own
    compared = differences(rows)
    return environment.get_template("report.html.j2").render(
        results=results,
        findings=findings(compared) if judges_care(rows) else [],
        caveat=caveat(compared),
        advice=advice(compared),
        differences=picture(compared) if compared else None,
        tables=tables(rows),
        settings=settings,
        curves=_curves(losses),
        maps=base64.b64encode(maps).decode(),
        scale=SCALE,
        width=WIDTH,
        height=HEIGHT,
    )


def _curves(losses: Sequence[dict[str, Any]]) -> list[Curve]:
    """A curve for each figure that is there and not always 0."""
    curves = []
    for key, title in CURVES.items():
        # what is measured now and then is not in every line
        values = [(step, line[key]) for step, line in enumerate(losses) if key in line]
        if any(value for _, value in values):
            curves.append(_curve(title, values, len(losses)))
    return curves


def _curve(title: str, values: Sequence[tuple[int, float]], steps: int) -> Curve:
    """A line through the means of equal parts of the values, at most one for each two pixels.

    Args:
        title: of the curve.
        values: with the steps at which they stand.
        steps: of the training so far.
    """
    length = max(len(values) * 2 // WIDTH, 1)
    parts = [values[start : start + length] for start in range(0, len(values), length)]
    means = [sum(value for _, value in part) / len(part) for part in parts]
    low, high = min(means), max(means)
    last_step = max(steps - 1, 1)
    scale = (HEIGHT - 2 * MARGIN) / ((high - low) or 1)
    points = []
    for part, mean in zip(parts, means, strict=True):
        step, _ = part[-1]
        points.append(f"{step * WIDTH / last_step:.1f},{MARGIN + (high - mean) * scale:.1f}")
    return Curve(title, " ".join(points), steps, high, low, means[-1])
