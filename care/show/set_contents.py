"""What a set was made of and what was left out of it, as a page has it."""

from pathlib import Path
from typing import Any
import shards
from care.train.mirror import recorded_settings
from care.train.origin import read_origin
from shards.errors import ShardError

EXAMPLES = 3  # names of files that were left out, for each reason


def set_contents(name: str, index: shards.Index) -> dict[str, Any]:
    """How many files a set was made of, and what was left out under which reason.

    Args:
        name: what the page calls the set.
        index: of the set.

    Returns:
        A row of JSON.
    """
    rejects = [
        {"reason": reason, "count": len(names), "examples": list(names[:EXAMPLES])}
        for reason, names in index.rejects.items()
    ]
    return {"name": name, "seen": index.seen, "kept": len(index.samples), "rejects": rejects}


def sets_of_run(run: str | Path) -> list[dict[str, Any]]:
    """The set that a run was trained on, where it still is.

    Args:
        run: run directory or URL.

    Returns:
        Its row; none where it was moved, or is another one by now.
    """
    origin, settings = read_origin(run), recorded_settings(run)
    if origin is None or settings is None:
        return []
    try:
        data = shards.open(origin.data)
    except (ShardError, OSError):
        return []
    if data.digest != settings.get("data"):
        return []
    return [set_contents(Path(origin.data).name, data.index)]
