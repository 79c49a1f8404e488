"""Checkpoints written in the background, and runs in object stores."""

import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from care.errors import Stopped
from care.train.checkpoint import latest, save, snapshot, steps_in
from shards import storage


class Saver(AbstractContextManager["Saver"]):
    """Saves in the background, one checkpoint at a time, to ``run`` and to ``url`` if that is an object store; ends when all is written."""

    def __init__(self, run: Path, url: str | Path, keep_every: int) -> None:
        self._run, self._url, self._keep_every = run, url, keep_every
        self._pool, self._pending = ThreadPoolExecutor(1), Future[None]()
        self._pending.set_result(None)

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, manifest: dict[str, Any]) -> None:
        """Copy the state and write it, after the one before; an error in writing that one is raised here."""
        self._pending.result()
        self._pending = self._pool.submit(self._write, snapshot(model, optimizer), manifest)

    def _write(self, state: dict[str, dict[str, Tensor]], manifest: dict[str, Any]) -> None:
        save(self._run, state, manifest, keep_every=self._keep_every)
        if storage.is_remote(self._url):
            push(self._run, str(self._url))

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._pool.shutdown()
        if error is None or isinstance(error, Stopped):  # that says it has saved
            self._pending.result()


def push(run: Path, url: str) -> None:
    """Put a local run's checkpoints, each manifest last, and its files to ``url``; checkpoints that are gone here go there too."""
    there, here = storage.listing(url, deep=True), [f"checkpoints/{path.name}" for path in steps_in(run / "checkpoints")]
    for step in here:
        if f"{step}/manifest.json" not in there:
            for file in sorted((run / step).iterdir(), key=lambda file: file.name == "manifest.json"):
                storage.copy(file, f"{url}/{step}/{file.name}")
    for file in sorted(run.glob("*.*")):
        if file.is_file() and not file.name.startswith(".part-"):
            storage.copy(file, f"{url}/{file.name}")
    gone = (name for name in there if name.startswith("checkpoints/") and name.rpartition("/")[0] not in here)
    for name in sorted(gone, key=lambda name: not name.endswith("/manifest.json")):  # what has none is no checkpoint
        storage.remove(f"{url}/{name}")


def pull(url: str | Path, run: Path) -> None:
    """Make the local ``run`` what is at ``url``: its logs, and the newest checkpoint that is whole."""
    there = storage.listing(url, deep=True)
    steps = {name.split("/")[1] for name in there if re.fullmatch(r"checkpoints/step-\d{8,}/manifest\.json", name)}
    for path in steps_in(run / "checkpoints"):
        if path.name not in steps:  # of another run that had this URL, or never put there
            shutil.rmtree(path)
    for name in [name for name in there if "/" not in name]:
        storage.copy(f"{url}/{name}", run / name)
    for step in sorted(steps, key=lambda name: int(name.removeprefix("step-")), reverse=True):
        folder = run / "checkpoints" / step
        if not folder.exists():
            with storage.writing_directory(folder) as stage:
                for name in [name for name in there if name.startswith(f"checkpoints/{step}/")]:
                    storage.copy(f"{url}/{name}", stage / name.rpartition("/")[2])
        if (found := latest(run)) and found.path == folder:
            return
