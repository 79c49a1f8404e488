"""The only code that makes bytes durable: staged beside the final name, fsynced, then renamed.

A file or directory that exists under its final name is whole; a kill at any moment leaves at most a
``.part-*`` stage beside it, which the next writer of the same name removes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from shards.errors import ShardError


def local(path: str | Path) -> Path:
    """``path`` as a local ``Path``; object stores are refused by name."""
    if "://" in str(path):
        raise ShardError(f"wanted a local path, got {path}: object stores are not supported yet; copy it to a local folder")
    return Path(path)


@contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under ``path`` only when the block ends without an exception."""
    final = local(path)
    stage = _stage(final)
    try:
        with _readable_errors(final):
            with stage.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            stage.replace(final)
            _sync(final.parent)
    finally:
        stage.unlink(missing_ok=True)


@contextmanager
def writing_directory(path: str | Path) -> Iterator[Path]:
    """A directory that appears under ``path`` only when the block ends without an exception.

    Every file in it is fsynced first.

    Raises:
        ShardError: ``path`` exists (replacing it could not be atomic), or the disk refuses.
    """
    final = local(path)
    stage = _stage(final)
    try:
        with _readable_errors(final):
            stage.mkdir()
            yield stage
            for entry in sorted(stage.rglob("*")):
                _sync(entry)
            _sync(stage)
            if final.exists():
                raise ShardError(f"{final} exists already; remove it or choose another name")
            stage.rename(final)
            _sync(final.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Commit ``data`` as the file ``path``."""
    with writing(path) as file:
        file.write(data)


def write_json(path: str | Path, value: Any) -> None:
    """Commit ``value`` as readable JSON with sorted keys: equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: str | Path) -> Any:
    """The JSON value in ``path``.

    Raises:
        ShardError: the file is missing or is not JSON.
    """
    try:
        return json.loads(local(path).read_bytes())
    except FileNotFoundError:
        raise ShardError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} cannot be read as JSON: {error}; it was damaged or is another file") from None


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with local(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _stage(final: Path) -> Path:
    # One fixed name per final name: stages of killed writers are found and removed, never collected.
    with _readable_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    stage = final.with_name(f".part-{final.name}")
    if stage.is_dir():
        shutil.rmtree(stage)
    else:
        stage.unlink(missing_ok=True)
    return stage


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _readable_errors(final: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ShardError(f"cannot write {final}: {error.strerror or error}; nothing was changed under that name") from error
