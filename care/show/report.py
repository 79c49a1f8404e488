"""One self-contained HTML page about a run: verdict, tables, pictures, curves, settings.

The page is made from the files of a run alone, and says the same of results of any age.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from jinja2 import Environment, PackageLoader
from care.errors import CareError
from care.show import embedding
from care.show.comparison import differences
from care.show.curves import HEIGHT, WIDTH, curves
from care.show.embedding import Scatter
from care.show.groups import rows_beside
from care.show.page_pictures import PagePicture, pictures_of
from care.show.paper import paper_rows
from care.show.results import evaluations, gather, tables
from care.show.rows import Row, read
from care.show.run_settings import command_of_run, settings_of_pipeline, settings_of_run
from care.show.set_contents import sets_of_run
from care.show.verdict import advice, caveat, findings, judges_care
from care.show.whiskers import picture
from care.train import load_encoder
from care.train.weights import digest_of
from shards import storage
from shards.misspelt import suggestion
from shards.progress import say


def report(
    run: str | Path, *, judged: str | Path | None = None, optional: bool = False
) -> str | Path:
    """Write a page about a run into its directory, over an earlier one.

    Args:
        run: directory, path or URL, with results.json, losses.jsonl or both. The pictures of
            ``care.show.page_pictures`` and an ``embedding.json`` are shown where they are there.
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
    if not results and settings:
        results = {"sets": sets_of_run(run), "command": command_of_run(run)}
    steps = [json.loads(line) for line in losses.splitlines()]
    pictures = pictures_of(run, names, [result.encoder for result in read(rows)])
    plane = None
    if embedding.FILE in names:
        plane = embedding.scatter(storage.read_json(folder / embedding.FILE))
    page = _page(results, rows, settings, steps, pictures, plane)
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
    pictures: Sequence[PagePicture],
    plane: Scatter | None,
) -> str:
    """The page as HTML, in which what results say is text and never markup."""
    environment = Environment(
        loader=PackageLoader("care", "show"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    # of the rows, not of the file: results of an earlier version have no verdict of their own
    compared = differences(rows)
    return environment.get_template("report.html.j2").render(
        style=environment.get_template("report.css").render(),
        results=results,
        findings=findings(compared) if judges_care(rows) else [],
        caveat=caveat(compared),
        advice=advice(compared),
        differences=picture(compared) if compared else None,
        tables=tables(rows),
        paper=tables(paper_rows(rows)),
        settings=settings,
        curves=curves(losses),
        pictures=pictures,
        scatter=plane,
        plane=(embedding.WIDTH, embedding.HEIGHT),
        width=WIDTH,
        height=HEIGHT,
    )
