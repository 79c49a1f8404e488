"""Options of a command from the signature and the docstring of the function that it is for.

A keyword-only parameter is an option with its type, bounds, default and help; a tuple is typed with
commas between its elements, and a path may be a URL.
"""

import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin
import typer
from typer.core import TyperGroup
from flows.flatten import admitted_types, flat_help, flat_parameters, parse_docstring
from shards.bounds import Range, TypedAs
from shards.errors import Failure

Mark = TypeVar("Mark")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
Plain = Annotated[bool, typer.Option("--plain", help="Without Prefect.")]
Seed = Annotated[int, typer.Option(min=0, help="Fixes everything random.")]
SetPath = Annotated[
    str, typer.Argument(metavar="SET", help="A shard set: the DEST of `care shards build`.")
]


class Group(TyperGroup):
    """A group of commands whose help has each command's first paragraph, not cut short."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of a name, with that paragraph as what a list says of it."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and not command.short_help:
            command.short_help = " ".join((command.help or "").partition("\n\n")[0].split())
        return command


def new_app(
    about: str | None = None,
    *,
    cls: type[TyperGroup] = Group,
    add_completion: bool = False,
    **settings: Any,
) -> typer.Typer:
    """A group of commands, or a single one, that shows tracebacks as Python does.

    Help is plain text: in boxes of 80 columns names are cut, and their texts are a word wide.

    Args:
        about: help of the group.
        cls: class of the group.
        add_completion: whether it has the options that install the completion of all commands.
        **settings: further ones of ``typer.Typer``.
    """
    return typer.Typer(
        help=about,
        cls=cls,
        add_completion=add_completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


def add_command(  # noqa: PLR0913 (keywords; each is what one command says of itself)
    app: typer.Typer,
    function: Callable[..., Any],
    run: Callable[..., None],
    example: str,
    *,
    values: Sequence[type[Any]] = (),
    skip: Collection[str] = (),
    required: Collection[str] = (),
    names: Mapping[str, str] | None = None,
    name: str = "",
    about: str = "",
) -> None:
    """Add a command with the keyword-only parameters of a function as its options.

    Args:
        app: where it is added.
        function: gives the command its name, help and options; it is not called here.
        run: what the command does. Its own parameters are options, too, and come first, also in the
            place of the function's of the same name; it gets the others as further keywords.
        example: how the command is typed.
        values: frozen dataclasses whose fields are options, too, and come next, also in the place
            of the function's of the same name.
        skip: parameters of the function, or of ``run``, that are no options.
        required: parameters of ``run`` that have to be typed, though it has a default for calls
            that skip them.
        names: the options' names by parameter, where these differ.
        name: of the command, where it is not the function's.
        about: its help, where it is not the function's.

    Raises:
        KeyError: The docstring says nothing of a parameter.
    """
    about = about or parse_docstring(function)[0]
    options = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(run).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in skip
    ]
    options = [
        option.replace(default=option.empty) if option.name in required else option
        for option in options
    ]
    hidden = {*skip, *(option.name for option in options)}
    sources: list[Callable[..., Any]] = [*values, function]
    for documented in sources:
        help_texts = flat_help(documented)
        for parameter in flat_parameters(documented).values():
            if parameter.name not in hidden:
                flag = (names or {}).get(parameter.name)
                options.append(_option(parameter, help_texts[parameter.name], flag))
                hidden.add(parameter.name)
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    app.command(
        name or function.__name__,
        help=re.sub(r"(?<!\n)\n(?!\n)", " ", about),
        epilog=f"Example: {example}",
        no_args_is_help=any(option.default is option.empty for option in options),
    )(run)


def _option(parameter: inspect.Parameter, text: str, flag: str | None) -> inspect.Parameter:
    """A parameter as Typer wants it.

    Args:
        parameter: with its annotation resolved.
        text: its help.
        flag: how the option is typed; by default as the parameter is called.
    """
    kinds = admitted_types(parameter.annotation)
    bounds = _mark(parameter.annotation, Range) or Range()
    settings: dict[str, Any] = {"help": text, **bounds._asdict()}
    default = parameter.default
    form = _mark(parameter.annotation, TypedAs)
    if form is not None:
        settings |= {"parser": form_parser(form), "metavar": form.metavar}
    elements = [get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple]
    if elements:
        (element,) = admitted_types(elements[0])
        settings["parser"] = _list_parser(element)
        settings["metavar"] = "NAME,…" if element is str else "NUMBER,…"
        if default:
            default = ",".join(format(value, "" if element is str else "g") for value in default)
    if elements or form is not None or Path in kinds:
        # a Path would make s3:/bucket of s3://bucket
        kinds = [str, type(None)] if type(None) in kinds else [str]
    option = typer.Option(*([flag] if flag else []), **settings)
    kind: Any = Union[tuple(kinds)]  # noqa: UP007 (they are known when this runs)
    return parameter.replace(default=default, annotation=Annotated[kind, option])


def _mark(annotation: Any, kind: type[Mark]) -> Mark | None:
    """The first mark of a kind of an annotation, or of a type in its union."""
    for part in (annotation, *get_args(annotation)):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, kind):
                return mark
    return None


def form_parser(form: TypedAs) -> Callable[[Any], Any]:
    """A parser of values of a form, which says what was wanted where something is none.

    Args:
        form: how they are typed.
    """

    def parse(text: Any) -> Any:
        try:
            return form.parse(text)
        except Failure as error:
            raise typer.BadParameter(str(error)) from None

    return parse


def _list_parser(element: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Reads the elements of a tuple that are typed with commas between them."""

    def parse(text: Any) -> Any:
        if not isinstance(text, str):
            return text
        try:
            return tuple(element(part) for part in text.split(","))
        except ValueError:
            message = f"wanted numbers with commas between them, got {text!r}"
            raise typer.BadParameter(message) from None

    return parse
