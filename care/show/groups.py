"""Which evaluations may be compared: those of one task that were judged alike."""

from collections.abc import Sequence
from typing import Any, NamedTuple

Row = dict[str, Any]  # an evaluation in a results.json


class Group(NamedTuple):
    """Evaluations of one task with the same protocol, settings, seed, data and trials."""

    label: str  # the task, told apart from its other groups
    source: str  # who reports the rows; "" where they were measured here
    protocol: str  # what was done and, of several groups, what only this one has
    rows: list[Row]

    def encoders(self) -> list[str]:
        """Names of the rows' encoders, with the file of each where several share a name."""
        names = [row["encoder"] for row in self.rows]
        labels = []
        for row, name in zip(self.rows, names, strict=True):
            ambiguous = "file" in row and names.count(name) > 1
            labels.append(f"{name} ({row['file']})" if ambiguous else name)
        return labels


def grouped(rows: Sequence[Row]) -> dict[str, list[Group]]:
    """Groups of comparable evaluations by task, both in the order of the rows.

    Args:
        rows: evaluations as in results.json; ``source`` marks those that others report.

    Returns:
        By task its groups, of which those measured here are numbered where there are several.

    Raises:
        KeyError: A row has no task.
        AttributeError: A row is no dictionary, or its settings are none.
    """
    tasks = dict[str, dict[tuple[str, ...], list[Row]]]()
    for row in rows:
        tasks.setdefault(row["task"], {}).setdefault(_conditions(row), []).append(row)
    return {task: _labelled(task, groups) for task, groups in tasks.items()}


def _conditions(row: Row) -> tuple[str, ...]:
    """The row's source, its protocol, and all else that must be equal for a comparison."""
    count = row.get("trials", 1)
    trials = f"; mean ± standard deviation of {count} trials" if count > 1 else ""
    digests = row.get("digests", {}).items()
    data = {f"{part} data": digest[:12] for part, digest in digests if part != "encoder"}
    # these change no result, or are part of it
    free = ("workers", "checkpoint_every", *row.get("chosen", {}))
    settings = {name: value for name, value in row.get("settings", {}).items() if name not in free}
    conditions = {"seed": row.get("seed"), **settings, **data}
    texts = [f"{name} {value}" for name, value in conditions.items() if value is not None]
    return (row.get("source", ""), row.get("protocol", "") + trials, *texts)


def _labelled(task: str, groups: dict[tuple[str, ...], list[Row]]) -> list[Group]:
    """The groups of a task, each with a label and with what sets it apart."""
    measured_here = [conditions for source, *conditions in groups if not source]
    labelled = []
    for (source, *conditions), rows in groups.items():
        if source:
            label = f"{task}, {source}"
        elif len(measured_here) > 1:
            label = f"{task} ({measured_here.index(conditions) + 1})"
        else:
            label = task
        protocol, *others = conditions
        distinct = [text for text in others if any(text not in group for group in measured_here)]
        protocol = "; ".join(text for text in (protocol, *distinct) if text)
        labelled.append(Group(label, source, protocol, rows))
    return labelled
