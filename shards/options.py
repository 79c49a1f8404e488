"""Command-line options from the function they are for: its keywords' types and defaults, its docstring's words."""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import typer


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
    found, name = dict[str, str](), ""
    for line in rest.partition("\n\n")[0].splitlines():
        if line[:4].isspace() and not line[4:5].isspace():
            name, _, line = line.strip().partition(": ")
        found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return said, {name: text[:1].upper() + text[1:] for name, text in found.items()}


def command(
    app: typer.Typer, function: Callable[..., Any], run: Callable[..., None], example: str, *, skip: Collection[str] = (),
    names: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Add ``run``, which gets them beside its own parameters, as the command with ``function``'s docstring and keywords but ``skip``."""
    given = [one.replace(kind=one.KEYWORD_ONLY) for one in inspect.signature(run).parameters.values() if one.kind is not one.VAR_KEYWORD]
    kinds, hints, (about, said) = get_type_hints(function), get_type_hints(function, include_extras=True), words(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY or name in skip:
            continue
        kind, default = kinds[name], parameter.default
        marks = (mark for part in (hints[name], *get_args(hints[name])) for mark in getattr(part, "__metadata__", ()))
        settings: dict[str, Any] = {"help": said[name], **next((mark for mark in marks if isinstance(mark, Range)), Range())._asdict()}
        members = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if kind_of_tuple := next((member for member in members if get_origin(member) is tuple), None):
            settings |= {"parser": _numbers(get_args(kind_of_tuple)[0]), "metavar": "NUMBER,…"}
            kind, default = (str | None if type(None) in members else str), default and ",".join(f"{value:g}" for value in default)
        elif Path in members:
            kind = str | None if type(None) in members else str
        option = typer.Option(*([names[name]] if names and name in names else []), **settings)
        given.append(parameter.replace(default=default, annotation=Annotated[kind, option]))
    run.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    about = re.sub(r"(?<!\n)\n(?!\n)", " ", about)
    app.command(function.__name__, help=about, epilog=f"Example: {example}", no_args_is_help=True)(run)


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def numbers(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in text.split(",")) if isinstance(text, str) else text
        except ValueError:
            raise typer.BadParameter(f"wanted numbers with commas between them, got {text!r}") from None

    return numbers
