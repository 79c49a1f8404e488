"""What a user types for an experiment: the command that would do it again."""

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from flows.experiment import Experiment

# options that are not called as their fields are
FLAGS = {"value_range": "--range", "objectives": "--objective"}
# fields of ``Experiment`` whose fields are options
_PARTS = ("images", "training", "judging", "detection", "scenes")
# fields that are paths or URLs, of which a page shows only the last part
_PATHS = frozenset(
    {
        "images",
        "val",
        "image_root",
        "init",
        "voc_train",
        "voc_val",
        "coco_train",
        "coco_val",
        "coco_image_root",
    }
)


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


def _words(name: str, value: Any) -> Iterator[str]:
    """An option with its value, or a list's values each with the option before it."""
    option = name.replace("_", "-")
    flag = FLAGS.get(name, f"--{option}")
    if isinstance(value, bool):
        yield flag if value else f"--no-{option}"
    elif isinstance(value, list):
        for element in value:
            yield from (flag, str(element))
    elif isinstance(value, tuple):
        yield from (flag, ",".join(_text(element) for element in value))
    elif name in _PATHS:
        yield from (flag, _last_part(str(value)))
    else:
        yield from (flag, _text(value))


def _text(value: Any) -> str:
    """A value as it is typed, a number without needless digits."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _last_part(path: str) -> str:
    """The name that a path or URL ends with; procedural scenes and weights by name as they are."""
    if path.startswith(("scenes:", "supervised:", "random:")):
        return path
    return PurePosixPath(path.rstrip("/")).name or path
