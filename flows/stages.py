"""A stage before it is started, as a value: what it does, what it needs of others, how it ends up.

``flows.graph`` declares stages, ``flows.schedule`` starts them, ``flows.plan`` looks them up. A
stage whose needs are there is a ``flows.records.KeyedStage``.
"""

import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from flows.result import Result


class Needs(NamedTuple):
    """What stands in the inputs of a stage in the place of another one's result.

    Attributes:
        stage: name of the other.
        file: of its outputs, where it is not the whole folder that is needed.
    """

    stage: str
    file: str = ""

    def of(self, result: Result) -> Result:
        """The result of that stage, with the URL of what is needed."""
        return result | {"url": f"{result['url']}/{self.file}"} if self.file else result


@dataclass(frozen=True)
class Stage:
    """A stage to come.

    Attributes:
        kind: what it is called among stages of its kind, and by ``--refresh``.
        name: of the stage, below ``OUT/stages``.
        work: what is done, a name in ``flows.works.WORKS``.
        inputs: of the work, as JSON with ``Needs`` in the place of results.
        group: another name for it and its like, by which ``--refresh`` may call it.
        row: what its rows in the results say instead of what the work called them.
        exclusive: whether it uses all of the machine.
        rank: stages of a lower one are started first.
    """

    kind: str
    name: str
    work: str
    inputs: Result
    group: str = ""
    row: Result = field(default_factory=dict)
    exclusive: bool = False
    rank: int = 0

    def is_named_in(self, names: Collection[str]) -> bool:
        """Whether one of these names of kinds and groups is its own."""
        return self.kind in names or self.group in names

    def needs(self) -> set[str]:
        """Names of the stages whose results it needs."""
        return {need.stage for need in _needs_in(self.inputs)}

    def resolved(self, result_of: Callable[[str], Result]) -> Result:
        """Its inputs, all JSON, with numbers in one form: Prefect makes 100.0 of 100.

        Args:
            result_of: gives the result of a stage by its name; it may wait for it.
        """
        text = json.dumps(_resolved(self.inputs, result_of))
        return dict(json.loads(text, parse_float=_plain_number))


def _plain_number(text: str) -> int | float:
    """The number of a text, an integer where it is one."""
    value = float(text)
    return int(value) if value.is_integer() else value


def _needs_in(value: Any) -> Iterator[Needs]:
    if isinstance(value, Needs):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _needs_in(part)


def _resolved(value: Any, result_of: Callable[[str], Result]) -> Any:
    if isinstance(value, Needs):
        return value.of(result_of(value.stage))
    if isinstance(value, dict):
        return {name: _resolved(part, result_of) for name, part in value.items()}
    return value
