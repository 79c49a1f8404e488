"""The command line is what it was: who changes it on purpose writes the list anew.

``python tests/flows/test_frozen_options.py`` does.
"""

import json
from pathlib import Path
from typing import Any
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


def described(parameter: Any) -> dict[str, Any]:
    """All that decides how an argument or an option is typed, and what it says of itself."""
    kind = parameter.type
    admitted = {
        name: getattr(kind, name) for name in ("min", "max", "choices") if hasattr(kind, name)
    }
    if "choices" in admitted:
        admitted["choices"] = [*admitted["choices"]]
    default = parameter.default
    return admitted | {
        "names": [*parameter.opts, *parameter.secondary_opts],
        "type": kind.name,
        "default": list(default) if isinstance(default, tuple) else default,
        "required": parameter.required,
        "several": parameter.nargs != 1 or getattr(parameter, "multiple", False),
        "metavar": parameter.metavar,
        "help": getattr(parameter, "help", None),
    }


def command_line() -> dict[str, Any]:
    """Every command with its help and its parameters, by name."""
    from typer.main import get_command
    from flows.cli import app

    listing: dict[str, Any] = {}
    for name, command in commands(get_command(app), "care").items():
        parameters = {one.name: described(one) for one in command.params if one.name != "help"}
        listing[name] = {
            "help": command.help,
            "epilog": command.epilog,
            "without_arguments_shows_help": command.no_args_is_help,
            "parameters": parameters,
        }
    return json.loads(json.dumps(listing, default=repr))


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
        assert got["parameters"][option] == description, option
    assert {**got, "parameters": None} == {**wanted, "parameters": None}


if __name__ == "__main__":
    text = json.dumps(command_line(), indent=1, sort_keys=True, ensure_ascii=False)
    FROZEN.write_text(f"{text}\n")
