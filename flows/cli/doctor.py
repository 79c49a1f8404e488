"""`care doctor`: what this installation can do, and what is missing for what."""

from itertools import groupby
from operator import attrgetter
from typing import Annotated
import typer
from flows.cli.options import Json, new_app
from flows.cli.tables import print_json, table
from flows.doctor import Check, examine

app = new_app()


@app.command()
def doctor(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PLACES]...", help="Folders, also URLs, in which a file is written and read."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Versions, devices, formats, stores and the engine: what is there, and what is missing.

    Exits with 1 if a command would fail, not where something is missing that may be installed.

    Example: care doctor s3://bucket/runs
    """
    checks = [*examine(*(places or ()))]
    if as_json:
        print_json([check._asdict() for check in checks])
    else:
        for group, members in groupby(checks, key=attrgetter("group")):
            table(group, ("", "", ""), [_cells(check) for check in members])
    if any(check.state == "fault" for check in checks):
        raise typer.Exit(1)


def _cells(check: Check) -> tuple[str, str, str]:
    return check.name, check.state, check.text
