"""A run in an object store: the local copy that stands for its URL, and what goes to and fro."""

import hashlib
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any
from care.train.checkpoint import latest, steps_in
from shards import Cache, ShardError, storage
from shards.once import listed_once
from shards.seals import is_as_sealed

STEP_MANIFEST = re.compile(r"checkpoints/(step-(\d{8,}))/manifest\.json")
# in the local copy: the digest of the newest manifest that it has put at its URL
PUSHED = ".pushed"
STEP_FOLDER = re.compile(r"checkpoints/step-(\d{8,})")


def local_copy(run: str | Path) -> Path:
    """The local directory of a run: itself, or the one that stands for a URL."""
    if not storage.is_remote(run):
        return Path(run)
    return Cache().folder.parent / "runs" / storage.digest(str(run))[:16]


def push(run: Path, url: str, *, rewritten: int | None = None, keep_every: int = 0) -> None:
    """Put a local run where its URL is.

    Checkpoints that are gone here go there, too. At any moment what is there can be continued: the
    manifest of a checkpoint comes last and goes first, and without one it is none.

    Args:
        run: local directory.
        url: where the run is for everybody else.
        rewritten: step that is put there even if its manifest is there already: what it belongs to
            may be damaged, and an equal training writes an equal manifest.
        keep_every: steps between those that stay there for good, though another machine, which
            fetched the newest one alone, has them not.
    """
    names_there = storage.listing(url, deep=True)
    paths = steps_in(run / "checkpoints")
    steps_here = [f"checkpoints/{path.name}" for path in paths.values()]
    for number, path in paths.items():
        place = f"{url}/checkpoints/{path.name}"
        is_there = f"checkpoints/{path.name}/manifest.json" in names_there
        if is_there and number != rewritten and _has_manifest_of(path, place):
            continue
        if is_there:
            storage.remove(f"{place}/manifest.json")
        # by name the manifest is the first one
        for file in sorted(path.iterdir(), reverse=True):
            storage.copy(file, f"{place}/{file.name}")
    for file in run.glob("[!.]*.*"):
        storage.copy(file, f"{url}/{file.name}")
    for name in sorted(names_there):
        folder = name.rpartition("/")[0]
        if not name.startswith("checkpoints/") or folder in steps_here:
            continue
        step = STEP_FOLDER.fullmatch(folder)
        if not (step and keep_every and int(step[1]) % keep_every == 0):
            storage.remove(f"{url}/{name}")
    manifests = [path / "manifest.json" for path in paths.values()]
    newest = next((manifest for manifest in manifests if manifest.is_file()), None)
    if newest is not None:
        storage.write_bytes(run / PUSHED, storage.sha256(newest).encode())


def is_ahead(url: str | Path, run: Path, step: int) -> bool:
    """Whether a local run has gone on from what it last put at its URL, and nobody else has.

    Args:
        url: where the run is for everybody else.
        run: local directory.
        step: of the newest checkpoint at the URL.
    """
    newest_here = max(steps_in(run / "checkpoints"), default=0)
    if newest_here <= step or not (run / PUSHED).is_file():
        return False
    manifest = storage.read_bytes(f"{url}/checkpoints/step-{step:08d}/manifest.json")
    return hashlib.sha256(manifest).hexdigest() == (run / PUSHED).read_text()


def pull(url: str | Path, run: Path) -> bool:
    """Make a local run what is at its URL: the logs, and the newest checkpoint that is whole.

    What a store that was not reached did not get stays, if nobody went on from what is there.

    Args:
        url: where the run is for everybody else.
        run: local directory.

    Returns:
        Whether the local run is ahead of what is at its URL, and was left as it is.
    """
    names = storage.listing(url, deep=True)
    manifests = [match for name in names if (match := STEP_MANIFEST.fullmatch(name))]
    steps = {int(match[2]): match[1] for match in manifests}
    if steps and is_ahead(url, run, max(steps)):
        return True
    for path in steps_in(run / "checkpoints").values():
        is_there = path.name in steps.values()
        # or it is of another run that had this URL, or was never put there
        if not is_there or not _has_manifest_of(path, f"{url}/checkpoints/{path.name}"):
            shutil.rmtree(path)
    for name in names:
        if "/" not in name:
            storage.copy(f"{url}/{name}", run / name)
    for _, step in sorted(steps.items(), reverse=True):
        folder = run / "checkpoints" / step
        if not folder.exists():
            with storage.writing_directory(folder) as stage:
                for name in names:
                    if name.startswith(f"checkpoints/{step}/"):
                        storage.copy(f"{url}/{name}", stage / Path(name).name)
        newest = latest(run)
        if newest is not None and newest.path == folder:
            break
    return False


def _has_manifest_of(path: Path, place: str) -> bool:
    """Whether a local checkpoint has the manifest, byte for byte, of one that is at a URL."""
    manifest = path / "manifest.json"
    if not manifest.is_file():
        return False
    return storage.read_bytes(manifest) == storage.read_bytes(f"{place}/manifest.json")


def recorded_settings(run: str | Path) -> dict[str, Any] | None:
    """Settings of a run by its newest manifest, read where it lies, be that an object store.

    No weights are read or verified: all checkpoints of a run are of the same settings, but for
    those that a user allowed to change.

    Args:
        run: run directory or URL.

    Returns:
        The settings, or None of a run that has no readable manifest.
    """
    manifest = recorded_manifest(run)
    return None if manifest is None else manifest["settings"]


@listed_once
def recorded_manifest(run: str | Path) -> dict[str, Any] | None:
    """A run's newest manifest that can be read and has settings, see ``recorded_settings``."""
    names = storage.listing(run, deep=True)
    matches = [match for name in names if (match := STEP_MANIFEST.fullmatch(name))]
    for match in sorted(matches, key=lambda match: int(match[2]), reverse=True):
        with suppress(ShardError, TypeError):
            manifest: dict[str, Any] = storage.read_json(f"{run}/{match[0]}")
            if "settings" in manifest and is_as_sealed(manifest):
                return manifest
    return None
