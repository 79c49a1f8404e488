"""The only code that makes bytes durable, on a local disk or in an object store.

Local: staged beside the final name as ``.part-*``, fsynced, then renamed. A file or folder that has
its final name is whole; a kill at any moment leaves at most a stage, which the next writer of the
same name takes over. Several writers of one file take turns. Object stores: staged in a temporary
file, put under the final name in one piece; of what belongs together the index is put last.
"""

import errno
import hashlib
import json
import mmap
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast
from shards import objects, staging
from shards.errors import ShardError

# what the system says of a path that leads to no file
_NO_FILE = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL)
)


def locate(path: str | Path) -> Path:
    """A ``Path``, or the like of one for a URL such as s3://bucket/name.

    Args:
        path: a path or a URL.

    Returns:
        What has a ``Path``'s methods.

    Raises:
        ShardError: Nothing that is installed knows such URLs, or it has a secret in it.
    """
    if not is_remote(path):
        return Path(path)
    from upath import UPath

    objects.file_system(path)  # or it is refused
    return cast(Path, UPath(str(path)))


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL.

    Raises:
        ShardError: It has a password, a key or a signature in it, which the message does not
            repeat.
    """
    text = str(path)
    if "://" not in text and "=" not in text:  # neither a URL nor the name of a secret
        return False
    objects.refuse_secrets(path)
    return "://" in text


def read_bytes(path: str | Path, start: int | None = None, end: int | None = None) -> bytes:
    """Read a file, or a part of it.

    Args:
        path: path or URL of the file.
        start: the first byte; by default that of the file.
        end: behind the last byte; by default that of the file.

    Returns:
        The bytes.

    Raises:
        OSError: The file is not there.
        ShardError: It is there and the disk does not give it, or an object store fails.
    """
    if is_remote(path):
        data = objects.attempt(
            "read", path, lambda store, name: store.cat_file(name, start=start, end=end)
        )
        return bytes(data)
    first = start or 0
    try:
        data = _read_at_once(path, first, end)
        if data is not None:
            return data
        with Path(path).open("rb") as file:
            file.seek(first)
            return file.read(-1 if end is None else end - first)
    except OSError as error:
        refuse_disk_error(error, path)
        raise


def map_bytes(path: str | Path, *, at_least: int) -> bytes | mmap.mmap:
    """Read a file, or map it where it is large: then it is in memory as far as it is looked at.

    Args:
        path: path or URL of the file; an object is read.
        at_least: bytes of a file that is mapped.

    Returns:
        The bytes, or what has them; a file that gets its name anew does not change them.

    Raises:
        OSError: The file is not there.
        ShardError: It is there and the disk does not give it, or an object store fails.
    """
    if is_remote(path) or file_size(path) < at_least:
        return read_bytes(path)
    try:
        with Path(path).open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        refuse_disk_error(error, path)
        raise


def refuse_disk_error(error: OSError, path: str | Path) -> None:
    """Refuse to go on where a disk has failed; that there is no file is none of its failures.

    What a disk does not give may be given later, and says nothing of a file's content.

    Args:
        error: of an operation with the file; Pillow's, of content, have no number.
        path: of the file.

    Raises:
        ShardError: The disk failed, or forbids it.
    """
    if error.errno is None or error.errno in _NO_FILE:
        return
    raise ShardError(
        f"cannot read {path}: {error.strerror}; make it readable (is its disk still there?) or "
        "move it away, and repeat the command"
    ) from error


def listing(folder: str | Path, *, deep: bool = False) -> dict[str, int]:
    """The files in a folder.

    Local links to folders are followed, but not up to a parent.

    Args:
        folder: a path or a URL.
        deep: whether at any depth.

    Returns:
        Sizes in bytes, by the name in the folder; -1 of what is no file, such as a link to nothing.
        Nothing of a folder that is not there, and no leases.

    Raises:
        ShardError: A folder is unreadable, or an object store fails.
    """
    if is_remote(folder):
        return _remote_listing(folder, deep=deep)
    sizes = dict[str, int]()
    if not Path(folder).is_dir():
        return sizes
    for place, folders, names in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        current = Path(place)
        folders[:] = sorted(name for name in folders if deep and not _is_loop(current / name))
        prefix = "".join(f"{part}/" for part in current.relative_to(folder).parts)
        for name in sorted(names):
            sizes[prefix + name] = file_size(f"{place}/{name}")
    return sizes


def file_size(path: str | Path) -> int:
    """How many bytes a local file has.

    Args:
        path: of the file.

    Returns:
        The bytes, or -1 of what is no file: a folder, a pipe, a link to nothing, a text that no
        name can be.

    Raises:
        ShardError: The disk does not say it, so that a file may be there.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (a Path for each takes as long again)
    except ValueError:  # a zero byte
        return -1
    except OSError as error:
        refuse_disk_error(error, path)
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1


