"""What tells a file from its successor without reading it, on a disk or in an object store."""

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple
from shards import objects, storage

# what stores call it, S3's name first; what has none of these is told by its time
_TAGS = ("ETag", "etag", "generation", "md5Hash", "crc32c")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
# a store's clock may be late by as much, in seconds
_SKEW = 60.0


class Version(NamedTuple):
    """How a file is now.

    Attributes:
        text: changes whenever the bytes do; of a local file also when it is moved or touched.
        changed: when the file was last changed, seconds since the epoch by this machine's clock, or
            later.
    """

    text: str
    changed: float


def versions_of(paths: Collection[str]) -> dict[str, Version]:
    """How files are now.

    Args:
        paths: paths and URLs.

    Returns:
        A version for each file that is there and of which something tells it: for local files
        inode, size and both times (the second one is set by no program), for objects the tag or
        generation that the store gives them.

    Raises:
        StoreError: An object store fails.
    """
    remote = [path for path in paths if storage.is_remote(path)]
    versions = _remote_versions(remote) if remote else {}
    for path in set(paths).difference(remote):
        with suppress(OSError):
            status = os.stat(path)  # noqa: PTH116 (a Path for each takes as long again)
            times = (status.st_mtime_ns, status.st_ctime_ns)
            text = f"{status.st_ino}-{status.st_size}-{times[0]}-{times[1]}"
            versions[path] = Version(text, max(times) / 1e9)
    return versions


def _remote_versions(urls: Iterable[str]) -> dict[str, Version]:
    """The versions of objects, by one listing of each folder that they are below."""
    wanted = {*urls}
    versions = dict[str, Version]()
    for root in _roots(wanted):
        for url, entry in _entries(root).items():
            version = _version_of(entry)
            if url in wanted and version is not None:
                versions[url] = version
    return versions


def _roots(urls: Iterable[str]) -> list[str]:
    """The folders of some objects, but for those that are below others of these."""
    folders = sorted({f"{url.rpartition('/')[0]}/" for url in urls})
    roots = list[str]()
    for folder in folders:
        if not roots or not folder.startswith(roots[-1]):
            roots.append(folder)
    return roots


def _entries(root: str) -> dict[str, Mapping[str, Any]]:
    """What a store says of the objects below a folder, by their URLs."""
    with suppress(FileNotFoundError):
        name, entries = objects.attempt(
            "list",
            root,
            lambda store, name: (
                name.rstrip("/") + "/",
                store.find(name, detail=True),
            ),
        )
        return {root + path.removeprefix(name): entry for path, entry in entries.items()}
    return {}


def _version_of(entry: Mapping[str, Any]) -> Version | None:
    """The version that an entry of a listing tells, if it does."""
    time = next((entry[name] for name in _TIMES if entry.get(name)), None)
    tag = next((entry[name] for name in _TAGS if entry.get(name)), time)
    if tag is None:
        return None
    return Version(f"{tag}-{entry.get('size')}", _seconds(time) + _SKEW)


def _seconds(time: Any) -> float:
    """Seconds since the epoch of a store's time; infinite where that is not understood."""
    with suppress(ValueError, TypeError):
        moment = datetime.fromisoformat(time) if isinstance(time, str) else time
        return moment.timestamp() if isinstance(moment, datetime) else float(moment)
    return float("inf")
