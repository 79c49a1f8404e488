"""The only code that makes bytes durable, on a local disk or in an object store that fsspec knows, uncached and tried three times.

Local: staged beside the final name as ``.part-*``, which the next writer removes after a kill, fsynced, renamed: what has its final name
is whole. Object stores: staged in a temporary file, put in one piece; what belongs together is put index last.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from shards import objects
from shards.errors import ShardError


def locate(path: str | Path) -> Path:
    """``path`` as a ``Path``, or the like of one for a URL such as s3://bucket/name; a ``ShardError`` if nothing installed knows those."""
    if not is_remote(path):
        return Path(path)
    from upath import UPath

    objects.remote(path)
    return cast(Path, UPath(str(path)))  # it has a Path's methods


def is_remote(path: str | Path) -> bool:
    """Whether ``path`` is a URL; a ``ShardError``, which does not repeat it, if it has one with a password, a key or a signature in it."""
    objects.refuse_secrets(path)
    return "://" in str(path)


def read_bytes(path: str | Path, start: int | None = None, end: int | None = None) -> bytes:
    """The bytes of a file from ``start`` to ``end``; an ``OSError`` if it is not there or unreadable, a ``ShardError`` if a store fails."""
    if is_remote(path):
        return bytes(
            objects.attempt("read", path, lambda fs, name: fs.cat_file(name, start=start, end=end))
        )
    with Path(path).open("rb") as file:
        file.seek(start or 0)
        return file.read(-1 if end is None else end - (start or 0))


def listing(folder: str | Path, *, deep: bool = False) -> dict[str, int]:
    """Names and sizes in bytes of the files in ``folder``, or with ``deep`` at any depth, but leases; none if not there.

    Local links to folders are followed, but not up to a parent; the size of what is no file, such as a link to nothing, is -1.
    """
    if is_remote(folder):
        depth = None if deep else 1
        try:
            root, found = objects.attempt(
                "list",
                folder,
                lambda fs, name: (
                    name.rstrip("/") + "/",
                    fs.find(name, maxdepth=depth, detail=True),
                ),
            )
        except FileNotFoundError:
            return {}
        sizes = {
            path.removeprefix(root): int(info["size"] or 0)
            for path, info in found.items()
            if path.startswith(root)
        }
        return {name: size for name, size in sizes.items() if not name.startswith(".lease/")}
    sizes = dict[str, int]()
    for place, folders, names in (
        os.walk(folder, onerror=_refuse, followlinks=True) if Path(folder).is_dir() else ()
    ):
        here = Path(place)
        folders[:] = sorted(
            name
            for name in folders
            if deep and not any(map((here / name).samefile, (here / name).parents))
        )
        above = "".join(f"{part}/" for part in here.relative_to(folder).parts)
        sizes |= {
            above + name: (here / name).stat().st_size if (here / name).is_file() else -1
            for name in sorted(names)
        }
    return sizes


def _refuse(error: OSError) -> None:
    raise ShardError(
        f"cannot list {error.filename}: {error.strerror}; make it readable or move it away"
    ) from error


def fetch(path: str | Path, to: Path) -> None:
    """Copy an object to the local file ``to``, which is not made durable."""
    objects.attempt("read", path, lambda fs, name: fs.get_file(name, str(to)))


def copy(source: str | Path, to: str | Path) -> None:
    """Commit the bytes of one file or object as another."""
    with nearby(source) as near, near.open("rb") as read, writing(to) as file:
        shutil.copyfileobj(read, file, 1 << 20)


@contextmanager
def nearby(path: str | Path) -> Iterator[Path]:
    """A local file itself, or a copy of an object for the length of the block."""
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.NamedTemporaryFile(prefix="care-") as copy:
        fetch(path, Path(copy.name))
        yield Path(copy.name)


def remove(path: str | Path) -> None:
    """Remove a file."""
    if is_remote(path):
        objects.attempt("remove", path, lambda fs, name: fs.rm_file(name))
    else:
        Path(path).unlink()


@contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under ``path`` only when the block ends without an exception."""
    if is_remote(path):
        with tempfile.NamedTemporaryFile(prefix="care-") as upload:
            yield upload
            upload.flush()
            objects.attempt("write", path, lambda fs, name: fs.put_file(upload.name, name))
        return
    with _staged(Path(path)) as stage, stage.open("w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def writing_directory(path: str | Path) -> Iterator[Path]:
    """A directory that appears under ``path``, fsynced, only when the block ends without an exception; a ``ShardError`` if there is one."""
    if is_remote(path):
        raise ShardError(
            f"wanted a local path, got {path}: this does not work in object stores yet; copy it to a local folder"
        )
    with _staged(Path(path)) as stage:
        stage.mkdir()
        yield stage
        for entry in (*stage.rglob("*"), stage):
            _sync(entry)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Commit ``data`` as the file ``path``."""
    with writing(path) as file:
        file.write(data)


def write_json(path: str | Path, value: Any) -> None:
    """Commit ``value`` as readable JSON with sorted keys: equal values give equal bytes."""
    write_bytes(
        path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    )


def read_json(path: str | Path) -> Any:
    """The JSON value in ``path``; a ``ShardError`` if the file is missing or is not JSON."""
    try:
        return json.loads(read_bytes(path))
    except FileNotFoundError:
        raise ShardError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ShardError(
            f"{path} cannot be read as JSON: {error}; it was damaged or is another file"
        ) from None


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with nearby(path) as near, near.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


@contextmanager
def _staged(final: Path) -> Iterator[Path]:
    # One fixed name per final name: stages of killed writers are found and removed, never collected.
    stage = final.with_name(f".part-{final.name}")
    with readable_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        _discard(stage)
        try:
            yield stage
            stage.replace(final)
            _sync(final.parent)
        finally:
            _discard(stage)


def _discard(stage: Path) -> None:
    shutil.rmtree(stage, ignore_errors=True)  # of a directory; it leaves a file
    stage.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def readable_errors(final: Path) -> Iterator[None]:
    """An ``OSError`` in this block, which writes ``final``, as a ``ShardError``."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"cannot write {final}: {error.strerror or error}; nothing was changed under that name"
        ) from error
