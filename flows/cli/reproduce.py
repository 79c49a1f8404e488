"""`care reproduce`: a grid of experiments, and what it says in tables and in words."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, TypeVar
import typer
from rich.console import Console
from rich.markdown import Markdown
from flows.cli.options import Json, Plain, add_command, new_app
from flows.cli.tables import print_json, table
from flows.reproduce.arms import ARMS, GROUPS
from flows.reproduce.flow import care_reproduce, checked_grid
from flows.reproduce.images import ImageChoice, grid_images
from flows.reproduce.regime import FewLabels, Judging, RegimeChoice
from flows.reproduce.runs import ArmChoice
from flows.server import run_flow
from shards import storage
from shards.errors import Failure
from shards.progress import console

# what a grid is asked for by
Choice = TypeVar("Choice", ArmChoice, RegimeChoice, FewLabels, Judging, ImageChoice)

app = new_app()
_EXAMPLES = (
    "care reproduce --arms main --seeds 0,1,2;"
    " care reproduce --images photos --epochs 50 --screen 0.2 --out screens;"
    " care reproduce --list-arms"
)


def _list_arms(wanted: bool) -> None:
    """Print the arms and their groups, and end, if that is wanted."""
    if wanted:
        table("", ("arm", "what it is"), [(name, arm.about) for name, arm in ARMS.items()])
        groups = [(name, ", ".join(arm.name for arm in arms)) for name, arms in GROUPS.items()]
        table("", ("group", "its arms"), groups)
        raise typer.Exit


def _chosen(kind: type[Choice], settings: Mapping[str, Any]) -> Choice:
    """The part of the options that is a value of a kind."""
    return kind(**{field.name: settings[field.name] for field in fields(kind)})


def _run(
    plain: Plain = False,
    list_arms: Annotated[
        bool,
        typer.Option("--list-arms", help="Print arms and groups, and end.", callback=_list_arms),
    ] = False,
    as_json: Json = False,
    **settings: Any,
) -> None:
    """Do the grid and show its tables."""
    # what is wrong is told now, not after the engine's start
    out = settings["out"]
    checked_grid(
        _chosen(ArmChoice, settings),
        _chosen(RegimeChoice, settings),
        _chosen(FewLabels, settings),
        _chosen(Judging, settings),
    )
    grid_images(_chosen(ImageChoice, settings), out)
    content = run_flow(care_reproduce, plain=plain, **settings)
    if as_json:
        print_json(content)
    else:
        Console().print(Markdown(storage.read_bytes(f"{out}/reproduce.md").decode()))
    console.print(f"tables: {storage.locate(out) / 'reproduce.md'}", soft_wrap=True)
    if content["failed"]:
        lost = ", ".join(failure["run"] for failure in content["failed"])
        raise Failure(f"failed: {lost}; all others are kept, the same command tries these again")


add_command(
    app,
    care_reproduce.fn,
    _run,
    _EXAMPLES,
    names={"objectives": "--objective", "evaluations": "--evaluate"},
    name="reproduce",
)
