"""What is typed and seen: options from their function's keywords, types, defaults and docstring; a bar, or plain lines, of long work."""

import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from shards.errors import Failure, Stopped

console = Console(stderr=True, highlight=False)
PLAIN_SECONDS = float(os.environ.get("CARE_PROGRESS_SECONDS", "10"))  # between two plain lines
LINE = re.compile(r"(.+): (\d+)/(\d+), (.*), ETA \d+ s")  # such a line


class Range(NamedTuple):
    """The numbers that an annotation admits."""

    min: float | None = None
    max: float | None = None


Count = Annotated[int, Range(1)]
Batch = Annotated[int, Range(2)]  # images of which a batch norm has statistics
Side = Annotated[int, Range(16)]  # pixels
Natural = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
Amount = Annotated[float, Range(0)]
Positive = Annotated[float, Range(1e-9)]


def words(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """A Google-style docstring: what comes before its ``Args:``, and what those say, by name."""
    said, _, rest = (inspect.getdoc(function) or "").replace("``", "").partition("\n\nArgs:\n")
    found = re.findall(
        r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", rest.partition("\n\n")[0], re.MULTILINE
    )  # with the lines indented deeper
    return said, {name: re.sub(r"\s+", " ", text[:1].upper() + text[1:]) for name, text in found}


def command(
    app: typer.Typer,
    function: Callable[..., Any],
    run: Callable[..., None],
    example: str,
    *,
    skip: Collection[str] = (),
    names: Mapping[str, str] | None = None,
    name: str = "",
) -> None:
    """Add ``run``, which gets them beside its own parameters, as a command with ``function``'s name, docstring, keywords but ``skip``."""
    given = [
        one.replace(kind=one.KEYWORD_ONLY)
        for one in inspect.signature(run).parameters.values()
        if one.kind is not one.VAR_KEYWORD
    ]
    kinds, hints, (about, said) = (
        get_type_hints(function),
        get_type_hints(function, include_extras=True),
        words(function),
    )
    for option, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or option in skip:
            continue
        kind, default = kinds[option], parameter.default
        marks = (
            mark
            for part in (hints[option], *get_args(hints[option]))
            for mark in getattr(part, "__metadata__", ())
        )
        settings: dict[str, Any] = {
            "help": said[option],
            **next((mark for mark in marks if isinstance(mark, Range)), Range())._asdict(),
        }
        members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if numbers := next((member for member in members if get_origin(member) is tuple), None):
            of_each = get_args(numbers)[0]
            settings |= {"parser": lambda text, of=of_each: _numbers(text, of)}
            settings |= {"metavar": "NAME,…" if of_each is str else "NUMBER,…"}
            spec = "" if of_each is str else "g"
            default = default and ",".join(format(value, spec) for value in default)
        if numbers or Path in members:
            kind = str | None if type(None) in members else str
        declared = typer.Option(*([names[option]] if names and option in names else []), **settings)
        given.append(parameter.replace(default=default, annotation=Annotated[kind, declared]))
    run.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    about, bare = (
        re.sub(r"(?<!\n)\n(?!\n)", " ", about),
        all(one.default is not one.empty for one in given),
    )
    app.command(
        name or function.__name__,
        help=about,
        epilog=f"Example: {example}",
        no_args_is_help=not bare,
    )(run)


def _numbers(text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(map(kind, text.split(","))) if isinstance(text, str) else text
    except ValueError:
        raise typer.BadParameter(f"wanted numbers with commas between them, got {text!r}") from None


def caused(error: BaseException | None, *kinds: type[BaseException]) -> bool:
    """Whether an exception is one of those, or was raised in the handling of one."""
    while error and not isinstance(error, kinds):
        error = error.__context__
    return error is not None


@contextmanager
def told() -> Iterator[None]:
    """End the process by a ``Failure``, an ``OSError`` or a Ctrl-C in the block as a command does: by a message and an exit code."""
    try:
        yield
    except (Failure, OSError) as error:
        code, message = error.code if isinstance(error, Failure) else 1, str(error)
    except SystemExit as ended:
        if not caused(
            ended, KeyboardInterrupt
        ):  # of which Typer makes an exit with a code of its own
            raise
        code, message = Stopped.code, "finished work is kept, the same command continues"
    else:
        return
    stopped = code == Stopped.code
    typer.secho(
        f"{'stopped' if stopped else 'error'}: {message}",
        fg="yellow" if stopped else "red",
        err=True,
    )
    # torchrun takes any other code for a crash; it is asked to stop, and the run's status says that it was
    sys.exit(0 if stopped and "TORCHELASTIC_RUN_ID" in os.environ else code)


@contextmanager
def progress(title: str, total: int, *, start: int = 0) -> Iterator[Callable[[int, str], None]]:
    """Yield ``advance(n, note="")``: ``n`` of ``total`` images more are done (``start`` before), ``note`` is shown beside the rate."""
    done, began = start, time.monotonic()
    last, columns = (
        began,
        (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.fields[status]}"),
    )
    bar = Progress("{task.description}", *columns, console=console, disable=not console.is_terminal)
    task = bar.add_task(title, total=total, completed=start, status="")

    def advance(n: int, note: str = "") -> None:
        nonlocal done, last
        done, now = done + n, time.monotonic()
        rate = (done - start) / max(now - began, 1e-9)
        status = f"{rate:,.{0 if rate >= 10 else 2}f} img/s {note}".rstrip()
        bar.update(task, completed=done, status=status)
        if not console.is_terminal and (now - last >= PLAIN_SECONDS or done >= total):
            last = now
            eta = (total - done) * (now - began) / max(done - start, 1)
            print(
                f"{title}: {done}/{total}, {status}, ETA {eta:.0f} s", file=sys.stderr, flush=True
            )

    with bar:
        yield advance
