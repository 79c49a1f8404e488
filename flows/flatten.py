"""Frozen values in a function's signature, taken apart for those who know only plain options.

The command line, the forms of Prefect's pages and the inputs of a stage have names and plain
values; a function may take what belongs together as one frozen dataclass, as ``machine: Machine``.
Here the fields become parameters of their own, with the help of the value's docstring, and are put
together again before the call. All is read from signatures, annotations and docstrings in Google's
style.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.MULTILINE)  # with what is indented deeper
_SECTION = re.compile(r"(?:^|\n\n)(?:Args|Attributes):\n")


def flat_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Keyword-only parameters by name, with the fields of frozen values in the values' place.

    Args:
        function: whose annotations can be resolved. The fields of a value have the default that the
            parameter's own default gives them, or else that of their class.

    Returns:
        Keyword-only parameters in the order of the signature, annotated with types, not with their
        names, and with the marks of ``Annotated``.

    Raises:
        TypeError: Two parameters have one name.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for parameter in _keywords(function):
        value_class = _value_class(parameter.annotation)
        fields = [parameter]
        if value_class is not None:
            fields = _fields(value_class, parameter.default)
        for field in fields:
            if field.name in parameters:
                raise TypeError(f"{function.__name__} has two parameters {field.name}")
            parameters[field.name] = field
    return parameters


def flat_help(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstrings of a function and of its values say of each parameter, by name."""
    help_texts = parse_docstring(function)[1]
    of_fields: dict[str, str] = {}
    for parameter in _keywords(function):
        value_class = _value_class(parameter.annotation)
        if value_class is not None:
            help_texts.pop(parameter.name, None)
            of_fields |= parse_docstring(value_class)[1]
    return help_texts | of_fields


def gathered(function: Callable[..., Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments for a function, with its values put together of their fields.

    Args:
        function: whose parameters these are.
        flat: by name; what is not given has its default. Lists, which stand for tuples in JSON,
            become tuples where a field has one.

    Returns:
        ``flat`` without the fields and with the values. A value that may be None, and is by
        default, stays so where no field differs from its default. A value that is given as it is
        stays, too.
    """
    arguments = dict(flat)
    values: dict[str, Any] = {}
    for parameter in _keywords(function):
        value_class = _value_class(parameter.annotation)
        if value_class is None or isinstance(flat.get(parameter.name), value_class):
            continue
        fields = {}
        for field in _fields(value_class, parameter.default):
            if field.name in arguments:
                fields[field.name] = _as_annotated(arguments.pop(field.name), field.annotation)
        if parameter.default is parameter.empty:
            values[parameter.name] = value_class(**fields)
        elif parameter.default is not None:
            values[parameter.name] = dataclasses.replace(parameter.default, **fields)
        elif _differs(value_class, fields):
            values[parameter.name] = value_class(**fields)
    return arguments | values


def flattened(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with its flat parameters, in its signature and in its docstring.

    Raises:
        TypeError: Two parameters have one name.
    """
    signature = inspect.signature(function)
    parameters = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.kind is not parameter.KEYWORD_ONLY
    ]
    parameters += flat_parameters(function).values()

    @functools.wraps(function)
    def flat_function(*arguments: Any, **flat: Any) -> Any:
        return function(*arguments, **gathered(function, flat))

    annotations = {parameter.name: parameter.annotation for parameter in parameters}
    flat_function.__annotations__ = function.__annotations__ | annotations
    flat_function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=parameters
    )
    flat_function.__doc__ = _flat_docstring(function, [parameter.name for parameter in parameters])
    return flat_function


def parse_docstring(documented: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Read a docstring in Google's style, of a function or a class.

    Returns:
        What comes before its ``Args:`` or ``Attributes:``, and what those say, by name.
    """
    text = (inspect.getdoc(documented) or "").replace("``", "")
    about, *sections = _SECTION.split(text, maxsplit=1)
    entries = _ENTRY.findall(sections[0].partition("\n\n")[0]) if sections else []
    return about, {name: _sentence(entry) for name, entry in entries}


def admitted_types(annotation: Any) -> list[Any]:
    """What an annotation admits: the types of a union, without the marks of ``Annotated``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return admitted_types(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [part for member in get_args(annotation) for part in admitted_types(member)]
    return [annotation]


def _keywords(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """Keyword-only parameters, their annotations resolved."""
    hints = get_type_hints(function, include_extras=True)
    return [
        parameter.replace(annotation=hints.get(parameter.name, parameter.annotation))
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]


def _value_class(annotation: Any) -> type[Any] | None:
    """The frozen dataclass that an annotation admits, if it does."""
    for member in admitted_types(annotation):
        if isinstance(member, type) and dataclasses.is_dataclass(member):
            is_frozen = member.__dataclass_params__.frozen  # type: ignore[attr-defined]
            return member if is_frozen else None
    return None


def _fields(value_class: type[Any], value: Any) -> list[inspect.Parameter]:
    """The fields of a value as keyword-only parameters, whose defaults are what it holds."""
    hints = get_type_hints(value_class, include_extras=True)
    parameters = []
    for field in dataclasses.fields(value_class):
        if isinstance(value, value_class):
            default = getattr(value, field.name)
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            default = field.default
        else:
            default = inspect.Parameter.empty
        parameters.append(
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=hints[field.name],
            )
        )
    return parameters


def _as_annotated(value: Any, annotation: Any) -> Any:
    """A field's value, again a tuple where JSON had to make a list of it."""
    holds_tuple = any(get_origin(member) is tuple for member in admitted_types(annotation))
    return tuple(value) if holds_tuple and isinstance(value, list) else value


def _differs(value_class: type[Any], values: Mapping[str, Any]) -> bool:
    """Whether any of these is not the default of its field."""
    defaults = {field.name: field.default for field in _fields(value_class, None)}
    return any(value != defaults[name] for name, value in values.items())


def _sentence(text: str) -> str:
    """What a docstring says of an argument, on one line and with a capital."""
    # λ is a symbol: it has no capital
    first = text[:1].upper() if text[:1].isascii() else text[:1]
    return re.sub(r"\s+", " ", first + text[1:])


def _flat_docstring(function: Callable[..., Any], names: Iterable[str]) -> str:
    """A function's docstring, up to its arguments, and what there is to say of these parameters."""
    about = parse_docstring(function)[0]
    help_texts = flat_help(function)
    lines = [f"    {name}: {help_texts[name]}" for name in names if name in help_texts]
    return "\n".join((f"{about}\n\nArgs:", *lines)) if lines else about
