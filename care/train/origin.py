"""Where a run comes from: its images, when it began, by which versions. It decides no result."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from shards import ShardSet, storage

FILE = "about.json"


class Origin(NamedTuple):
    """What a run leaves beside its checkpoints for whoever looks at it later.

    Attributes:
        data: where the set was.
        images: in it.
        began: when, in UTC by ISO 8601.
        versions: of packages, by name.
    """

    data: str
    images: int
    began: str
    versions: dict[str, str]


def write_origin(run: Path, data: ShardSet) -> None:
    """Write where a run comes from, unless it is a run that goes on.

    Args:
        run: local run directory.
        data: what it is trained on.
    """
    if (run / FILE).exists():
        return
    packages = {"care": "care-ssl", "torch": "torch", "torchvision": "torchvision"}
    origin = Origin(
        data=str(data.path),
        images=len(data),
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={name: version(package) for name, package in packages.items()},
    )
    storage.write_json(run / FILE, origin._asdict())


def read_origin(run: str | Path) -> Origin | None:
    """What ``write_origin`` wrote into a run, or None of a run without it.

    Args:
        run: run directory or URL.

    Raises:
        ShardError: The file is damaged.
    """
    if FILE not in storage.listing(run):
        return None
    content = storage.read_json(f"{run}/{FILE}")
    return Origin(**{name: content[name] for name in Origin._fields})