def fetch(path: str | Path, to: Path) -> None:
    """Copy an object to a local file, which is not made durable."""
    objects.attempt("read", path, lambda store, name: store.get_file(name, str(to)))


def copy(source: str | Path, to: str | Path) -> None:
    """Commit the bytes of one file or object as another."""
    with nearby(source) as file, file.open("rb") as reading, writing(to) as written:
        shutil.copyfileobj(reading, written, 1 << 20)


@contextmanager
def nearby(path: str | Path) -> Iterator[Path]:
    """A local file itself, or a copy of an object for the length of the block."""
    if not is_remote(path):
        yield Path(path)
        return
    with tempfile.NamedTemporaryFile(prefix="care-") as local_copy:
        fetch(path, Path(local_copy.name))
        yield Path(local_copy.name)


def remove(path: str | Path) -> None:
    """Remove a file or an object."""
    if is_remote(path):
        objects.attempt("remove", path, lambda store, name: store.rm_file(name))
    else:
        Path(path).unlink()


@contextmanager
def writing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file that appears under ``path`` only when the block ends without an exception.

    Raises:
        ShardError: The disk refuses, or an object store fails.
    """
    if is_remote(path):
        with tempfile.NamedTemporaryFile(prefix="care-") as upload:
            yield upload
            upload.flush()
            objects.attempt("write", path, lambda store, name: store.put_file(upload.name, name))
        return
    final = Path(path)
    with readable_errors(final), staging.staged_file(final) as file:
        yield file


@contextmanager
def writing_directory(path: str | Path) -> Iterator[Path]:
    """A folder that appears under ``path`` only when the block ends without an exception.

    Every file in it is fsynced first. It replaces no folder that has something in it: that could
    not be atomic.

    Args:
        path: a local path.

    Yields:
        The folder to write into.

    Raises:
        ShardError: There is such a folder, the disk refuses, or ``path`` is a URL.
    """
    if is_remote(path):
        raise ShardError(
            f"wanted a local path, got {path}: this does not work in object stores yet; "
            "copy it to a local folder"
        )
    final = Path(path)
    with readable_errors(final), staging.staged_directory(final) as stage:
        stage.mkdir()
        yield stage
        for entry in (*stage.rglob("*"), stage):
            staging.sync(entry)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Commit ``data`` as the file ``path``."""
    with writing(path) as file:
        file.write(data)


def write_json(path: str | Path, value: Any) -> None:
    """Commit a value as readable JSON with sorted keys: equal values give equal bytes."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: str | Path) -> Any:
    """The JSON value in a file.

    Raises:
        ShardError: The file is missing, unreadable, or not JSON.
    """
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
    with nearby(path) as file, file.open("rb") as reading:
        return hashlib.file_digest(reading, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def readable_errors(final: Path) -> Iterator[None]:
    """Raise an ``OSError`` of the block, which writes ``final``, as a ``ShardError``."""
    try:
        yield
    except OSError as error:
        raise ShardError(
            f"cannot write {final}: {error.strerror or error}; nothing was changed under that name"
        ) from error


def _read_at_once(path: str | Path, start: int, end: int | None) -> bytes | None:
    """A part of a local file by one read, or None where it has another size than it says.

    A file object takes three times as long for a small one.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        stop = size if end is None else min(size, end)
        # where there is a byte more, the file has grown, or its file system knows no sizes
        excess = 1 if end is None else 0
        length = stop - start
        if length <= 0:
            return None
        data = os.pread(descriptor, length + excess, start)
    finally:
        os.close(descriptor)
    return data if len(data) == length else None


def _remote_listing(folder: str | Path, *, deep: bool) -> dict[str, int]:
    """The ``listing`` of a folder in an object store."""
    depth = None if deep else 1
    try:
        root, entries = objects.attempt(
            "list",
            folder,
            lambda store, name: (
                name.rstrip("/") + "/",
                store.find(name, maxdepth=depth, detail=True),
            ),
        )
    except FileNotFoundError:
        return {}
    sizes = dict[str, int]()
    for path, entry in entries.items():
        name = path.removeprefix(root)
        # the empty objects that a store's web page makes of folders are no files
        is_folder = not name or name.endswith("/")
        if path.startswith(root) and not is_folder and not name.startswith(".lease/"):
            sizes[name] = int(entry["size"] or 0)
    return sizes


def _is_loop(folder: Path) -> bool:
    """Whether a folder is a link to one of its parents."""
    return any(map(folder.samefile, folder.parents))


def _refuse_folder(error: OSError) -> None:
    raise ShardError(
        f"cannot list {error.filename}: {error.strerror}; make it readable or move it away"
    ) from error
