"""What the commands share: options, tables, JSON on standard output."""

import json
from collections.abc import Sequence
from typing import Annotated, Any
import typer

Result = dict[
    str, Any
]  # JSON; ``outputs``, where a stage's has any, are digests by path below the run directory
Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
Seed = Annotated[int, typer.Option(min=0, help="Fixes everything random.")]
Set = Annotated[
    str, typer.Argument(metavar="SET", help="A shard set: the DEST of `care shards build`.")
]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; columns with % in their name are numbers."""
    from rich.console import Console
    from rich.table import Table

    printed = Table(title=title or None, title_justify="left", show_header=any(columns))
    for column in columns:
        printed.add_column(column, justify="right" if "%" in column else "left", overflow="fold")
    for row in rows:
        printed.add_row(*row)
    Console().print(printed)


def print_json(value: Any) -> None:
    """Print machines' output."""
    typer.echo(json.dumps(value, indent=1, sort_keys=True))


def show_results(rows: Sequence[dict[str, Any]], value: Any = None) -> None:
    """Print evaluation rows as a verdict and tables, or ``value`` as JSON where there is one."""
    if value is not None:
        print_json(value)
        return
    from care.show.results import tables
    from care.show.verdict import verdict

    verdict_text = verdict(rows)
    if verdict_text:
        typer.echo(f"{verdict_text}\n")
    for one in tables(rows):
        lines = list[list[str]]()
        for (task, encoder, values, _), (above, *_) in zip(
            one.lines, [("",), *one.lines], strict=False
        ):
            lines += [[task, *[""] * len(values)]] * (task != above) + [[f"  {encoder}", *values]]
        table(
            "",
            (
                "task and encoder",
                *(name.replace(" AP", "\nAP").replace(" top", "\ntop") for name in one.headings),
            ),
            lines,
        )
        typer.secho(
            "\n".join(f"{task}: {protocol}" for task, protocol in one.protocols.items()), dim=True
        )
