"""Which evaluations may be compared: those of one task that were judged alike."""

from collections.abc import Sequence
from typing import NamedTuple
from care.show.rows import Result, Row, read

# settings that change no result, or that the protocol has in words
WITHOUT_EFFECT = frozenset({"workers", "checkpoint_every", "metric_backend"})


class Conditions(NamedTuple):
    """What must be equal for a comparison, in words.

    Attributes:
        source: who reports the results; "" where they were measured here.
        protocol: what was done, and in how many trials.
        details: seed, settings and data.
    """

    source: str
    protocol: str
    details: tuple[str, ...]


class Group(NamedTuple):
    """Evaluations of one task under the same conditions.

    Attributes:
        label: the task, told apart from its other groups.
        source: who reports the results; "" where they were measured here.
        protocol: what was done and, of several groups, what only this one has.
        results: in the order in which they came.
    """

    label: str
    source: str
    protocol: str
    results: list[Result]

    def encoders(self) -> list[str]:
        """Name the results' encoders, with the file of each where several share a name."""
        names = [result.encoder for result in self.results]
        labels = []
        for result in self.results:
            label = result.encoder
            if result.file and names.count(label) > 1:
                label = f"{label} ({result.file})"
            labels.append(label)
        return labels


def grouped(results: Sequence[Result]) -> dict[str, list[Group]]:
    """Sort evaluations into groups of comparable ones.

    Args:
        results: of any tasks.

    Returns:
        By task its groups, both in the order in which they came. Those measured here are numbered
        where there are several.
    """
    tasks = dict[str, dict[Conditions, list[Result]]]()
    for result in results:
        groups = tasks.setdefault(result.task, {})
        groups.setdefault(_conditions(result), []).append(result)
    return {task: _labelled(task, groups) for task, groups in tasks.items()}


def rows_beside(rows: Sequence[Row], encoder: str) -> list[Row]:
    """The evaluations of an encoder, and those of others that were judged alike.

    Args:
        rows: evaluations as in results.json.
        encoder: digest of its weights.

    Returns:
        Of the rows those, in their order; none where the encoder is not among them.
    """
    results = read(rows)
    conditions = [(result.task, _conditions(result)) for result in results]
    of_encoder = {
        condition
        for condition, result in zip(conditions, results, strict=True)
        if result.digests.get("encoder") == encoder
    }
    return [row for row, condition in zip(rows, conditions, strict=True) if condition in of_encoder]


def _conditions(result: Result) -> Conditions:
    """What another result must have in common with this one."""
    protocol = result.protocol
    if result.trials > 1:
        protocol += f"; mean ± standard deviation of {result.trials} trials"
    values = dict[str, object]({"seed": result.seed})
    # sorted: a record that was read again has them in another order than a result just made
    for name, value in sorted(result.settings.items()):
        if name not in WITHOUT_EFFECT and name not in result.chosen:
            values[name] = value
    for part, digest in result.digests.items():
        if part != "encoder":
            values[f"{part} data"] = digest[:12]
    details = [f"{name} {value}" for name, value in values.items() if value is not None]
    return Conditions(result.source, protocol, tuple(details))


def _labelled(task: str, groups: dict[Conditions, list[Result]]) -> list[Group]:
    """The groups of a task, each with a label and with what sets it apart."""
    measured_here = [conditions for conditions in groups if not conditions.source]
    labelled = []
    for conditions, results in groups.items():
        if conditions.source:
            label = f"{task}, {conditions.source}"
        elif len(measured_here) > 1:
            label = f"{task} ({measured_here.index(conditions) + 1})"
        else:
            label = task
        texts = [conditions.protocol, *_distinct(conditions, measured_here)]
        protocol = "; ".join(text for text in texts if text)
        labelled.append(Group(label, conditions.source, protocol, results))
    return labelled


def _distinct(conditions: Conditions, others: Sequence[Conditions]) -> list[str]:
    """The details that not all others share."""
    return [
        detail
        for detail in conditions.details
        if not all(detail in other.details for other in others)
    ]
