"""`care watch`: how a training goes, seen while it does, from its files alone."""

import sys
import time
from typing import Annotated, Any
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from care.show.run_progress import RunFollower, RunProgress
from care.show.sparkline import sparkline
from flows.cli.options import Json, new_app
from flows.cli.tables import print_json
from shards import storage
from shards.errors import Stopped
from shards.printable import printable

app = new_app()
# seconds between two looks at a disk, and at an object store, where each costs some requests
SECONDS, SECONDS_OF_URL = 2.0, 20.0
CURVE_WIDTH = 32
# how the numbers of a log are called
NAMES = {
    "cnn": "C-stream loss",
    "transformer": "T-stream loss",
    "attention": "attention loss",
    "total": "total loss",
    "spread": "spread",
    "lr": "learning rate",
    "knn": "kNN, top-1 %",
    "agreement": "agreement, %",
    "rankme": "RankMe",
    "lidar": "LiDAR",
    "alignment": "alignment",
    "uniformity": "uniformity",
}
_COLOURS = {"running": "cyan", "done": "green", "stopped": "yellow", "failed": "red"}


@app.command()
def watch(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Directory of a training, path or URL.")
    ],
    once: Annotated[bool, typer.Option("--once", help="Show how it is now, and end.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(min=0.1, help="Between two looks; by default 2, of a URL 20."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Watch a training: losses, verdicts, images a second, the time that is left.

    It reads the run's files alone, so it may be another terminal or another machine, and it ends
    when the run does, with its exit code. Ctrl-C ends watching, not the training. At a URL there is
    what the last checkpoint has brought there. A spread of 1 is healthy, 0 is collapse; verdicts
    are there with --probe or --knn-every, and of alignment and uniformity less is better.

    Example: care watch runs/r50
    """
    follower = RunFollower(run)
    progress = follower.look()
    if as_json:
        print_json(progress._asdict())
        return
    if not once:
        pause = seconds or (SECONDS_OF_URL if storage.is_remote(run) else SECONDS)
        progress = _follow(run, follower, progress, pause)
    Console().print(_picture(run, progress))
    if not once:
        _exit_as(progress)


def _follow(run: str, follower: RunFollower, progress: RunProgress, pause: float) -> RunProgress:
    """Show a run until it ends or somebody has seen enough, and say how it was last."""
    try:
        with Live(_picture(run, progress), auto_refresh=False, transient=True) as live:
            while not progress.has_ended:
                time.sleep(pause)
                progress = follower.look()
                live.update(_picture(run, progress), refresh=True)
    except KeyboardInterrupt:
        pass
    return progress


def _exit_as(progress: RunProgress) -> None:
    """End as the run did; one that goes on is no failure."""
    if progress.state in ("failed", "killed"):
        sys.exit(1)
    if progress.state == "stopped":
        sys.exit(Stopped.code)


def _picture(run: str, progress: RunProgress) -> Group:
    """What is shown of a run."""
    state = progress.state or "no word of how it is"
    heading = Text(printable(run), style="bold")
    heading.append(f"  {state}", style=_COLOURS.get(progress.state, "red"))
    parts: list[Any] = [heading]
    if progress.message:
        parts.append(Text(printable(progress.message)))
    parts.append(Text(_pace(progress)))
    if progress.figures:
        parts.append(_curves(progress))
    return Group(*parts)


def _pace(progress: RunProgress) -> str:
    """How far it is and how fast, in a line."""
    total = "" if progress.total is None else f" of {progress.total:,}"
    facts = [f"step {progress.steps:,}{total}"]
    if progress.images_per_second is not None:
        facts.append(f"{progress.images_per_second:,.1f} images/s")
    if progress.data_wait is not None:
        facts.append(f"waiting for data {progress.data_wait:.0%}")
    if progress.seconds_left is not None and not progress.has_ended:
        facts.append(f"{_duration(progress.seconds_left)} left")
    return ", ".join(facts)


def _duration(seconds: float) -> str:
    """A time in hours and minutes, or in seconds."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _curves(progress: RunProgress) -> Table:
    """A line for each number of the log: its curve, where it began and where it is."""
    curves = Table(box=None, pad_edge=False)
    curves.add_column("")
    curves.add_column("over the steps", no_wrap=True)
    curves.add_column("first", justify="right")
    curves.add_column("now", justify="right")
    for name, values in progress.figures.items():
        curves.add_row(
            Text(printable(NAMES.get(name, name))),
            sparkline(values, CURVE_WIDTH),
            f"{values[0]:.4g}",
            f"{values[-1]:.4g}",
        )
    return curves
