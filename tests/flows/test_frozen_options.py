"""The command line is what it was: who changes it on purpose writes the list anew.

``python tests/flows/test_frozen_options.py`` does.
"""

import inspect
import json
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin
import pytest

FROZEN = Path(__file__).with_name("frozen_options.json")


def commands(group: Any, name: str) -> dict[str, Any]:
    """All commands of a group by name, those of groups below it, too."""
    context = group.context_class(group, info_name=name)
    listed: dict[str, Any] = {}
    for child in group.list_commands(context):
        # some groups are imported when they are called
        command = group.resolve_command(context, [child])[1]
        if hasattr(command, "commands"):
            listed |= commands(command, f"{name} {child}")
        else:
            listed[f"{name} {child}"] = command
    return listed


def described(option: Any, annotation: Any) -> dict[str, Any]:
    """All that decides how an argument or an option is typed, and what it says of itself.

    Args:
        option: as the parser of the command line has it.
        annotation: as Typer was given it: a type and a mark.
    """
    kind, mark = get_args(annotation)
    kinds = [*get_args(kind)] if get_origin(kind) in (Union, UnionType) else [kind]
    default = option.default
    return {
        "names": [*option.opts, *option.secondary_opts],
        "types": sorted(map(inspect.formatannotation, kinds)),
        "list": mark.parser is not None,
        "min": mark.min,
        "max": mark.max,
        "default": list(default) if isinstance(default, tuple) else default,
        "required": option.required,
        "metavar": option.metavar,
        "help": option.help,
    }


def command_line() -> dict[str, Any]:
    """Every command with its help and its parameters, by name."""
    from typer.main import get_command
    from flows.cli import app

    listing: dict[str, Any] = {}
    for name, command in commands(get_command(app), "care").items():
        given = inspect.signature(command.callback).parameters
        parameters = {
            option.name: described(option, given[option.name].annotation)
            for option in command.params
            if option.name in given
        }
        listing[name] = {
            "help": command.help,
            "epilog": command.epilog,
            "without_arguments_shows_help": command.no_args_is_help,
            "parameters": parameters,
        }
    return json.loads(json.dumps(listing, default=repr))


def help_texts(command: dict[str, Any]) -> dict[str, str]:
    """What a command says of each parameter."""
    return {name: described["help"] for name, described in command["parameters"].items()}


WANTED = json.loads(FROZEN.read_text()) if FROZEN.exists() else {}


@pytest.fixture(scope="module")
def present() -> dict[str, Any]:
    return command_line()


def test_the_commands_are_the_frozen_ones(present) -> None:
    assert sorted(present) == sorted(WANTED)


@pytest.mark.parametrize("name", WANTED)
def test_a_command_has_its_frozen_options(present, name) -> None:
    wanted, got = WANTED[name], present[name]
    assert sorted(got["parameters"]) == sorted(wanted["parameters"])
    for option, description in wanted["parameters"].items():
        assert got["parameters"][option] | {"help": description["help"]} == description, option
    assert got["without_arguments_shows_help"] == wanted["without_arguments_shows_help"]


@pytest.mark.parametrize("name", WANTED)
def test_a_command_has_its_frozen_help(present, name) -> None:
    wanted, got = WANTED[name], present[name]
    assert got["help"].split() == wanted["help"].split()
    assert got["epilog"] == wanted["epilog"]
    assert help_texts(got) == help_texts(wanted)


def test_the_pipelines_commands_call_an_option_alike() -> None:
    frozen = json.loads(FROZEN.read_text())
    of_run = frozen["care pipeline run"]["parameters"]
    for verb in ("plan", "serve", "deploy"):
        of_verb = frozen[f"care pipeline {verb}"]["parameters"]
        shared = of_run.keys() & of_verb.keys()
        assert "value_range" in shared
        assert all(of_verb[name]["names"] == of_run[name]["names"] for name in shared)


if __name__ == "__main__":
    text = json.dumps(command_line(), indent=1, sort_keys=True, ensure_ascii=False)
    FROZEN.write_text(f"{text}\n")
