"""Stages: files and folders beside their final name, which they get in one piece, or never.

There is one fixed name for each final name, so that the stages of killed writers are found and
taken over, never collected. The writers of one file take turns by the kernel's lock of its stage.
"""

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

# seconds that a writer waits for another one of the same file
PATIENCE = 60.0
_SECONDS_BETWEEN_TRIES = 0.002


@contextmanager
def staged_file(final: Path) -> Iterator[IO[bytes]]:
    """A file that is fsynced and renamed to ``final`` at the end of the block, or removed.

    Raises:
        OSError: The disk refuses, or another writer has waited for too long and took over.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    stage = _stage_of(final)
    with _open_alone(stage) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if not _is_file_of(file, stage):
                raise FileNotFoundError(errno.ENOENT, "another writer of it took over")
            stage.replace(final)
        except BaseException:
            if _is_file_of(file, stage):
                stage.unlink()
            raise
        sync(final.parent)


@contextmanager
def staged_directory(final: Path) -> Iterator[Path]:
    """A name beside ``final`` that is renamed to it at the end of the block, or removed.

    Raises:
        OSError: The disk refuses, or there is a folder with something in it.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    stage = _stage_of(final)
    _discard(stage)
    try:
        yield stage
        stage.replace(final)
        sync(final.parent)
    finally:
        _discard(stage)


def sync(path: Path) -> None:
    """Have the disk keep a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stage_of(final: Path) -> Path:
    """The fixed name of a stage."""
    return final.with_name(f".part-{final.name}")


def _open_alone(stage: Path) -> IO[bytes]:
    """Open the stage of a file, empty, once nobody else writes it.

    The lock ends with its process: what a killed writer has left is taken over at once. What is
    held for longer than ``PATIENCE``, perhaps by a process that was forked while it was written, is
    removed; where its writer lives, that fails.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        if stage.is_dir():  # of a folder that had the name
            shutil.rmtree(stage)
        try:
            descriptor = os.open(stage, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except PermissionError:  # of another user's writer that was killed
            stage.unlink()
            continue
        file = os.fdopen(descriptor, "r+b")
        if not _lock(file, deadline):
            stage.unlink(missing_ok=True)
        elif _is_file_of(file, stage):
            file.truncate()
            return file
        file.close()  # its writer has renamed or removed it meanwhile


def _lock(file: IO[bytes], deadline: float) -> bool:
    """Wait for the kernel's lock of a file; whether there is none that others have for too long."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_SECONDS_BETWEEN_TRIES)
        except OSError:  # a file system without locks
            return True
        else:
            return True


def _is_file_of(file: IO[bytes], path: Path) -> bool:
    """Whether an open file still has a name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _discard(stage: Path) -> None:
    shutil.rmtree(stage, ignore_errors=True)  # of a folder; it leaves a file
    stage.unlink(missing_ok=True)
