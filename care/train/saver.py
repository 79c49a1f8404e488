"""The saving of a run: in the background, one checkpoint at a time, to its directory and URL."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from torch import Tensor
from care.train import checkpoint, mirror
from care.train.run_status import STATUS
from shards import storage
from shards.errors import ShardError, StoreError
from shards.progress import warn


class Saver:
    """Writes a run's checkpoints while its training goes on, as a context manager.

    On leaving it waits for the checkpoint that is being written.

    Args:
        url: of the run, or its directory.
        path: the local copy of the run.
        keep_every: steps between checkpoints that stay for good; 0: none does.
    """

    def __init__(self, url: str | Path, path: Path, keep_every: int) -> None:
        self._url = url
        self._path = path
        self._keep_every = keep_every
        # of the checkpoints that were verified or written here
        self._intact = set[int]()
        # that no other process has taken the directory over
        self._checks = list[Callable[[], None]]()
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True)

    def add_check(self, check: Callable[[], None]) -> None:
        """Call ``check`` before anything is brought to the URL; it raises what forbids that."""
        self._checks.append(check)

    def trust(self, step: int) -> None:
        """Take the checkpoint of a step for whole, as it has just been read."""
        self._intact.add(step)

    def save(
        self,
        state: dict[str, dict[str, Tensor]],
        manifest: dict[str, Any],
        *,
        waits: bool,
    ) -> None:
        """Begin to save a checkpoint, when the one before is written.

        Args:
            state: tensors of model and optimizer.
            manifest: JSON values of the checkpoint.
            waits: return when it is in place, also at the URL. It is for the last one: of any other
                a store that is not reached is told, and gets it with the next one.

        Raises:
            ShardError: The checkpoint before could not be written, or this one that is waited for.
        """
        if self._pending is not None:
            self._pending.result()
        self._pending = self._pool.submit(self._write, state, manifest, must_push=waits)
        if waits:
            self._pending.result()

    def push(self, step: int) -> None:
        """Bring the run up to the checkpoint of a step to its URL.

        Raises:
            ShardError: Another process has taken the run over, or the store is not reached.
        """
        for check in self._checks:
            check()
        mirror.push(self._path, str(self._url), rewritten=step, keep_every=self._keep_every)

    def put_status(self) -> None:
        """Bring the word that the run has left to its URL, unless another process has it now."""
        if not storage.is_remote(self._url):
            return
        name = f"{STATUS}.json"
        with suppress(ShardError, FileNotFoundError):
            for check in self._checks:
                check()
            storage.copy(self._path / name, f"{self._url}/{name}")

    def _write(
        self,
        state: dict[str, dict[str, Tensor]],
        manifest: dict[str, Any],
        *,
        must_push: bool,
    ) -> None:
        """Write a checkpoint, and bring the run to its URL if it has one."""
        step = manifest["step"]
        checkpoint.save(
            self._path,
            state,
            manifest,
            keep_every=self._keep_every,
            intact=self._intact,
        )
        self._intact.add(step)
        if not storage.is_remote(self._url):
            return
        try:
            self.push(step)
        except StoreError as error:
            if must_push:
                raise
            warn(
                f"{self._url}: the checkpoint of step {step} is only in {self._path} "
                f"until the next one is put there: {error}"
            )
