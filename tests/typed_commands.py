"""Commands as they stand in texts: parsed as `care` does, without being run."""

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any
import typer
from typer.main import get_command
from flows.cli.root import _LAZY, app

# typer has a click of its own
UsageError = typer.BadParameter.__mro__[1]


@cache
def all_commands() -> dict[str, Any]:
    """The commands that `care` has, also those that it imports when they are called."""
    lazy = {name: get_command(import_module(place.module).app) for name, place in _LAZY.items()}
    return get_command(app).commands | lazy


def every_command() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its whole name."""
    waiting = list(all_commands().items())
    while waiting:
        name, command = waiting.pop()
        if hasattr(command, "commands"):
            waiting += [(f"{name} {part}", of_part) for part, of_part in command.commands.items()]
        else:
            yield name, command


def find_command(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that words begin with, and the words behind it.

    Args:
        words: after `care`.
    """
    commands, rest = all_commands(), [*words]
    command = commands[rest.pop(0)]
    while hasattr(command, "commands") and rest:
        command = command.commands[rest.pop(0)]
    return command, rest


def options_of(command: Any) -> set[str]:
    """How the options of a command may be typed."""
    options = {"--help"}
    for parameter in command.params:
        options |= {*parameter.opts, *parameter.secondary_opts}
    return options


def parse(line: str) -> None:
    """Parse a command line with its options and values; nothing of it is done.

    Raises:
        UsageError: `care` would refuse it.
    """
    command, rest = find_command(shlex.split(line)[1:])
    with suppress(typer.Exit), command.make_context("care", rest):
        pass


def lines_of(text: str) -> Iterator[str]:
    """The command lines of `care` in the shell blocks of a page, with the blocks' variables."""
    blocks = "\n".join(re.findall(r"(?ms)^```sh\n(.*?)^```", text)).replace("\\\n", " ")
    variables = dict(re.findall(r'(?m)^(\w+)="([^"]*)"', blocks))
    for name, value in variables.items():
        blocks = blocks.replace(f"${name}", value)
    for line in blocks.splitlines():
        for part in re.split(r"&&|;", line.partition(" #")[0]):
            if part.split()[:1] == ["care"]:
                yield part.strip()


def mentions(text: str) -> Iterator[tuple[str, Any, list[str]]]:
    """What sentences say of commands: the words, the command, and the options named with it."""
    for match in re.finditer(r"\bcare ((?:[a-z]+ ?)+)([^;\n`]*)", text):
        words = match[1].split()
        if words[0] not in all_commands():
            continue
        command, _ = find_command(words[:1])
        if hasattr(command, "commands"):
            if words[1:2] == [] or words[1] not in command.commands:
                continue
            command = command.commands[words[1]]
        until_next = re.split(r"\bcare [a-z]|\. [A-Z]|, (?:or|and|then)\b|\)", match[2])[0]
        options = re.findall(r"(?<![\w-])--[a-z][\w-]*", until_next)
        if options:
            yield match[0], command, options
