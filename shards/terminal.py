"""What is typed and seen: options from their function's keywords, types, defaults and docstring; a bar, or plain lines, of long work."""

import inspect
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
import typer
from shards.bounds import BatchSize as Batch
from shards.bounds import Fraction as Share
from shards.bounds import NonNegativeFloat as Amount
from shards.bounds import NonNegativeInt as Natural
from shards.bounds import PixelSide as Side
from shards.bounds import PositiveFloat as Positive
from shards.bounds import PositiveInt as Count
from shards.bounds import Range
from shards.errors import Failure, Stopped
from shards.progress import console, progress

__all__ = [
    "LINE",
    "Amount",
    "Batch",
    "Count",
    "Natural",
    "Positive",
    "Range",
    "Share",
    "Side",
    "caused",
    "command",
    "console",
    "progress",
    "told",
    "words",
]

LINE = re.compile(r"(.+): (\d+)/(\d+), (.*), ETA \d+ s")  # use shards.progress.parse_progress


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
