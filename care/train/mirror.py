"""A run in an object store: the local copy that stands for its URL, and what goes there and comes back."""

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any
from care.train.checkpoint import latest, steps_in
from shards import Cache, ShardError, storage


def local_copy(run: str | Path) -> Path:
    """The local directory of a run: itself, or the one that stands for a URL."""
    return (
        Cache().folder.parent / "runs" / storage.digest(str(run))[:16]
        if storage.is_remote(run)
        else Path(run)
    )


def push(run: Path, url: str) -> None:
    """Put a local run's checkpoints, each manifest last, and its files to ``url``; checkpoints that are gone here go there too."""
    there, here = (
        storage.listing(url, deep=True),
        [f"checkpoints/{path.name}" for path in steps_in(run / "checkpoints").values()],
    )
    for step in here:
        if f"{step}/manifest.json" not in there:
            for file in sorted(
                (run / step).iterdir(), reverse=True
            ):  # by name the manifest is the first one
                storage.copy(file, f"{url}/{step}/{file.name}")
    for file in run.glob("[!.]*.*"):
        storage.copy(file, f"{url}/{file.name}")
    for name in sorted(there):  # a manifest first: what has none is no checkpoint
        if name.startswith("checkpoints/") and name.rpartition("/")[0] not in here:
            storage.remove(f"{url}/{name}")


def pull(url: str | Path, run: Path) -> None:
    """Make the local ``run`` what is at ``url``: its logs, and the newest checkpoint that is whole."""
    there = storage.listing(url, deep=True)
    steps = {
        name.split("/")[1]
        for name in there
        if re.fullmatch(r"checkpoints/step-\d{8,}/manifest\.json", name)
    }
    for path in steps_in(run / "checkpoints").values():
        if path.name not in steps:  # of another run that had this URL, or never put there
            shutil.rmtree(path)
    for name in [name for name in there if "/" not in name]:
        storage.copy(f"{url}/{name}", run / name)
    for step in sorted(steps, key=lambda step: int(step[5:]), reverse=True):
        folder = run / "checkpoints" / step
        if not folder.exists():
            with storage.writing_directory(folder) as stage:
                for name in [name for name in there if name.startswith(f"checkpoints/{step}/")]:
                    storage.copy(f"{url}/{name}", stage / Path(name).name)
        if (found := latest(run)) and found.path == folder:
            return


def recorded_settings(run: str | Path) -> dict[str, Any] | None:
    """Settings of a run by its newest manifest, read where it lies, be that an object store.

    No weights are read or verified: all checkpoints of a run are of the same settings, but for
    those that a user allowed to change.

    Args:
        run: run directory or URL.

    Returns:
        The settings, or None of a run that has no readable manifest.
    """
    folder = f"{run}/checkpoints"
    manifests = {
        int(match[1]): name
        for name in storage.listing(folder, deep=True)
        if (match := re.fullmatch(r"step-(\d{8,})/manifest\.json", name))
    }
    for _, name in sorted(manifests.items(), reverse=True):
        with suppress(ShardError, KeyError, TypeError):
            settings: dict[str, Any] = storage.read_json(f"{folder}/{name}")["settings"]
            return settings
    return None
