"""What commands print: tables, and JSON on standard output."""

import json
from collections.abc import Sequence
from typing import Any
import typer
from shards.printable import printable


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; columns with % in their name are numbers.

    Args:
        title: above it.
        columns: their headings.
        rows: their cells, whose line ends are ours; whatever else is not seen is escaped.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    printed = Table(
        title=Text(printable(title)) if title else None,
        title_justify="left",
        show_header=any(columns),
    )
    for column in columns:
        printed.add_column(column, justify="right" if "%" in column else "left", overflow="fold")
    for row in rows:
        printed.add_row(*(Text(printable(cell, keep="\n")) for cell in row))
    Console().print(printed)


def print_json(value: Any) -> None:
    """Print machines' output."""
    typer.echo(json.dumps(value, indent=1, sort_keys=True))


def show_results(rows: Sequence[dict[str, Any]], as_json: bool = False) -> None:
    """Print evaluations.

    Args:
        rows: as in results.json.
        as_json: as they are, not as a verdict and tables.
    """
    if as_json:
        print_json(rows)
        return
    from care.show.results import tables
    from care.show.verdict import verdict

    verdict_text = verdict(rows)
    if verdict_text:
        typer.echo(f"{verdict_text}\n")
    for shown in tables(rows):
        headings = [_broken(heading) for heading in shown.headings]
        table("", ("task and encoder", *headings), _lines(shown.lines))
        protocols = [f"{task}: {protocol}" for task, protocol in shown.protocols.items()]
        typer.secho("\n".join(protocols), dim=True)


def show_ranks(rows: Sequence[dict[str, Any]], as_json: bool = False) -> None:
    """Print how alike label-free measures and scores rank encoders, as Kendall's τ.

    Args:
        rows: as in results.json.
        as_json: with Spearman's ρ, not as a table.
    """
    from care.show.rank_correlation import rank_correlations
    from care.show.rows import LABEL_FREE, MEASURES

    correlations = rank_correlations(rows)
    if as_json:
        print_json([correlation._asdict() for correlation in correlations])
        return
    lines = dict[tuple[str, str, int], dict[str, str]]()
    for task, quality, measure, encoders, kendall, _ in correlations:
        tau = "–" if kendall is None else f"{kendall:+.2f}"
        lines.setdefault((task, quality, encoders), {})[measure] = tau
    headings = [MEASURES[name].removesuffix(" %") for name in LABEL_FREE]
    printed = []
    for (task, quality, encoders), taus in lines.items():
        figures = [taus.get(name, "–") for name in LABEL_FREE]
        printed.append([f"{task}\n  {encoders} encoders", *figures])
        if len({quality for _, quality, _ in lines}) > 1:
            printed[-1][0] += f"\n  {quality}"
    table("Kendall's τ: 1 is the order of the score, 0 none", ("score", *headings), printed)


def _broken(heading: str) -> str:
    """A heading on two lines where it names several measures."""
    return heading.replace(" AP", "\nAP").replace(" top", "\ntop")


def _lines(lines: Sequence[tuple[str, str, Sequence[str], bool]]) -> list[list[str]]:
    """Lines of a table of results, each task's below a line of its own."""
    printed: list[list[str]] = []
    task_above = ""
    for task, encoder, values, _ in lines:
        if task != task_above:
            printed.append([task, *[""] * len(values)])
            task_above = task
        printed.append([f"  {encoder}", *values])
    return printed
