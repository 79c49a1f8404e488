"""What a user types for an experiment: the command that would do it again."""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from flows.experiment import Experiment

# options that are not called as their fields are
FLAGS = {"value_range": "--range", "objectives": "--objective"}
# fields of ``Experiment`` whose fields are options
_PARTS = ("images", "training", "judging", "detection", "scenes")
# beginnings of what is no path, whatever is in it
_NAMED = ("scenes:", "supervised:", "random:", "torchvision:", "timm:")


def command_of(experiment: Experiment) -> str:
    """Write the command for an experiment, as a shell takes it.

    Where something is on one machine is nobody's business and would make equal results differ, so
    paths have only their last part, and the folder of the results is ``DIR``.

    Args:
        experiment: what is asked for.

    Returns:
        ``care pipeline run`` with what differs from the defaults.
    """
    words = ["care", "pipeline", "run"]
    for part in _PARTS:
        value = getattr(experiment, part)
        for field in dataclasses.fields(value):
            chosen = getattr(value, field.name)
            if chosen != field.default:
                words += _words(field.name, chosen)
    if experiment.seed:
        words += ["--seed", str(experiment.seed)]
    return shlex.join([*words, "--out", "DIR"])


def typed_command(words: Iterable[str], run: str) -> str:
    """Write a command line for a page: as it was typed, but of paths their last part.

    Args:
        words: of the command line, after ``care``.
        run: the run directory or URL among them, which is called ``RUN``.
    """
    return shlex.join(["care", *("RUN" if word == run else _shortened(word) for word in words)])


def _shortened(word: str) -> str:
    """A word of a command line, of a path or URL its last part, also behind ``--option=``."""
    option, equals, value = word.partition("=")
    if word.startswith("--") and equals:
        return f"{option}={_text(value)}"
    return _text(word)


def _words(name: str, value: Any) -> Iterator[str]:
    """An option with its value, or a list's values each with the option before it."""
    option = name.replace("_", "-")
    flag = FLAGS.get(name, f"--{option}")
    if isinstance(value, bool):
        yield flag if value else f"--no-{option}"
    elif isinstance(value, list):
        for element in value:
            yield from (flag, _text(element))
    elif isinstance(value, tuple):
        yield from (flag, ",".join(_text(element) for element in value))
    else:
        yield from (flag, _text(value))


def _text(value: Any) -> str:
    """A value as it is typed: a number without needless digits, of a path or URL its last part."""
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    if "/" not in text or text.startswith(_NAMED):
        return text
    return PurePosixPath(text.rstrip("/")).name or text
