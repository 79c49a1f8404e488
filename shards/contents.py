"""What image files hold, as checksums that are computed once and looked up while files stay.

A content is the CRC-32 of a file's bytes, as the index of a set has it of its samples. What was
read is kept in ``contents.sqlite`` among the user's caches, beside what tells a file from its
successor without reading it: inode, size and times of a local file, tag or generation of an object.
So files that stay cost a look each, and the same bytes are the same content wherever they lie.
"""

import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from shards.cache import Cache
from shards.cores import available_cores
from shards.progress import say
from shards.rejects import RejectError
from shards.sources.candidates import Candidate, is_elsewhere, is_link, read_image
from shards.versions import Version, versions_of

# of an image without a file that could be compared, and of a file that cannot be an image's
UNKNOWN = -1
# a file that was changed so shortly before it was read may change again within a tick of its times
_SECONDS_TO_SETTLE = 2.0
# more files than this are announced, as reading them takes a while
_MANY = 1000
_TABLE = """create table if not exists contents (
    path text, offset integer, size integer, version text, crc32 integer,
    primary key (path, offset)) without rowid"""

Key = tuple[str, int]


def is_comparable(image: Candidate) -> bool:
    """Whether an image has a file that could be changed without its source.

    A link is never fetched for this, and samples of Python code are known to the plan.
    """
    return not is_link(image.path) and not image.content


def contents_of(images: Sequence[Candidate]) -> list[int]:
    """The contents of files, of which only those are read that are new or were changed.

    Args:
        images: the files, or the members of tars.

    Returns:
        A CRC-32 for each, or ``UNKNOWN``.

    Raises:
        ShardError: A file cannot be read, or an object store fails.
    """
    began = time.time()
    versions = _versions(images)
    kept = _look_up(images, versions)
    keys = _keys(images)
    missing = [image for image, key in zip(images, keys, strict=True) if key not in kept]
    if len(missing) > _MANY:
        say(f"reading {len(missing):,} files to know their contents")
    with ThreadPoolExecutor(available_cores()) as pool:
        read = dict(zip(_keys(missing), pool.map(_read, missing), strict=True))
    _keep(missing, versions, read, began)
    contents = {**kept, **read}
    return [contents[key] for key in keys]


def remember(images: Sequence[Candidate], contents: Sequence[int], began: float) -> None:
    """Keep contents that were found by reading the files for another purpose.

    Args:
        images: the files.
        contents: theirs.
        began: when the first of them was opened, in seconds since the epoch.
    """
    by_key = dict(zip(_keys(images), contents, strict=True))
    _keep(images, _versions(images), by_key, began)


def identity_of(images: Sequence[Candidate]) -> list[int | str]:
    """What tells images from others of the same names and sizes.

    Args:
        images: of a source.

    Returns:
        The content of each local file; of an object that has one its store's tag, so that no bucket
        is read; the content of any other object.
    """
    remote = [image for image in images if is_elsewhere(image.path)]
    tags = {path: version.text for path, version in _versions(remote).items()}
    others = [image for image in images if image.path not in tags]
    contents = iter(contents_of(others))
    return [tags.get(image.path) or next(contents) for image in images]


def _keys(images: Iterable[Candidate]) -> list[Key]:
    """Where the files are, whichever folder a later process is in."""
    here = Path.cwd()
    keys = list[Key]()
    for image in images:
        path = image.path
        is_whole = path.startswith("/") or is_elsewhere(path)
        keys.append((path if is_whole else f"{here}/{path}", image.offset))
    return keys


def _versions(images: Iterable[Candidate]) -> dict[str, Version]:
    """How the files are now, by path; but for those of which nothing tells it."""
    return versions_of({image.path for image in images if is_comparable(image)})


def _read(image: Candidate) -> int:
    """The content of a file, by reading it."""
    if not is_comparable(image):
        return UNKNOWN
    try:
        return zlib.crc32(read_image(image))
    except RejectError:
        return UNKNOWN


def _look_up(images: Sequence[Candidate], versions: Mapping[str, Version]) -> dict[Key, int]:
    """The contents that are kept of files that have not changed since."""
    kept = dict[Key, int]()
    query = "select crc32 from contents where path=? and offset=? and size=? and version=?"
    with suppress(sqlite3.Error, OSError), closing(_open()) as database:
        for image, key in zip(images, _keys(images), strict=True):
            version = versions.get(image.path)
            if version is not None:
                for (crc32,) in database.execute(query, (*key, image.size, version.text)):
                    kept[key] = crc32
    return kept


def _keep(
    images: Sequence[Candidate],
    versions: Mapping[str, Version],
    contents: Mapping[Key, int],
    began: float,
) -> None:
    """Keep contents, but for files that changed shortly before they were read, or after.

    A cache that cannot be written costs time later, never a result.
    """
    rows = list[tuple[str, int, int, str, int]]()
    for image, key in zip(images, _keys(images), strict=True):
        content = contents[key]
        version = versions.get(image.path)
        is_settled = version is not None and version.changed < began - _SECONDS_TO_SETTLE
        if version is not None and is_settled and content != UNKNOWN:
            rows.append((*key, image.size, version.text, content))
    if not rows:
        return
    with suppress(sqlite3.Error, OSError), closing(_open()) as database, database:
        database.executemany("insert or replace into contents values (?, ?, ?, ?, ?)", rows)


def _open() -> sqlite3.Connection:
    """The database, which commits by itself: no file of ours, and none that a result depends on."""
    folder = Cache().folder.parent
    folder.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(folder / "contents.sqlite", timeout=30)
    database.execute(_TABLE)
    return database
