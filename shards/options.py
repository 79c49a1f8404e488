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
    """Add ``run`` to ``app`` as the command of ``function``, whose docstring is its help.

    Args:
        app: the commands.
        function: its keyword-only parameters are options that ``run`` gets as further keywords; a tuple is numbers and commas.
        run: its own parameters are Typer's.
        example: a command line.
        skip: keywords that are no options.
        names: options that are not called as their keyword.
    """
    own = [one for one in inspect.signature(run).parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    given = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own] + options(function, skip, names or {})

    def called(**values: Any) -> None:
        run(**values)

    called.__signature__ = inspect.Signature(given)  # type: ignore[attr-defined]
    said = re.sub(r"(?<!\n)\n(?!\n)", " ", words(function)[0])
    app.command(function.__name__, help=said, epilog=f"Example: {example}", no_args_is_help=True)(called)


def options(function: Callable[..., Any], skip: Collection[str], names: Mapping[str, str]) -> list[inspect.Parameter]:
    """The keyword-only parameters of ``function`` as Typer's."""
    found, (_, said) = [], words(function)
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name in skip:
            continue
        kind, limits = hints[name], Range()
        inner = next((part for part in get_args(kind) if get_origin(part) is Annotated), kind)  # Annotated[…] | None
        if get_origin(inner) is Annotated:
            limits = next((mark for mark in inner.__metadata__ if isinstance(mark, Range)), limits)
            kind = inner.__origin__ | None if inner is not kind else inner.__origin__
        given: dict[str, Any] = {"help": said[name], **limits._asdict()}
        default, members = parameter.default, get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if kind_of_tuple := next((member for member in members if get_origin(member) is tuple), None):
            given |= {"parser": _numbers(get_args(kind_of_tuple)[0]), "metavar": "NUMBER,…"}
            kind, default = (str | None if type(None) in members else str), default and ",".join(f"{value:g}" for value in default)
        elif Path in members:
            kind = str | None if type(None) in members else str
        option = typer.Option(*([names[name]] if name in names else []), **given)
        found.append(parameter.replace(default=default, annotation=Annotated[kind, option]))
    return found


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def numbers(text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in text.split(",")) if isinstance(text, str) else text
        except ValueError:
            raise typer.BadParameter(f"wanted numbers with commas between them, got {text!r}") from None

    return numbers
